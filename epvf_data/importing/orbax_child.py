"""The process that reads a checkpoint of orbax: `python -m … FOLDER` writes its tensors to stdout as safetensors.

Otherwise it exits with `TOO_LARGE`, or with `DAMAGED` and one line that says why.
"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from epvf_data.errors import UnsafeDatasetError
from epvf_data.importing.limits import MAX_BYTES, MAX_TENSORS, Tensors, flatten

TOO_LARGE, DAMAGED = 3, 4


def main(folder: str) -> int:
    from safetensors.numpy import save

    answers = os.dup(1)
    os.dup2(2, 1)  # what a library prints is no answer
    try:
        answer, code = save(restore(Path(folder))), 0
    except UnsafeDatasetError:
        answer, code = b"", TOO_LARGE
    except Exception as error:  # orbax and tensorstore raise all kinds
        answer, code = ((str(error).splitlines() or [""])[0] or type(error).__name__).encode(), DAMAGED
    with os.fdopen(answers, "wb") as out:
        out.write(answer)
    return code


def restore(folder: Path) -> Tensors:
    """The floating-point arrays of a checkpoint, by name. Sizes are checked before anything is unpacked."""
    import jax
    import orbax.checkpoint as ocp

    checkpointer = ocp.PyTreeCheckpointer()
    item = checkpointer.metadata(folder).item_metadata
    if item is None:
        raise ValueError("no description of its tree")
    sizes = [_size(leaf) for leaf in jax.tree.leaves(item.tree)]
    if len(sizes) > MAX_TENSORS or 4 * sum(sizes) > MAX_BYTES:
        raise UnsafeDatasetError("too large")
    kinds = jax.tree.map(
        lambda leaf: ocp.RestoreArgs(restore_type=np.ndarray if hasattr(leaf, "shape") else str), item.tree
    )
    return flatten(checkpointer.restore(folder, ocp.args.PyTreeRestore(restore_args=kinds)), str(folder))


def _size(leaf: Any) -> int:
    """Numbers in an array, or in one of its stored pieces where that is more: pieces are unpacked whole."""
    storage = getattr(leaf, "storage", None)
    shapes = (getattr(leaf, "shape", None), getattr(storage, "chunk_shape", None))
    return max(math.prod(shape) if shape else 1 for shape in shapes)


if __name__ == "__main__":
    code = main(sys.argv[1])
    os._exit(code)  # threads that still wait for parts of a damaged checkpoint would keep the process
