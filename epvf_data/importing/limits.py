"""What a file with a policy in it may hold at most, and trees of arrays as flat names under these limits."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from epvf_data.errors import ConfigError, UnsafeDatasetError
from epvf_data.untrusted import printable

MAX_BYTES = 256 << 20  # of a file, of its unpacked members, and of its parameters in float32
MAX_TENSORS = 10_000
MAX_DEPTH = 32  # of nested dictionaries
MAX_VALUES = 20 * MAX_TENSORS  # dictionaries, lists, numbers and words beside the tensors and in their descriptions
MAX_NAME = 1024  # characters of a tensor's name, those of the dictionaries around it included
MAX_TEXT = 16 << 20  # of descriptions beside the tensors
RATIO, SMALL = 4, 4 << 20  # numbers take at most so many times the file's bytes, or so many bytes in all

_WRAPPER = r"(?:_orig_mod|_fsdp_wrapped_module)\."
_WRAPPERS = re.compile(rf"(?:(?<=/)|^)(?:module\.|{_WRAPPER})+|(?<=\.)(?:{_WRAPPER})+")
Tensors = dict[str, Float[np.ndarray, "..."]]  # name in the file → parameters


def plain(name: str) -> str:
    """A tensor's name without what torch.compile and parallel training wrap modules in."""
    return _WRAPPERS.sub("", name)


def flatten(tree: Any, where: str, array: Callable[[str, Any], np.ndarray | None] | None = None) -> Tensors:
    """The parameters in nested dictionaries and lists: {"a": [x]} → {"a/0": x}.

    These are the arrays of floating-point numbers, and whole numbers that are called weight, kernel or bias; others are
    counters. `array` makes an array of a leaf with its name, or None of what is none. Raises ConfigError for weights of
    other numbers, UnsafeDatasetError above the limits on depth, number and size, also where a small file names the same
    array over and over.
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
        leaf = array(name, node) if array else node if isinstance(node, np.ndarray | np.floating) else None
        if leaf is not None and (leaf := _real(name, np.asarray(leaf), where)) is not None:
            found[name] = leaf
            total += leaf.size
            if len(found) > MAX_TENSORS or 4 * total > MAX_BYTES:
                break
    raise UnsafeDatasetError(
        f"{where} nests too deep or holds too much; expected at most {MAX_TENSORS:,} tensors of "
        f"{MAX_BYTES >> 20} MiB in all, with names of {MAX_NAME} characters: save the policy alone."
    )


def is_weight(name: str) -> bool:
    """Whether a tensor is called what layers call their parameters."""
    return name.endswith(("weight", "kernel", "bias"))


def _real(name: str, leaf: np.ndarray, where: str) -> np.ndarray | None:
    """The numbers as floats; None where they are counters."""
    if leaf.dtype.name == "bfloat16":
        return np.asarray(leaf, np.float32)
    if leaf.dtype.kind == "f":
        return leaf.astype(leaf.dtype.newbyteorder("="), copy=False)
    if not is_weight(name):
        return None
    if leaf.dtype.kind not in "biu":
        raise ConfigError(
            f"{printable(name)} in {where} holds numbers of the kind {printable(leaf.dtype.name)}; expected float32."
        )
    return leaf.astype(np.float64)


def listing(names: Mapping[str, Any] | list[str], most: int = 4) -> str:
    """Some names for a message; they are a stranger's."""
    shown = [printable(name, 60) for name in sorted(names)]
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")
