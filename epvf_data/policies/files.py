"""One policy in one file: safetensors with the specification in the header, readable without this package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float
from safetensors.numpy import save

from epvf_data import outputs
from epvf_data.errors import ArchitectureMismatchError, ConfigError, of_file
from epvf_data.policies import header
from epvf_data.policies.kinds import Spec, from_json
from epvf_data.untrusted import read_named


def save_policy(path: str | Path, spec: Spec, flat: Float[np.ndarray, "P"], **notes: str) -> None:
    """Writes the policy whole or not at all; an earlier file goes. `notes` are free text for people, as in env="ant".

    Raises ArchitectureMismatchError for parameters of another size, ConfigError for complex ones, DatasetError where
    `path` is a link or a folder, StorageError if the disk refuses.
    """
    if np.iscomplexobj(flat):
        raise ConfigError("got complex parameters; a policy's are real.")
    flat = np.asarray(flat, np.float32)
    if flat.shape != (spec.size,):
        raise ArchitectureMismatchError(f"got parameters of shape {flat.shape}; a policy {spec} needs [{spec.size}].")
    tensors = {
        name: flat[slot.offset : slot.offset + slot.size].reshape(slot.shape) for name, slot in spec.tensors.items()
    }
    data = save(tensors, metadata={"spec": spec.to_json(), **notes})
    outputs.write_bytes(Path(path), data, force=True)


@of_file()
def load_policy(path: str | Path) -> tuple[Spec, Float[np.ndarray, "P"]]:
    """The specification and flat parameters of a policy file. Raises FileError with one sentence when it is none."""
    data = read_named(path, "policy file", header.MAX_BYTES)
    head = header.parse(data, path)
    if "spec" not in head.notes:
        raise ConfigError(f"{path} has no `spec` in its header; expected a policy file written by `save_policy`.")
    try:
        spec = from_json(head.notes["spec"])
    except ConfigError as error:
        raise ConfigError(f"{path} is not a policy file: {error}") from error
    if {name: entry.shape for name, entry in head.tensors.items()} != {
        name: slot.shape for name, slot in spec.tensors.items()
    }:
        raise ArchitectureMismatchError(
            f"the tensors in {path} do not have the shapes that its specification {spec} gives."
        )
    flat, numbers = np.empty(spec.size, np.float32), memoryview(data)[head.size :]
    for name, slot in spec.tensors.items():
        entry = head.tensors[name]
        if entry.kind not in header.NUMBERS:
            raise ConfigError(f"{path} holds numbers of the kind {entry.kind}; a policy's are F32.")
        with np.errstate(over="ignore"):
            flat[slot.offset : slot.offset + slot.size] = entry.read(numbers).ravel()
    if not np.isfinite(flat.max()) or not np.isfinite(flat.min()):
        raise ConfigError(
            f"the policy in {path} holds {np.count_nonzero(~np.isfinite(flat))} parameters that are not finite."
        )
    return spec, flat


@of_file()
def read_notes(path: str | Path) -> Mapping[str, str]:
    """The words beside a policy, which somebody else may have chosen. Raises FileError as `load_policy` does."""
    return header.parse(read_named(path, "policy file", header.MAX_BYTES), path).notes
