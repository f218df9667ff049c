"""Checkpoints of pytrees through orbax, behind one module. A kill at any moment leaves the last complete one."""

from __future__ import annotations

import re
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from epvf_data import orbax_files
from epvf_data.errors import DatasetError, RunError, StorageError, reason
from epvf_data.outputs import flush
from epvf_data.untrusted import printable

_STEP = re.compile(r"0|[1-9][0-9]{0,17}", re.ASCII)
_UNFINISHED = re.compile(r"\.unfinished-[0-9]+(-[0-9a-f]{16})?(\.orbax-checkpoint-tmp(-[0-9]+)?)?", re.ASCII)
_OVERHEAD = 256 * 1024  # bytes of metadata, generously


@dataclass(frozen=True)
class Leaf:
    """An array of a template; a size of None may be any number from 1 to `most`."""

    shape: tuple[int | None, ...]
    dtype: Any
    most: int = 0


def save(directory: Path, step: int, tree: Any, keep: int = 2) -> None:
    """Writes `tree` (arrays at the leaves) as checkpoint `step`, then removes all but the newest `keep`.

    The files are written and fsynced under a name that no reader looks at, then published by one rename.
    Raises StorageError when the disk refuses.
    """
    directory = directory.absolute()
    staging = _staging(directory, step)
    tree = jax.tree.map(np.asarray, tree)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _remove_unfinished(directory)
        _check_space(directory, step, tree)
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(staging, tree)
        for path in (*staging.rglob("*"), staging):
            flush(path)
        _remove(directory / str(step))
        staging.rename(directory / str(step))
        flush(directory)
        for old in steps(directory)[:-keep]:
            _remove(directory / str(old))
    except (OSError, ValueError) as error:
        _remove_unfinished(directory)
        raise StorageError(f"checkpoint {step} could not be written to {directory} ({reason(error)}).") from error


def _remove_unfinished(directory: Path) -> None:
    """Removes folders that a killed process left, which their names tell."""
    if directory.is_dir():
        for left in directory.iterdir():
            if _UNFINISHED.fullmatch(left.name):
                shutil.rmtree(left, ignore_errors=True)  # which follows no links


def _remove(step: Path) -> None:
    """Removes a checkpoint, where there is one: first its name, so that none is ever seen half removed."""
    if _STEP.fullmatch(step.name) and (step / orbax_files.TREE).is_file():
        shutil.rmtree(step.rename(_staging(step.parent, int(step.name))))


def _staging(directory: Path, step: int) -> Path:
    """A new name in the directory that no reader looks at."""
    return directory / f".unfinished-{step}-{secrets.token_hex(8)}"


def _check_space(directory: Path, step: int, tree: Any) -> None:
    """Raises StorageError for a disk that is too full: orbax's own threads would print pages of tracebacks."""
    needed = sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) + _OVERHEAD
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise StorageError(
            f"checkpoint {step} needs {needed / 1e6:,.1f} MB and {directory} has {free / 1e6:,.1f} MB left; "
            "make room, then resume the run."
        )


def steps(directory: Path) -> list[int]:
    """Numbers of the complete checkpoints, ascending; empty where there is none."""
    if not directory.is_dir():
        return []
    return sorted(int(path.name) for path in directory.iterdir() if _STEP.fullmatch(path.name))


def latest(directory: Path) -> int | None:
    """Number of the newest complete checkpoint, or None."""
    return max(steps(directory), default=None)


def remove(directory: Path) -> None:
    """Removes the checkpoints of a directory, and the directory where nothing else is in it."""
    for step in steps(directory):
        _remove(directory / str(step))
    _remove_unfinished(directory)
    if directory.is_dir() and not any(directory.iterdir()):
        directory.rmdir()


def restore(directory: Path, template: Any = None, step: int | None = None) -> Any:
    """The tree of checkpoint `step` (the newest without one), with NumPy arrays at the leaves.

    `template` has the tree's structure, and its leaves shapes and dtypes (see `Leaf`); without one, the tree comes back
    as nested dictionaries. Nothing is unpacked unless it fits. Raises RunError when there is no checkpoint, or it does
    not fit the template or is no checkpoint of ours.
    """
    directory = directory.absolute()
    step = latest(directory) if step is None else step
    if step is None:
        raise RunError(f"{directory} holds no checkpoint; train the run first.")
    folder = directory / str(step)
    try:
        stored = orbax_files.describe(folder, _most_bytes(template))
        if template is None:
            arrays = orbax_files.read(stored.values(), folder)
            return _nested(dict(zip(stored, arrays, strict=True)))
        paths, structure = jax.tree_util.tree_flatten_with_path(template)
        wanted = {tuple(map(_name, path)): leaf for path, leaf in paths}
        if misfit := _misfit(stored, wanted):
            what = "it is of another critic, or of another version of epvf-data; start a new run"
            raise RunError(f"checkpoint {step} in {directory} does not fit these settings: {misfit}; {what}.")
        return jax.tree.unflatten(structure, orbax_files.read([stored[place] for place in wanted], folder))
    except DatasetError as error:
        raise RunError(str(error)) from error


def finite(tree: Any) -> bool:
    """Whether all numbers of a tree are."""
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


def _name(key: Any) -> str:
    """What orbax calls a step down a tree."""
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    raise TypeError(key)


def _most_bytes(template: Any) -> int:
    """The files of a checkpoint hold each array twice at most: orbax writes a copy and joins them."""
    if template is None:
        return 1 << 40
    sizes = (
        np.prod([leaf.most if size is None else size for size in leaf.shape], dtype=float)
        * np.dtype(leaf.dtype).itemsize
        for leaf in jax.tree.leaves(template)
    )
    return int(2.2 * sum(sizes)) + orbax_files.ROOM


def _misfit(stored: dict[tuple[str, ...], orbax_files.Stored], wanted: dict[tuple[str, ...], Any]) -> str | None:
    """How a checkpoint differs from what is wanted."""
    if stored.keys() != wanted.keys():
        other = "/".join(min({*stored} ^ {*wanted}))
        return f"{printable(other)} is {'not in it' if other in wanted else 'not in the settings'}"
    for place, leaf in wanted.items():
        found, name = stored[place], printable("/".join(place))
        sizes = zip(found.shape, leaf.shape, strict=False)
        fits = all(1 <= got <= leaf.most if size is None else got == size for got, size in sizes)
        if len(found.shape) != len(leaf.shape) or not fits or found.dtype != np.dtype(leaf.dtype).name:
            sizes = ", ".join(f"1 to {leaf.most}" if size is None else str(size) for size in leaf.shape)
            return f"{name} is {found.dtype}{list(found.shape)}, expected {np.dtype(leaf.dtype).name}[{sizes}]"
    return None


def _nested(flat: dict[tuple[str, ...], np.ndarray]) -> dict[str, Any]:
    """Nested dictionaries of arrays by their places."""
    tree: dict[str, Any] = {}
    for place, array in flat.items():
        node = tree
        for key in place[:-1]:
            node = node.setdefault(key, {})
        node[place[-1]] = array
    return tree
