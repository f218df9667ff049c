"""Imports many damaged HDF5 files, quickly: the reading process is forked from this one, which has imported everything.

`python forked_import.py damage FILE HASH FOLDER COUNT SEED` damages copies of a good file at random and prints as JSON
how often the import gave the same content, other content, an error of ours, or anything else.
`python forked_import.py each FILE …` prints as JSON what the import of each said.
"""

from __future__ import annotations

import collections
import json
import os
import random
import resource
import shutil
import sys
import traceback
from pathlib import Path
from types import SimpleNamespace

import h5py  # noqa: F401 - so that the forked processes have it

from epvf_data.errors import EpvfError
from epvf_data.exchange import hdf5, hdf5_child, hdf5_guard
from epvf_data.provenance import git_state
from epvf_data.store import reader
from epvf_data.store.digest import content_hash


class Fork:
    """What the importer needs of `subprocess.Popen`, by fork."""

    def __init__(self, command: list[str], *, env: dict[str, str], **_: object) -> None:
        (request, ask), (answer, tell) = os.pipe(), os.pipe()
        self._code: int | None = None
        self._pid = os.fork()
        if not self._pid:
            try:
                for end, place in ((request, 0), (tell, 1), (os.open(os.devnull, os.O_WRONLY), 2)):
                    os.dup2(end, place)
                os.close(ask)
                sys.stdin, sys.argv = open(0), command[-3:]  # noqa: SIM115
                os.environ.update(env)
                hdf5_child.main()
            finally:
                os._exit(0)
        os.close(request)
        os.close(tell)
        self.stdin, self.stdout = os.fdopen(ask, "wb", 0), os.fdopen(answer, "rb", 0)

    def __enter__(self) -> Fork:
        return self

    def __exit__(self, *_: object) -> None:
        self.stdin.close()
        self.stdout.close()
        self.wait()

    def wait(self) -> int:
        if self._code is None:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return self._code

    def kill(self) -> None:
        if self._code is None:
            os.kill(self._pid, 9)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """A copy with a bit or some bytes changed, bytes of elsewhere put in, or the end cut off."""
    copy = bytearray(data)
    place = rng.randrange(len(copy))
    match rng.choice(("bit", "bytes", "splice", "cut")):
        case "bit":
            copy[place] ^= 1 << rng.randrange(8)
        case "bytes":
            for _ in range(rng.choice((1, 2, 8))):
                copy[rng.randrange(len(copy))] = rng.randrange(256)
        case "splice":
            size = rng.randrange(1, min(200, len(copy)))
            start = rng.randrange(len(copy) - size)
            copy[start : start + size] = copy[place : place + size].ljust(size, b"\0")
        case "cut":
            del copy[place:]
    return bytes(copy)


def damage(file: str, expected: str, folder: str, count: str, seed: str) -> dict[str, int]:
    good, rng, told = Path(file).read_bytes(), random.Random(int(seed)), collections.Counter()
    bad, out = Path(folder) / "bad.h5", Path(folder) / "out.zarr"
    for _ in range(int(count)):
        bad.write_bytes(damaged(good, rng))
        try:
            hdf5.import_hdf5(bad, out)
            told["same" if content_hash(reader.open(out)) == expected else "other"] += 1
            shutil.rmtree(out)
        except EpvfError as error:
            told["refused" if "\n" not in str(error) and not out.exists() else "leftover"] += 1
        except Exception:
            traceback.print_exc()
            told["traceback"] += 1
    return told


def each(*files: str) -> dict[str, str]:
    told = {}
    for file in files:
        out = Path(file).with_suffix(".zarr")
        try:
            hdf5.import_hdf5(file, out)
            told[file] = "imported"
        except EpvfError as error:
            told[file] = f"{type(error).__name__}: {error}" if not out.exists() else "leftover"
    return told


if __name__ == "__main__":
    git_state()  # runs git once, before `subprocess` is replaced
    setattr(hdf5_guard, "subprocess", SimpleNamespace(Popen=Fork, PIPE=None, DEVNULL=None))  # noqa: B010
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
    print(json.dumps({"damage": damage, "each": each}[sys.argv[1]](*sys.argv[2:])))
