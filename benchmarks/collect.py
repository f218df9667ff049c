"""What `collect` adds to the rollout, what memory it takes, and how soon it starts: prints one JSON line.

python benchmarks/collect.py --policies 4096 --horizon 250          # collect against the rollout alone
python benchmarks/collect.py --memory                               # peak memory at 8,192 and 32,768 policies
python benchmarks/collect.py --start-up                             # first and second call with an empty cache
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMAND = [sys.executable, "-m", "epvf_data", "collect", "--env", "ant", "--json", "--quiet"]


def against_rollout(policies: int, horizon: int, repeats: int) -> dict:
    """Seconds of `collect` (draw, probe, roll out, store, fsync) and of the rollout of the same policies alone."""
    import numpy as np

    from epvf_data.collectors.collect import collect, make_rows
    from epvf_data.collectors.lot import lot_of
    from epvf_data.collectors.setting import configure
    from epvf_data.rollout import rollout
    from epvf_data.runtime import prepare

    prepare()
    config = configure(None, [], {"env": "ant", "envs": policies, "horizon": horizon})
    lot = lot_of(config)
    rows = make_rows(lot, np.arange(policies))
    times: dict[str, list[float]] = {"rollout": [], "collect": []}
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        for repeat in range(repeats):
            begin = time.perf_counter()
            rollout(lot.env, lot.spec, rows.params, reset_seed=rows.reset_seed, backend=lot.backend)
            times["rollout"].append(time.perf_counter() - begin)
            begin = time.perf_counter()
            report = collect(config, Path(folder) / f"{repeat}.zarr")
            times["collect"].append(time.perf_counter() - begin)
    ratios = [r / c for r, c in zip(times["rollout"], times["collect"], strict=True)]
    return {
        "policies": policies,
        "horizon": horizon,
        "env_steps": report.env_steps,
        "rollout_seconds": round(statistics.median(times["rollout"]), 3),
        "collect_seconds": round(statistics.median(times["collect"]), 3),
        "rollout_over_collect": round(statistics.median(ratios), 3),
    }


def run(folder: str, *words: str, cache: str | None = None) -> tuple[dict, float]:
    """The JSON report of a `collect` in its own process, and its peak memory in MB."""
    environment = {**os.environ, **({"XDG_CACHE_HOME": cache} if cache else {})}
    process = subprocess.Popen([*COMMAND, *words], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    output = process.stdout.read() if process.stdout else ""
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, f"collect failed: {output}"
    return json.loads(output.splitlines()[-1]), usage.ru_maxrss / 1024


def memory(horizon: int) -> dict:
    """Peak resident memory of `collect` at two numbers of policies; the batch of 4,096 stays."""
    peaks = {}
    for policies in (8192, 32768):
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
            _, peak = run(folder, "--policies", str(policies), "--horizon", str(horizon))
        peaks[policies] = round(peak)
    return {"peak_megabytes": peaks, "growth": round(peaks[32768] / peaks[8192] - 1, 3)}


def start_up(backend: str) -> dict:
    """Seconds until the first episode, with an empty compile cache and with the one that the first call left."""
    seconds = []
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        for number in range(3):
            words = ("--envs", "64", "--horizon", "20", "--backend", backend, "--out", f"{number}.zarr")
            report, _ = run(folder, *words, cache=f"{folder}/cache")
            seconds.append(report["start_up_seconds"])
    return {
        "backend": backend,
        "start_up_seconds": seconds,
        "second_over_first": round(min(seconds[1:]) / seconds[0], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policies", type=int, default=4096)
    parser.add_argument("--horizon", type=int, default=250)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--start-up", action="store_true")
    parser.add_argument("--backend", default="mjx", help="for --start-up")
    args = parser.parse_args()
    if args.memory:
        result = {"benchmark": "collect-memory", **memory(args.horizon)}
    elif args.start_up:
        result = {"benchmark": "collect-start-up", **start_up(args.backend)}
    else:
        result = {"benchmark": "collect", **against_rollout(args.policies, args.horizon, args.repeats)}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
