"""Policies in checkpoints of orbax: folders."""

from __future__ import annotations

import json
import logging
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from epvf_data.errors import ConfigError, UnsafeDatasetError
from epvf_data.importing.limits import MAX_BYTES, MAX_TENSORS, Tensors, flatten, read_bytes

TREE = "_METADATA"  # what orbax keeps beside the arrays of a tree
_BRAX = ("ppo_network_config.json", "sac_network_config.json")


def read(folder: Path) -> tuple[Tensors, dict[str, Any]]:
    """(tensors, what brax wrote about its policy beside them, as settings of an import).

    A folder of checkpoints is accepted where it holds a single one. Raises ConfigError for other folders, and
    UnsafeDatasetError for links, special files and sizes that no policy has.
    """
    folder = _only(folder, _checked(folder))
    with _quiet():
        tree = _restore(folder)
    return flatten(tree, str(folder)), _facts(folder)


def _checked(folder: Path) -> list[Path]:
    """The files of a folder, in which there are no links and not too many bytes."""
    files, size = [], 0
    for parent, names, plain in os.walk(folder):
        for path in (Path(parent, name) for name in (*names, *plain)):
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise UnsafeDatasetError(f"{path} is a link or a special file; a checkpoint holds plain files.")
        files += [Path(parent, name) for name in plain]
        size += sum(Path(parent, name).stat().st_size for name in plain)
        if len(files) > MAX_TENSORS or size > MAX_BYTES:
            raise UnsafeDatasetError(
                f"{folder} holds over {MAX_TENSORS:,} files or {MAX_BYTES >> 20} MiB; name one checkpoint of a policy."
            )
    return files


def _only(folder: Path, files: list[Path]) -> Path:
    if (folder / TREE) in files:
        return folder
    inside = sorted(file.parent for file in files if file.name == TREE)
    if len(inside) != 1:
        hint = f"name one of the {len(inside)} inside, such as {inside[0]}" if inside else f"there is no {TREE} in it"
        raise ConfigError(f"{folder} is no checkpoint of orbax; {hint}.")
    return inside[0]


def _restore(folder: Path) -> Any:
    """The checkpoint's tree with NumPy arrays at the leaves."""
    import jax
    import orbax.checkpoint as ocp

    try:
        checkpointer = ocp.PyTreeCheckpointer()
        item = checkpointer.metadata(folder.absolute()).item_metadata
        if item is None:
            raise ValueError("no description of its tree")
        leaves = jax.tree.leaves(item.tree)
        sizes = [_size(leaf) for leaf in leaves]
        if len(sizes) > MAX_TENSORS or 4 * sum(sizes) > MAX_BYTES:
            raise UnsafeDatasetError(
                f"{folder} unpacks to over {MAX_TENSORS:,} tensors or {MAX_BYTES >> 20} MiB; save the policy alone."
            )
        kinds = jax.tree.map(
            lambda leaf: ocp.RestoreArgs(restore_type=np.ndarray if hasattr(leaf, "shape") else str), item.tree
        )
        return checkpointer.restore(folder.absolute(), ocp.args.PyTreeRestore(restore_args=kinds))
    except UnsafeDatasetError:
        raise
    except Exception as error:  # orbax and tensorstore raise all kinds on damaged files
        reason = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
        raise ConfigError(f"{folder} is a damaged checkpoint of orbax, or of another version ({reason}).") from error


def _size(leaf: Any) -> int:
    """Numbers in an array, or in one of its stored pieces where that is more: pieces are unpacked whole."""
    storage = getattr(leaf, "storage", None)
    shapes = (getattr(leaf, "shape", None), getattr(storage, "chunk_shape", None))
    return max(math.prod(shape) if shape else 1 for shape in shapes)


def _facts(folder: Path) -> dict[str, Any]:
    """What brax's own description of its network says, where there is one."""
    for path in (folder / name for name in _BRAX):
        if path.is_file():
            try:
                said = json.loads(read_bytes(path, 1 << 20))
                network = said["network_factory_kwargs"]
                facts = {"activation": network["activation"], "action_size": said["action_size"]}
                if said["normalize_observations"] is False:
                    facts["normaliser"] = "none"
                if network.get("distribution_type", "tanh_normal") != "tanh_normal":
                    raise ConfigError(
                        f"{path} describes actions of the kind {network['distribution_type']!r:.40}; only brax's "
                        "tanh_normal can be imported: its mode is tanh(mean)."
                    )
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise ConfigError(f"{path} is not a description of a network by brax ({error!r:.80}).") from error
            return {**facts, "policy_obs_key": network.get("policy_obs_key", "state")}
    return {}


class _quiet:
    """Orbax warns about every part of a checkpoint that is optional."""

    def __enter__(self) -> None:
        self.level = logging.getLogger("absl").level
        logging.getLogger("absl").setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        logging.getLogger("absl").setLevel(self.level)
