"""What a file with a policy in it may hold at most, and trees of arrays as flat names under these limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from epvf_data.errors import UnsafeDatasetError
from epvf_data.untrusted import printable

MAX_BYTES = 256 << 20  # of a file, of its unpacked members, and of its parameters in float32
MAX_TENSORS = 10_000
MAX_DEPTH = 32  # of nested dictionaries
MAX_VALUES = 20 * MAX_TENSORS  # dictionaries, lists, numbers and words beside the tensors and in their descriptions
MAX_NAME = 1024  # characters of a tensor's name, those of the dictionaries around it included
MAX_TEXT = 16 << 20  # of descriptions beside the tensors
RATIO, SMALL = 4, 4 << 20  # numbers take at most so many times the file's bytes, or so many bytes in all

Tensors = dict[str, Float[np.ndarray, "..."]]  # name in the file → parameters


def flatten(tree: Any, where: str, array: Callable[[Any], np.ndarray | None] | None = None) -> Tensors:
    """The arrays of floating-point numbers in nested dictionaries and lists: {"a": [x]} → {"a/0": x}.

    `array` makes an array of a leaf, or None of one that is not floating-point. Raises UnsafeDatasetError above the
    limits on depth, number and size, also where a small file names the same array over and over.
    """
    found: Tensors = {}
    total, todo = 0, [("", 0, tree)]
    for _ in range(MAX_VALUES):
        if not todo:
            return found
        name, depth, node = todo.pop()
        if isinstance(node, Mapping | list | tuple):
            items = node.items() if isinstance(node, Mapping) else enumerate(node)
            if depth >= MAX_DEPTH or len(node) > MAX_TENSORS or len(todo) > 2 * MAX_TENSORS:
                break
            longest = max((len(key) for key in node if isinstance(key, str)), default=0)
            if len(name) + longest >= MAX_NAME:
                break
            todo += [(f"{name}/{key}" if depth else str(key), depth + 1, value) for key, value in items]
            continue
        leaf = (array or _floating)(node)
        if leaf is not None:
            found[name] = leaf
            total += leaf.size
            if len(found) > MAX_TENSORS or 4 * total > MAX_BYTES:
                break
    raise UnsafeDatasetError(
        f"{where} nests too deep or holds too much; expected at most {MAX_TENSORS:,} tensors of "
        f"{MAX_BYTES >> 20} MiB in all, with names of {MAX_NAME} characters: save the policy alone."
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
