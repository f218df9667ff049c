"""Shards on real engines, with jobs cancelled, requeued and killed at random: is any row missing, double or different?

    python benchmarks/cluster.py slurm     an array of 32 shards; sbatch, scontrol and squeue have to be there
    python benchmarks/cluster.py ray       16 shards on a local Ray, whose workers are killed
    python benchmarks/cluster.py same      eight processes that make the same shard at once
    python benchmarks/cluster.py overhead  16 shards through each of --launchers against the same rows in one call
    python benchmarks/cluster.py finalize  64 data sets of 4,096 rows against copying them

    python benchmarks/cluster.py metadata  as many records and parts as 10⁸ rows have: opened, validated, sampled

Each writes benchmarks/results/cluster-NAME.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

import epvf_data
import epvf_data.store.reader
from epvf_data.collectors.shards import Shard
from epvf_data.store.digest import content_hash
from epvf_data.store.validate import validate
from epvf_data.store.writer import Writer

HERE = Path(__file__).parent
STARTED: list[bool] = []
SMALL = ["--env", "cartpole", "--horizon", "20", "--envs", "32", "--set", "policy.hidden=[8]"]
SMALL += ["--set", "perturbed.bases=random"]


def run(*words: object, code: int | None = 0) -> str:
    """A verb in a process of its own, which has to end with this code (None: any)."""
    command = [sys.executable, "-m", "epvf_data", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert code is None or done.returncode == code, done.stderr
    return done.stdout


def check(out: Path, whole: Path) -> dict:
    """Finalizes what shards made and compares it with one run in one process."""
    before = epvf_data.open(out)
    claims = sorted(tuple(record.provenance["rows"]) for record in before.commits if not record.remove)
    ends = [0, *(end for _, end in claims)]
    report = json.loads(run("finalize", out, "--json", "--quiet"))
    return {
        "rows": report["rows"],
        "commits": len(claims),
        "rows_missing": sum(gap["end"] - gap["first"] for gap in report["missing"]),
        "rows_double": sum(max(0, end - first) for (first, _), end in zip(claims, ends, strict=False)),
        "problems": validate(out, deep=True),
        "hash_equals_one_run": content_hash(epvf_data.open(out)) == content_hash(epvf_data.open(whole)),
    }


def slurm(folder: Path) -> dict:
    """A third of the array is cancelled, requeued or killed at random while it runs; what was ended comes again."""
    rng, words = random.Random(0), [*SMALL, "--policies", "4096", "--quiet"]
    run("collect", *words, "--out", folder / "whole.zarr")
    script = folder / "job.sh"
    script.write_text(run("collect", *words, "--out", folder / "a.zarr", "--print-sbatch", "--shards", "32"))
    submit = ["sbatch", "--parsable", "--cpus-per-task=1", f"--output={folder}/%a.log"]
    subprocess.check_output([*submit, script], text=True)
    doomed = rng.sample(range(32), 11)
    fates = {shard: rng.choice(["cancel", "requeue", "kill", "warning"]) for shard in doomed}
    met: Counter[str] = Counter()
    again: list[int] = []

    def running() -> dict[int, str]:
        told = subprocess.check_output(["squeue", "-h", "-r", "-o", "%K %t %F_%K"], text=True)
        rows = [line.split() for line in told.splitlines()]
        return {int(shard): number for shard, state, number in rows if state == "R"}

    def left() -> bool:
        return bool(subprocess.check_output(["squeue", "-h"], text=True).strip())

    while left():
        for shard, number in running().items():
            if shard in fates and processes(shard):
                time.sleep(rng.uniform(0, 2))
                fate = fates.pop(shard)
                if met_with(fate, number, shard):
                    met[fate] += 1
                    again += [shard] if fate in ("cancel", "kill") else []
        time.sleep(0.5)
    lost = json.loads(run("finalize", folder / "a.zarr", "--json", "--quiet", code=None))["missing"]
    gaps = sum(gap["end"] - gap["first"] for gap in lost)
    if again:
        subprocess.check_output([*submit, f"--array={','.join(map(str, again))}", script], text=True)
    while left():
        time.sleep(0.5)
    found = check(folder / "a.zarr", folder / "whole.zarr")
    return {"shards": 32, "met": dict(met), "rows_missing_before_the_rest": gaps, **found}


def processes(shard: int) -> list[int]:
    """Those that make a shard."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if f"{shard}/32".encode() in words and b"epvf_data" in words:
                found.append(int(entry.name))
    return found


def met_with(fate: str, number: str, shard: int) -> bool:
    if fate == "kill":
        for process in processes(shard):
            os.kill(process, signal.SIGKILL)
        return True
    command = {
        "cancel": ["scancel", number],
        "requeue": ["scontrol", "requeue", number],
        "warning": ["scancel", "--batch", "--signal=USR1", number],
    }[fate]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def ray(folder: Path) -> dict:
    """Two workers, of which one is killed every few seconds; Ray calls their shards again."""
    import ray as engine

    from epvf_data.launch.executors import RayExecutor

    small = {"policy.hidden": [8], "perturbed.bases": ["random"]}
    config = epvf_data.collect_config("cartpole", horizon=20, envs=32, policies=4096, **small)
    run("collect", *SMALL, "--policies", "4096", "--quiet", "--out", folder / "whole.zarr")
    engine.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
    rng, kills = random.Random(0), 0

    def look(rows: int, wanted: int, done: int) -> None:
        nonlocal kills
        titles = {one: _title(one) for one in Path("/proc").iterdir() if one.name.isdigit()}
        busy = re.compile(r"ray::(?!IDLE|\w*Agent)")  # the function that is called
        workers = [one for one, title in titles.items() if busy.match(title)]
        if workers and kills < 6 and rng.random() < 0.3:
            os.kill(int(rng.choice(workers).name), signal.SIGKILL)
            kills += 1

    report = epvf_data.fan_out(config, folder / "a.zarr", RayExecutor(), shards=16, progress=look)
    engine.shutdown()
    found = check(folder / "a.zarr", folder / "whole.zarr")
    return {"shards": 16, "kills": kills, "rows_reported": report.rows, **found}


def _title(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def same(folder: Path) -> dict:
    """Eight that make shard 1 of 2 at once, then one that makes the other."""
    words = [*SMALL, "--policies", "2048", "--quiet", "--json"]
    run("collect", *words, "--out", folder / "whole.zarr")
    command = [sys.executable, "-m", "epvf_data", "collect", *words, "--out", str(folder / "a.zarr")]
    running = [subprocess.Popen([*command, "--shard", "1/2"], stdout=subprocess.PIPE, text=True) for _ in range(8)]
    made = [json.loads(process.communicate()[0])["rows"] for process in running]
    assert not any(process.returncode for process in running)
    run("collect", *words, "--out", folder / "a.zarr", "--shard", "0/2")
    return {"processes": 8, "rows_made_by_each": made, **check(folder / "a.zarr", folder / "whole.zarr")}


def overhead(folder: Path, names: list[str]) -> dict:
    """CPU seconds of the same rows, in one call and as 16 shards, through each launcher; start-up apart.

    Each process makes some other rows first. A thread is the way without a launcher; `slurm` takes a job a shard and
    `ray` a process a shard, hence once.
    """
    from epvf_data.launch.calls import run_calls
    from epvf_data.launch.executors import opened, parse

    settings = {"policy.hidden": [16], "perturbed.bases": ["random"]}
    config = epvf_data.collect_config("hopper", horizon=100, envs=128, policies=2048, **settings)
    took: dict[str, dict[str, list[float]]] = {name: {"one": [], "shards": []} for name in names}
    for name in names:
        place = ThreadPoolExecutor(1) if name == "thread" else opened(parse(name), folder / "jobs")
        with place as executor:
            for number in range(3 if name in ("thread", "local:1") else 1):
                for what, shards in (("one", 1), ("shards", 16)):
                    out = str(folder / f"{name}-{what}-{number}.zarr")
                    calls = [(_shard_seconds, config, out, Shard(index, shards)) for index in range(shards)]
                    took[name][what].append(round(sum(run_calls(calls, executor)), 2))
                    assert epvf_data.open(out).rows == 2048
    ratios = {name: round(float(np.median(each["shards"]) / np.median(each["one"])), 3) for name, each in took.items()}
    return {"rows": 2048, "shards": 16, "cpu_seconds": took, "ratio_of_medians": ratios, "load": os.getloadavg()[0]}


def _shard_seconds(config: epvf_data.CollectConfig, out: str, shard: Shard) -> float:
    """CPU seconds of a shard in this process, once it has made some other rows."""
    if not STARTED:
        with tempfile.TemporaryDirectory() as elsewhere:
            epvf_data.collect(replace(config, policies=128, seed=1), Path(elsewhere) / "warm-up.zarr")
        STARTED.append(True)
    began = time.process_time()
    epvf_data.collect(config, out, shard=shard)
    return time.process_time() - began


def finalize(folder: Path) -> dict:
    """64 data sets of the README's policies; what their rows are does not matter: all have the same, in one place.

    Copying reads them from memory, as it would not if they were apart: that is in its favour.
    """
    words = ["--env", "ant", "--horizon", "3", "--policies", "4096", "--quiet"]
    run("collect", *words, "--out", folder / "one.zarr")
    one, shards = epvf_data.open(folder / "one.zarr"), []
    for number in range(64):
        with Writer.open(folder / f"{number}.zarr", one.env) as writer:
            made = {"run": "r", "rows": [4096 * number, 4096 * (number + 1)], "rows_wanted": 64 * 4096}
            writer.commit(one.parts, made, link=True)
        shards.append(writer.path)
    size = sum(file.stat().st_size for path in shards for file in path.rglob("*") if file.is_file())
    subprocess.run(["sync"], check=True)
    began = time.perf_counter()
    report = epvf_data.finalize(folder / "out.zarr", shards)
    linked = time.perf_counter() - began
    began = time.perf_counter()
    for path in shards:
        shutil.copytree(path, folder / "copies" / path.name)
    subprocess.run(["sync"], check=True)
    copied = time.perf_counter() - began
    return {
        "data_sets": 64,
        "rows": report.rows,
        "bytes": size,
        "bytes_copied": report.bytes_copied,
        "finalize_seconds": round(linked, 2),
        "copy_seconds": round(copied, 2),
        "share": round(linked / copied, 3),
    }


def metadata(folder: Path) -> dict:
    """As many records and parts as 10⁸ rows have in commits of 8,192, with one row each: what every process reads."""
    run("collect", *SMALL, "--policies", "1", "--quiet", "--out", folder / "one.zarr")
    one = epvf_data.open(folder / "one.zarr")
    commits, path = 10**8 // 8192 + 1, folder / "many.zarr"
    provenance = dict(one.commits[0].provenance)
    began = time.perf_counter()
    with Writer.open(path, one.env) as writer:
        for first in range(0, commits, 64):
            numbers = range(first, min(first + 64, commits))
            made = [{**provenance, "rows": [number, number + 1], "rows_wanted": commits} for number in numbers]
            writer.commit_all([(one.parts, each) for each in made], link=True)
    built = time.perf_counter() - began
    looks = """
import resource, sys, time
import numpy as np, epvf_data
from epvf_data.store.validate import validate
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
def timed(name, call):
    began = time.perf_counter(); value = call(); found[name] = round(time.perf_counter() - began, 2); return value
found = {"megabytes_before": round(peak())}
dataset = timed("open_seconds", lambda: epvf_data.open(sys.argv[1]))
found["megabytes_open"] = round(peak())
table = timed("index_seconds", lambda: dataset.table())
timed("returns_seconds", lambda: table.column("returns"))
batches = dataset.iter_batches(256, seed=1)
timed("first_batch_seconds", lambda: next(batches))
timed("forty_batches_seconds", lambda: [next(batches, None) for _ in range(40)])
timed("refresh_seconds", lambda: dataset.refresh())
found["problems"] = len(timed("validate_seconds", lambda: validate(sys.argv[1])))
found["megabytes_end"] = round(peak())
import json; print(json.dumps(found))
"""
    told = subprocess.check_output([sys.executable, "-c", looks, path], text=True)
    records = sum(file.stat().st_size for file in (path / "commits").iterdir())
    files = sum(len(part.entry.files) for part in one.parts)
    return {
        "commits": commits,
        "files_a_part": files,
        "files": commits * (files + 1),
        "record_bytes": records,
        "build_seconds": round(built, 1),
        "last_commit_seconds": round(_commit_once(path, one, provenance, commits), 3),
        **json.loads(told),
    }


def _commit_once(path: Path, one: epvf_data.store.reader.Dataset, provenance: dict, number: int) -> float:
    """Seconds that one more process takes to open the data set and add a commit."""
    began = time.perf_counter()
    with Writer.open(path, one.env) as writer:
        writer.commit(one.parts[0], {**provenance, "rows": [number, number + 1]}, link=True)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["slurm", "ray", "same", "overhead", "finalize", "metadata"])
    parser.add_argument("--launchers", nargs="+", default=["thread", "local:1"], help="of overhead: slurm and ray, too")
    parser.add_argument("--folder", type=Path, help="where the data sets lie while it runs")
    parser.add_argument("--out", help="another file than that in results/; - for none")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        began = time.perf_counter()
        more = [asked.launchers] if asked.what == "overhead" else []
        found = globals()[asked.what](Path(name), *more)
        found["seconds"] = round(time.perf_counter() - began, 1)
    text = json.dumps(found, indent=1) + "\n"
    if asked.out != "-":
        Path(asked.out or HERE / "results" / f"cluster-{asked.what}.json").write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
