"""One policy in one file: safetensors with the specification in the header, readable without this package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from epvf_data import outputs
from epvf_data.errors import ArchitectureMismatchError, ConfigError
from epvf_data.policies.spec import PolicySpec


def save_policy(path: str | Path, spec: PolicySpec, flat: Float[np.ndarray, "P"], **notes: str) -> None:
    """Writes the policy whole or not at all; an earlier file goes. `notes` are free text for people, as in env="ant".

    Raises ArchitectureMismatchError for parameters of another size, DatasetError where `path` is a link or a folder,
    StorageError if the disk refuses.
    """
    flat = np.asarray(flat, np.float32)
    if flat.shape != (spec.size,):
        raise ArchitectureMismatchError(f"got parameters of shape {flat.shape}; a policy {spec} needs [{spec.size}].")
    tensors = {
        name: flat[slot.offset : slot.offset + slot.size].reshape(slot.shape) for name, slot in spec.tensors.items()
    }
    data = save(tensors, metadata={"spec": spec.to_json(), **notes})
    outputs.write_bytes(Path(path), data, force=True)


def load_policy(path: str | Path) -> tuple[PolicySpec, Float[np.ndarray, "P"]]:
    """The specification and flat parameters of a policy file. Raises ConfigError with one sentence when it is none."""
    try:
        with safe_open(str(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError) as error:
        raise ConfigError(
            f"{path} is not a policy file ({error}); expected safetensors written by `save_policy`."
        ) from error
    if "spec" not in metadata:
        raise ConfigError(f"{path} has no `spec` in its header; expected a policy file written by `save_policy`.")
    spec = PolicySpec.from_json(metadata["spec"])
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if shapes != {name: slot.shape for name, slot in spec.tensors.items()}:
        raise ArchitectureMismatchError(
            f"the tensors in {path} do not have the shapes that its specification {spec} gives."
        )
    flat = np.concatenate([np.ravel(tensors[name]) for name in spec.tensors]).astype(np.float32)
    if not np.isfinite(flat).all():
        raise ConfigError(
            f"the policy in {path} holds {np.count_nonzero(~np.isfinite(flat))} parameters that are not finite."
        )
    return spec, flat
