"""Checkpoints of pytrees through orbax, behind one module. A kill at any moment leaves the last complete one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from epvf_data.errors import RunError, StorageError

_UNFINISHED = ".unfinished-"
_OVERHEAD = 256 * 1024  # bytes of metadata, generously


def save(directory: Path, step: int, tree: Any, keep: int = 2) -> None:
    """Writes `tree` (arrays at the leaves) as checkpoint `step`, then removes all but the newest `keep`.

    The files are written and fsynced under a name that no reader looks at, then published by one rename.
    Raises StorageError when the disk refuses.
    """
    directory = directory.absolute()
    staging = directory / f"{_UNFINISHED}{step}"
    tree = jax.tree.map(np.asarray, tree)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _remove_unfinished(directory)
        _check_space(directory, step, tree)
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(staging, tree)
        for path in (*staging.rglob("*"), staging):
            _fsync(path)
        if (directory / str(step)).exists():
            shutil.rmtree(directory / str(step))
        staging.rename(directory / str(step))
        _fsync(directory)
        for old in steps(directory)[:-keep]:
            shutil.rmtree(directory / str(old))
    except (OSError, ValueError) as error:
        _remove_unfinished(directory)
        raise StorageError(f"checkpoint {step} could not be written to {directory} ({error}).") from error


def _remove_unfinished(directory: Path) -> None:
    for left in directory.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(left, ignore_errors=True)


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
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdecimal())


def latest(directory: Path) -> int | None:
    """Number of the newest complete checkpoint, or None."""
    return max(steps(directory), default=None)


def remove(directory: Path) -> None:
    """Removes all checkpoints of a directory, where there are any."""
    shutil.rmtree(directory, ignore_errors=True)


def restore(directory: Path, template: Any = None, step: int | None = None) -> Any:
    """The tree of checkpoint `step` (the newest without one), with NumPy arrays at the leaves.

    `template` has the tree's structure and its leaves' shapes and dtypes; without one, the tree comes back as nested
    dictionaries. Raises RunError when there is no checkpoint or it does not fit the template.
    """
    directory = directory.absolute()
    step = latest(directory) if step is None else step
    if step is None:
        raise RunError(f"{directory} holds no checkpoint; train the run first.")
    target = None if template is None else jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), template)
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            tree = checkpointer.restore(directory / str(step), target)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(f"checkpoint {step} in {directory} is not readable or of another critic ({reason}).") from error
    return jax.tree.map(np.asarray, tree)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
