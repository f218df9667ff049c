"""What a file with a policy in it may hold at most, and trees of arrays as flat names under these limits."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from epvf_data.errors import ConfigError, UnsafeDatasetError
from epvf_data.untrusted import printable

MAX_BYTES = 256 << 20  # of a file, of its unpacked members, and of its parameters in float32
MAX_TENSORS = 10_000
MAX_DEPTH = 32  # of nested dictionaries
MAX_TEXT = 16 << 20  # of descriptions beside the tensors

Tensors = dict[str, Float[np.ndarray, "..."]]  # name in the file → parameters


def read_bytes(path: Path, limit: int = MAX_BYTES) -> bytes:
    """The whole file. Raises ConfigError where it is none, UnsafeDatasetError above `limit` bytes."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"{path} cannot be opened ({error.strerror}); expected a file with a policy.") from error
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ConfigError(f"{path} is no plain file; expected a file with a policy.")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise UnsafeDatasetError(f"{path} has more than {limit >> 20} MiB; no policy of this package is that large.")
    return data


def flatten(tree: Any, where: str, array: Callable[[Any], np.ndarray | None] | None = None) -> Tensors:
    """The arrays of floating-point numbers in nested dictionaries and lists: {"a": [x]} → {"a/0": x}.

    `array` makes an array of a leaf, or None of one that is not floating-point. Raises UnsafeDatasetError above the
    limits on depth, number and size, also where a small file names the same array over and over.
    """
    found: Tensors = {}
    total, todo = 0, [((), tree)]
    for _ in range(10 * MAX_TENSORS):
        if not todo:
            return found
        names, node = todo.pop()
        if isinstance(node, Mapping | list | tuple):
            items = node.items() if isinstance(node, Mapping) else enumerate(node)
            if len(names) >= MAX_DEPTH or len(node) > MAX_TENSORS:
                break
            todo += [((*names, str(key)), value) for key, value in items]
            continue
        leaf = (array or _floating)(node)
        if leaf is not None:
            found["/".join(names)] = leaf
            total += leaf.size
            if len(found) > MAX_TENSORS or 4 * total > MAX_BYTES:
                break
    raise UnsafeDatasetError(
        f"{where} nests too deep or holds too much; expected at most {MAX_TENSORS:,} tensors of "
        f"{MAX_BYTES >> 20} MiB in all: save the policy alone."
    )


def _floating(leaf: Any) -> np.ndarray | None:
    if not isinstance(leaf, np.ndarray | np.floating):
        return None
    if leaf.dtype.name == "bfloat16":
        return np.asarray(leaf, np.float32)
    return np.asarray(leaf) if leaf.dtype.kind == "f" else None


def listing(names: Mapping[str, Any] | list[str], most: int = 4) -> str:
    """Some names for a message; they are a stranger's."""
    shown = [printable(name, 60) for name in sorted(names)]
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")
