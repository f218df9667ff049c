"""Forges data sets: changes anything in a copy and makes all hashes fit again, as an attacker would.

`python forge.py MEGABYTES SECONDS GOOD` takes paths from its standard input, one a line, and reads and checks each of
these data sets in every way, with at most MEGABYTES more address space than reading the data set GOOD took and in at
most SECONDS each. It prints one JSON line a data set: seconds, megabytes, and what each way of reading gave.
"""

from __future__ import annotations

import faulthandler
import hashlib
import json
import resource
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import epvf_data
from epvf_data.errors import EpvfError
from epvf_data.store.digest import content_hash
from epvf_data.store.loader import Loader
from epvf_data.store.validate import leftovers, validate


def dump(value: Any) -> bytes:
    """JSON as the format wants it, of any value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def entry(path: Path) -> list[Any]:
    """A file as a commit record names it."""
    data = path.read_bytes()
    return [len(data), hashlib.sha256(data).hexdigest()]


class Forge:
    """A data set to spoil. `records` are its commit records; `seal` writes them with hashes that fit."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records = [json.loads(file.read_bytes()) for file in sorted((path / "commits").glob("0*.json"))]

    def part(self, number: int = 0) -> Path:
        return self.path / "parts" / self.records[number]["add"][0]["id"]

    def probe(self) -> Path:
        return self.path / "probes" / self.records[0]["add"][0]["probe"]

    def change(self, file: Path, keys: Sequence[Any], value: Any) -> None:
        """Sets a member of a JSON file; the value `...` deletes it."""
        whole = json.loads(file.read_bytes())
        put(whole, keys, value)
        file.write_bytes(dump(whole))

    def seal(self, only: Path | None = None) -> None:
        """Hashes of listed files (of `only` one, or of all plain ones), the root's, the chain of parents, the seals."""
        root, parent = entry(self.path / "zarr.json")[1], None
        files_here = self.path.rglob("*") if only is None else [only]  # does not follow links to folders
        real = {str(file): file for file in files_here if file.is_file()}
        for file in (self.path / "commits").glob("0*.json"):
            file.unlink()
        for number, record in enumerate(self.records):
            listed = [(self.path / "parts" / part["id"], part["files"]) for part in record["add"]]
            listed += [(self.path / "probes" / name, files) for name, files in record["probes"].items()]
            for folder, files in listed:
                for name in files:
                    if f"{folder}/{name}" in real:
                        files[name] = entry(real[f"{folder}/{name}"])
            self.write(number, {**record, "root": root, "number": number, "parent": parent})
            parent = entry(self.path / "commits" / f"{number:08d}.json")[1]

    def write(self, number: int, record: Any) -> None:
        """One record with its seal, whatever else is wrong with it."""
        body = dump({key: value for key, value in record.items() if key != "sha256"})[:-1]
        seal = hashlib.sha256(body).hexdigest().encode()
        (self.path / "commits" / f"{number:08d}.json").write_bytes(body + b',"sha256":"' + seal + b'"}')


def put(value: Any, keys: Sequence[Any], new: Any) -> None:
    """Sets or, for `...`, deletes what lies at the keys."""
    for key in keys[:-1]:
        value = value[key]
    if new is ...:
        del value[keys[-1]]
    else:
        value[keys[-1]] = new


def forged(good: Path, path: Path, change: Callable[[Forge], object]) -> Path:
    """A copy of a good data set after `change`."""
    change(Forge(Path(shutil.copytree(good, path, symlinks=True))))
    return path


def _columns(path: Path) -> None:
    dataset = epvf_data.open(path)
    for item in dataset.architectures:
        table = dataset.table(item.id)
        table.to_numpy()
        table.groups()
        for name in table.names:
            sum(1 for _ in table.pieces(name))
        _ = table.probe_states


def _loader(path: Path) -> None:
    dataset = epvf_data.open(path)
    for item in dataset.architectures:
        sum(1 for _ in Loader(dataset.table(item.id), batch_size=2, columns=("params", "returns", "source")))


def _open_and_show(path: Path) -> None:
    str(epvf_data.open(path)), epvf_data.open(path).refresh()


WAYS: dict[str, Callable[[Path], object]] = {
    "open": _open_and_show,
    "summary": lambda path: epvf_data.open(path).summary(),
    "columns": _columns,
    "loader": _loader,
    "content_hash": lambda path: content_hash(epvf_data.open(path)),
    "validate": validate,
    "deep": lambda path: validate(path, deep=True),
    "leftovers": leftovers,
}


def read_every_way(path: Path) -> dict[str, Any]:
    """Way → its error's sentence, or what `validate` and `leftovers` found. "crashes" are errors that are not ours."""
    found: dict[str, Any] = {"crashes": []}
    for name, way in WAYS.items():
        try:
            value = way(path)
            found[name] = value if isinstance(value, list) else None
        except EpvfError as error:
            found[name] = f"{type(error).__name__}: {error}"
        except BaseException:
            found["crashes"].append(f"{name}: {traceback.format_exc()}")
    return found


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def main(megabytes: str, seconds: str, good: str) -> None:
    read_every_way(Path(good))
    base = _address_space()
    resource.setrlimit(resource.RLIMIT_AS, (base + (int(megabytes) << 20),) * 2)
    for line in sys.stdin:
        began = time.perf_counter()
        faulthandler.dump_traceback_later(float(seconds), exit=True)
        found = read_every_way(Path(line.rstrip("\n")))
        found["seconds"] = time.perf_counter() - began
        found["megabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
