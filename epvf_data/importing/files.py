"""A file of any known kind, as tensors with names. Nothing in a file is executed, and pickles are refused."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from epvf_data.errors import ConfigError, UnsafeDatasetError, of_file
from epvf_data.importing import msgpack_file, orbax, sb3, torch_file
from epvf_data.importing.limits import MAX_BYTES, Tensors, flatten, plain
from epvf_data.importing.settings import FORMATS
from epvf_data.policies import header
from epvf_data.untrusted import printable, read_named

MAX_FILES, MAX_FOLDERS = 10_000, 100  # around a policy that are looked at
_TRAINING = re.compile(r"(?:.*[./])?(?:\w*optimizer\w*|opt_states?|optim|opt)[./].*")
_BESIDE = re.compile(r"vec_?norm\w*\.pkl$|(?:^|_)(?:state|observation)_preprocessor\w*\.pt$", re.IGNORECASE)
_OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # before PyTorch 1.6


@dataclass(frozen=True)
class Contents:
    """What was found in a file."""

    format: str
    tensors: Tensors
    facts: dict[str, Any] = field(default_factory=dict)  # what the file says itself, as settings of an import
    unknown: dict[str, str] = field(default_factory=dict)  # settings that must be stated, each with the reason


@of_file()
def read(path: Path, format: str | None = None) -> Contents:
    """The tensors of a file or folder, of the kind `format` or of the one that its first bytes show.

    They have their plain names, and those of optimizers are left out. Raises FileError for what is none of `FORMATS`
    or damaged, UnsafeDatasetError for pickles and absurd sizes.
    """
    found = _read(path, format)
    unknown = {**found.unknown, **_normaliser_beside(path)}
    return replace(found, tensors=_plain(found.tensors, path), unknown=unknown)


def _read(path: Path, format: str | None) -> Contents:
    if format is not None and format not in FORMATS:
        raise ConfigError(f"there is no format {format!r}; choose one of {', '.join(FORMATS)}.")
    folder = os.path.isdir(path)  # noqa: PTH112 (no name is too long for it)
    if folder or format == "orbax":
        if not folder or format not in (None, "orbax"):
            raise ConfigError(f"{path} is {'a folder' if folder else 'a file'}; only orbax's format is a folder.")
        return Contents("orbax", *orbax.read(path))
    data = read_named(path, "policy file", MAX_BYTES)
    found = _format_of(data, path)
    if format not in (None, found):
        raise ConfigError(f"{path} is of the format {found}, not {format}; leave --format out.")
    if found == "sb3":
        return Contents(found, *sb3.read(data, str(path)))
    readers = {"safetensors": _safetensors, "msgpack": msgpack_file.read, "torch": torch_file.read}
    return Contents(found, readers[found](data, str(path)))


def _plain(tensors: Tensors, where: Path) -> Tensors:
    """The tensors without those of optimizers, by their plain names."""
    found = {name: plain(name) for name in tensors if not _TRAINING.fullmatch(name)}
    if len({*found.values()}) < len(found):
        raise ConfigError(f"{where} holds a network twice, compiled and plain; save one of the two.")
    return {name: tensors[full] for full, name in found.items()}


def _normaliser_beside(path: Path) -> dict[str, str]:
    """The setting that must be stated where a normaliser lies in a file of its own beside the policy's."""
    folders = [path.parent]
    for folder in folders:  # and those right inside of it, where rl-zoo puts them
        with contextlib.suppress(OSError), os.scandir(folder) as listing:
            found = list(itertools.islice(listing, MAX_FILES))
            if folder == path.parent:
                folders += sorted(Path(entry) for entry in found if entry.is_dir(follow_symlinks=False))[:MAX_FOLDERS]
            if beside := next(filter(_BESIDE.search, sorted(entry.name for entry in found)), None):
                return {
                    "normaliser": f"{printable(beside)} lies beside {path.name}, and a normaliser in it is not read; "
                    "state its mean and var, epsilon and clip under [normaliser] in --spec, or --set normaliser=none "
                    "if the policy was trained without"
                }
    return {}


def _format_of(data: bytes, path: Path) -> str:
    if data[8:9] == b"{" and 8 + int.from_bytes(data[:8], "little") <= len(data):
        return "safetensors"  # the length of whose header may look like any mark below
    if data.startswith(b"PK"):
        return "sb3" if sb3.STATE in torch_file.Archive(data, str(path)).names else "torch"
    if data.startswith(_OLD_TORCH):
        raise UnsafeDatasetError(
            f"{path} is a pickle of PyTorch before 1.6, which may run code; load it in PyTorch and save it again: "
            "torch.save(model.state_dict(), …)."
        )
    if data[:1] == b"\x80" and data[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        raise UnsafeDatasetError(
            f"{path} is a pickle, which may run code, and is not read; save the parameters as safetensors, with "
            "flax.serialization.to_bytes or orbax (in brax: ppo.checkpoint.save in place of model.save_params)."
        )
    if data and (0x80 <= data[0] <= 0x8F or data[0] in (0xDE, 0xDF)):  # a map
        return "msgpack"
    raise ConfigError(f"{path} is of no known kind; expected one of {', '.join(FORMATS)}.")


def _safetensors(data: bytes, where: str) -> Tensors:
    head = header.parse(data, where)
    if "spec" in head.notes:
        raise ConfigError(f"{where} is a policy file of this package already; `collect --base` and `render` take it.")
    numbers = memoryview(data)[head.size :]
    return flatten({name: entry.read(numbers) for name, entry in head.tensors.items()}, where)
