"""Fuzzes what reads a stranger's run directory: JSON, lines of metrics, and the checkpoints that tensorstore unpacks.

Valid files of a small run are changed by a seeded random generator: members and bytes of JSON, bytes of tables of the
checkpoints' database under checksums that fit, descriptions and chunks of arrays. Only our own errors may come out,
within a second and 300 MB. A process does so many executions and another one follows; one that dies is a finding too.
Prints one JSON line and adds it to results/fuzz.json, where `files` counts the executions of each file.

    python benchmarks/fuzz_runs.py --seconds 300 --seed 1
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
from fuzz import mutate_bytes, mutate_json, record

from epvf_data import orbax_files
from epvf_data.baselines.settings import BaselineConfig
from epvf_data.config import to_dict
from epvf_data.errors import EpvfError
from epvf_data.policies.spec import PolicySpec
from epvf_data.reproduction import runs
from epvf_data.reproduction.reproduce import _stored_plan
from epvf_data.store.checksum import crc32c
from epvf_data.store.lineage import Lineage
from epvf_data.store.schema import EnvIdentity, Rows
from epvf_data.store.writer import Writer
from epvf_data.trainers import checkpoint, rundir
from epvf_data.trainers.curves.read import read_curves
from epvf_data.trainers.evaluation.compare import compare
from epvf_data.trainers.evaluation.evaluate import evaluate
from epvf_data.trainers.offline import run as offline
from epvf_data.trainers.offline.fitted import restore_progress, set_up
from epvf_data.trainers.offline.ground import restore_ground
from epvf_data.trainers.offline.inputs import stored_run
from epvf_data.trainers.offline.settings import OfflineConfig
from epvf_data.trainers.online import run as online
from epvf_data.trainers.online.settings import OnlineConfig

CHILD = "--child"
ROUND = 2000  # executions of one process
SLOW, LARGE = 1.0, 300  # seconds of the processor, MB
CONFIG = OfflineConfig(critic="mlp", split="iid", epochs=1, seeds=2, widths=(4,), resamples=5)
SPEC, ENV = PolicySpec(3, 2, (4,)), EnvIdentity("fuzz", "1", "f" * 64, 3, 2, 10, 0.05, 5, {})
ONLINE = {"env_digest": "x", "backend": "native", "run": "x", "record": None, "warm_start": None}
PLAN = {"figure": "fig1", "scale": "cpu", "command": "x", "commands": ["x"], "left_out": {"a": "b"}, "date": "x"}
PLAN |= {"versions": {"jax": "1", "brax": None}, "hardware": {"processor": "x", "cores": 2, "device": "x"}}
LINE = {"seed": 0, "iteration": 1, "env_steps": 5, "return_perturbed": 0.5, "return_unperturbed": None, "seconds": 1.0}


def build(folder: Path) -> None:
    """A data set, a run on it, a run of online training in name, a plan, and checkpoints without a database."""
    rng, n = np.random.default_rng(0), 40
    rows = Rows(
        spec=SPEC,
        params=rng.standard_normal((n, SPEC.size), dtype=np.float32),
        returns=rng.standard_normal((n, 1), dtype=np.float32),
        lengths=np.full((n, 1), 10, np.int32),
        terminated=np.zeros((n, 1), bool),
        truncated=np.ones((n, 1), bool),
        finite=np.ones((n, 1), bool),
        reset_seed=np.zeros((n, 2), np.uint32),
        lineage=Lineage.build(n, source="random"),
        simulation={"backend": "none"},
    )
    with Writer.open(folder / "rows.zarr", ENV) as writer:
        writer.commit(rows, {})
    offline.train_offline(folder / "rows.zarr", CONFIG, folder / "run")
    evaluate(folder / "run", rollouts=False)
    settings = {"online": OnlineConfig(iterations=3), "baseline": BaselineConfig()}
    for name, config in settings.items():
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps({"config": to_dict(config), **ONLINE}))
        (folder / name / "metrics.jsonl").write_text(
            "".join(json.dumps(LINE | {"iteration": i}) + "\n" for i in range(9))
        )
    (folder / "plan.json").write_text(json.dumps(PLAN))
    ground = folder / "run" / "checkpoints" / "iid" / "ground"
    import orbax.checkpoint as ocp

    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=False)) as checkpointer:
        checkpointer.save(folder / "plain" / "0", args=ocp.args.PyTreeSave(checkpoint.restore(ground)))


class Target:
    """A file, how it is changed, and what reads it."""

    def __init__(self, path: Path, change: Callable[[bytes, random.Random], bytes], read: Callable[[], object]):
        self.path, self.change, self.read, self.good = path, change, read, path.read_bytes()


def document(data: bytes, rng: random.Random) -> bytes:
    """JSON with its members or its bytes changed."""
    return json.dumps(mutate_json(json.loads(data), rng)).encode() if rng.random() < 0.7 else mutate_bytes(data, rng)


def table(data: bytes, rng: random.Random) -> bytes:
    """A table of the database with bytes of its body changed, and a length and a checksum that fit."""
    body = mutate_bytes(numcodecs.Zstd().decode(data[14:-4]), rng)
    body = numcodecs.Zstd(1).encode(body) if rng.random() < 0.8 else mutate_bytes(data[14:-4], rng)
    raw = data[:4] + struct.pack("<Q", 14 + len(body) + 4) + data[12:14] + body
    return raw + struct.pack("<I", crc32c(np.frombuffer(raw, np.uint8)))


def targets(folder: Path) -> list[Target]:
    run, online_run, base = folder / "run", folder / "online", folder / "run" / "checkpoints" / "iid"
    source = offline.load_run(run).source
    setup = set_up(source, restore_ground(base / "ground", source), CONFIG)
    ground = lambda: restore_ground(base / "ground", source)  # noqa: E731
    final = lambda: restore_progress(base / "final", setup, CONFIG, ("best", "best_epoch", "epoch", "seconds"))  # noqa: E731
    plain = lambda: restore_ground(folder / "plain", source)  # noqa: E731
    both = lambda: (stored_run(run), compare([run]))  # noqa: E731
    found = [Target(run / name, document, both) for name in ("config.json", "report.json", "evaluation.json")]
    found.append(Target(online_run / "config.json", document, lambda: online.read_config(online_run)))
    found.append(
        Target(
            folder / "baseline" / "config.json",
            document,
            lambda: runs.stored_config(folder / "baseline", BaselineConfig),
        )
    )
    found.append(
        Target(
            online_run / "metrics.jsonl",
            mutate_bytes,
            lambda: (read_curves(online_run), *rundir.read_lines(online_run)),
        )
    )
    found.append(Target(folder / "plan.json", document, lambda: _stored_plan(folder, "fig1", "cpu")))
    for place, read in (
        (base / "ground" / "0", ground),
        (base / "final" / "1", final),
        (folder / "plain" / "0", plain),
    ):
        found.append(Target(place / orbax_files.TREE, document, read))
        for path in sorted(place.rglob("*")):
            if path.is_file() and path.read_bytes()[:2] == b"\x0c\xdb":
                found.append(Target(path, table, read))
            elif path.name == ".zarray":
                found.append(Target(path, document, read))
            elif path.is_file() and "plain" in path.parts and path.name != orbax_files.TREE:
                found.append(Target(path, mutate_bytes, read))
    return found


def child(folder: Path, seed: int, first: int, end: float) -> None:
    """Executions number `first` and on; says the number of each before it begins."""
    every = targets(folder)
    for number in range(first, first + ROUND):
        if time.time() > end:
            break
        rng = random.Random(f"{seed}/{number}")
        target = rng.choice(every)
        data = target.change(target.good, rng)
        print(json.dumps({"number": number, "file": str(target.path.relative_to(folder))}), flush=True)
        target.path.write_bytes(data)
        if finding := watch(target.read):
            print(json.dumps({"finding": finding, "data": repr(data[:2000])}), flush=True)
        target.path.write_bytes(target.good)


def watch(work: Callable[[], object]) -> str | None:
    """What is wrong with how it ends."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    before, began = resident("VmRSS"), time.process_time()
    try:
        work()
    except EpvfError as error:
        if not str(error).isprintable() or len(str(error)) > 1000:
            return f"no sentence: {str(error)[:200]!r}"
    except BaseException:
        return traceback.format_exc()[-1500:]
    if time.process_time() - began > SLOW:
        return f"slow: {time.process_time() - began:.1f} s"
    more = (resident("VmHWM") - before) // 1024
    return f"large: {more} MB" if more > LARGE else None


def resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def fuzz(folder: Path, seconds: float, seed: int) -> dict[str, Any]:
    end, number = time.time() + seconds, 0
    report: dict[str, Any] = {"seed": seed, "seconds": seconds, "executions": 0, "findings": {}, "files": {}}
    while time.time() < end:
        fresh = folder / "fresh"
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(folder / "good", fresh)
        command = [sys.executable, __file__, CHILD, str(fresh), str(seed), str(number), str(end)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        last: dict[str, Any] = {"number": number - 1, "file": "none"}
        for line in map(json.loads, done.stdout.splitlines()):
            if "finding" in line:
                report["findings"].setdefault(
                    f"{last['file']}: {line['finding'][-300:]}", [last["number"], line["data"]]
                )
            else:
                last, report["executions"] = line, report["executions"] + 1
                report["files"][line["file"]] = report["files"].get(line["file"], 0) + 1
        if done.returncode:
            report["findings"][f"{last['file']}: died with {done.returncode}"] = [last["number"], done.stderr[-1000:]]
        number = last["number"] + 1
    return report


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "fuzz.json")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        (Path(folder) / "good").mkdir()
        build(Path(folder) / "good")
        report = fuzz(Path(folder), options.seconds, options.seed)
    record(options.out, "runs", report)
    print(json.dumps({key: report[key] for key in ("executions", "findings")}))
    sys.exit(bool(report["findings"]))


if __name__ == "__main__":
    if CHILD in sys.argv:
        _, _, path, seed, first, end = sys.argv
        child(Path(path), int(seed), int(first), float(end))
    else:
        main(sys.argv[1:])
