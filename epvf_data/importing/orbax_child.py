"""The process that reads a checkpoint of orbax: `python -m … FOLDER` writes its tensors to stdout as safetensors.

Otherwise it exits with `UNSAFE` or `DAMAGED` and one line that says why.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

from epvf_data import orbax_files
from epvf_data.errors import ConfigError, CorruptDatasetError, UnsafeDatasetError
from epvf_data.importing.limits import MAX_BYTES, MAX_TENSORS, Tensors, flatten, is_weight

UNSAFE, DAMAGED = 3, 4


def main(folder: str) -> int:
    """Writes the answer about a checkpoint to standard output and gives the exit status: 0, `UNSAFE` or `DAMAGED`."""
    from safetensors.numpy import save

    answers = os.dup(1)
    os.dup2(2, 1)  # what a library prints is no answer
    try:
        answer, code = save(restore(Path(folder))), 0
    except UnsafeDatasetError as error:
        answer, code = str(error).encode(), UNSAFE
    except Exception as error:  # tensorstore raises all kinds
        told = (
            error if isinstance(error, CorruptDatasetError | ConfigError) else orbax_files.damaged(Path(folder), error)
        )
        answer, code = str(told).encode(), DAMAGED
    with os.fdopen(answers, "wb") as out:
        out.write(answer)
    return code


def restore(folder: Path) -> Tensors:
    """The parameters of a checkpoint, by name. Sizes are checked before anything is unpacked."""
    found = {"/".join(place): one for place, one in orbax_files.describe(folder, MAX_BYTES).items()}
    wanted = {
        name: one
        for name, one in found.items()
        if is_weight(name) or one.dtype == "bfloat16" or np.dtype(one.dtype).kind == "f"
    }
    if len(wanted) > MAX_TENSORS or sum(4 * one.numbers for one in wanted.values()) > MAX_BYTES:
        raise UnsafeDatasetError(
            f"{folder} unpacks to over {MAX_TENSORS:,} tensors or {MAX_BYTES >> 20} MiB; save the policy alone."
        )
    return flatten(dict(zip(wanted, orbax_files.read(wanted.values(), folder), strict=True)), str(folder))


if __name__ == "__main__":
    code = main(sys.argv[1])
    os._exit(code)  # threads that still wait for parts of a damaged checkpoint would keep the process
