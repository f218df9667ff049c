"""The speed of push and pull beside other programs on the same files, and the memory of a large pull: one JSON line.

python benchmarks/sharing_speed.py --megabytes 1000 --turns 5 --gigabytes 10 --out benchmarks/results/sharing-speed.json

Needs the extra s3, nginx, curl and SeaweedFS. In turns, so that what else the machine does meets both: pull from nginx
beside `curl` (eight files at once) with `sha256sum` of all files after it, without and with a `sync` of each file, as
pull does; push to SeaweedFS's S3 beside `weed filer.copy`, its own client, which goes past S3, and beside rclone where
it is installed. Every process is counted from its start. The ratio is the other's seconds divided by ours, its median
and range over the turns. Memory is the most that the pull of a data set of so many gigabytes had resident, at its own
account (VmHWM); its parts share a few files on the disk.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parents[1] / "tests")  # in the place of this folder, which has a store.py
from sharing import programs, servers  # noqa: E402

CALL = """import sys
from epvf_data import pull, push
globals()[sys.argv[1]](*sys.argv[2:])
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
DISTINCT = 12  # parts of a data set that differ


def make(path: Path, megabytes: int) -> None:
    """A data set of parts of 8 MB; those that are equal to an earlier one share its files by hard links."""
    from store import conftest as helpers

    from epvf_data.policies.spec import PolicySpec
    from epvf_data.store.writer import Writer

    spec, first, there = PolicySpec(4, 2, (300,)), {}, set()
    with Writer.open(path, helpers.ENV) as writer:
        for number in range(max(2, megabytes // 8)):
            rows = helpers.build_rows(8_000_000 // (4 * spec.size), number % DISTINCT, spec=spec)
            writer.commit(rows, {"number": number})
            (folder,) = {one for one in (path / "parts").iterdir() if one.is_dir()} - there
            there.add(folder)
            for file in (one for one in folder.rglob("0") if one.is_file()):
                known = first.setdefault((number % DISTINCT, str(file.relative_to(folder))), file)
                if known != file and known.read_bytes() == file.read_bytes():
                    file.unlink()
                    file.hardlink_to(known)


def timed(words: list[str] | str, folder: Path) -> tuple[float, str]:
    """The seconds of a command, and what it printed."""
    began = time.perf_counter()
    done = subprocess.run(words, shell=isinstance(words, str), cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return time.perf_counter() - began, done.stdout


def ours(verb: str, *words: object) -> list[str]:
    return [sys.executable, "-c", CALL, verb, *map(str, words)]


def compare(turns: int, one: Callable[[int], float], others: dict[str, Callable[[int], float]]) -> dict[str, Any]:
    """Seconds of each in turns, and the ratios."""
    seconds: dict[str, list[float]] = {"ours": [], **{name: [] for name in others}}
    for turn in range(turns):
        order = list({"ours": one, **others}.items())
        for name, work in order if turn % 2 else reversed(order):
            seconds[name].append(round(work(turn), 2))
    found: dict[str, Any] = {"seconds": seconds}
    for name in others:
        ratios = [other / mine for other, mine in zip(seconds[name], seconds["ours"], strict=True)]
        found[f"ratio_to_{name}"] = [round(value, 2) for value in (statistics.median(ratios), min(ratios), max(ratios))]
    print(json.dumps(found), file=sys.stderr, flush=True)
    return found


def pulls(path: Path, folder: Path, url: str, turns: int) -> dict[str, Any]:
    names = [str(file.relative_to(path)) for file in path.rglob("*") if file.is_file() and "staging" not in file.parts]
    (folder / "urls").write_text("".join(f'url = "{url}/{name}"\noutput = "curl/{name}"\n' for name in names))
    curl = "curl -sf --create-dirs -Z --parallel-max 8 -K urls && find curl -type f -print0 | xargs -0 sha256sum > sums"

    def run(words: list[str] | str, made: str) -> float:
        took, _ = timed(words, folder)
        shutil.rmtree(folder / made)
        return took

    return compare(
        turns,
        lambda turn: run(ours("pull", url, "ours.zarr"), "ours.zarr"),
        {
            "curl_sha256sum": lambda turn: run(curl, "curl"),
            "curl_sha256sum_sync": lambda turn: run(f"{curl} && find curl -type f -print0 | xargs -0 sync", "curl"),
        },
    )


def pushes(path: Path, folder: Path, turns: int) -> dict[str, Any]:
    with programs.seaweed(folder) as ports:
        os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{ports['s3.port']}"
        filer = f"http://127.0.0.1:{ports['filer.port']}/buckets/labs"
        copy = [str(programs.weed()), f"-logdir={folder}", "filer.copy", str(path)]
        others = {"weed_filer_copy": lambda turn: timed([*copy, f"{filer}/copy-{turn}/"], folder)[0]}
        if shutil.which("rclone"):
            remote = f":s3,provider=Other,env_auth=true,endpoint='http://127.0.0.1:{ports['s3.port']}':labs"
            words = ["rclone", "copy", "--config=", "--transfers=8", str(path)]
            # The Debian package's transport cannot take a bundle of certificates, and needs none here.
            clean = ["env", "-u", "AWS_CA_BUNDLE", *words]
            others["rclone"] = lambda turn: timed([*clean, f"{remote}/rclone-{turn}"], folder)[0]
        return compare(turns, lambda turn: timed(ours("push", path, f"s3://labs/ours-{turn}.zarr"), folder)[0], others)


def large(folder: Path, gigabytes: int) -> dict[str, Any]:
    """The memory of one pull."""
    (folder / "web").mkdir()
    make(folder / "web" / "large.zarr", 1000 * gigabytes)
    with programs.nginx(folder / "web", folder) as port:
        took, told = timed(ours("pull", f"http://127.0.0.1:{port}/large.zarr", "copy.zarr"), folder)
    size = sum(file.stat().st_size for file in (folder / "copy.zarr").rglob("*") if file.is_file())
    return {"gigabytes": round(size / 1e9, 2), "seconds": round(took, 1), "memory_mb": round(int(told) / 1024)}


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("megabytes", 200), ("turns", 3), ("gigabytes", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    os.environ.update(servers.KEYS, AWS_ALLOW_HTTP="true")
    found: dict[str, Any] = {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[1], 1),
    }
    found |= {"megabytes": args.megabytes}
    with tempfile.TemporaryDirectory(prefix="sharing-speed-") as name:
        root = Path(name)
        for part in ("web", "pull", "nginx", "push", "large"):
            (root / part).mkdir()
        path = root / "web" / "data.zarr"
        make(path, args.megabytes)
        with programs.nginx(root / "web", root / "nginx") as port:
            found["pull"] = pulls(path, root / "pull", f"http://127.0.0.1:{port}/data.zarr", args.turns)
        found["push"] = pushes(path, root / "push", args.turns)
        shutil.rmtree(root / "push")
        if args.gigabytes:
            found["large"] = large(root / "large", args.gigabytes)
    text = json.dumps(found)
    print(text)
    if args.out is not None:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
