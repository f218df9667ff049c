"""What online training costs beside its rollouts: prints one JSON line.

python benchmarks/online.py shares --config ant-paper --iterations 3     # where the time of an iteration goes
python benchmarks/online.py record --config ant-cpu --iterations 8       # with and without --record
python benchmarks/online.py seeds                                        # ten CartPole runs in one jit, or one by one
python benchmarks/online.py memory                                       # resident memory over 1,000 iterations
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from epvf_data.runtime import prepare
from epvf_data.trainers.online.loop import make_loop
from epvf_data.trainers.online.run import resolve, train_online
from epvf_data.trainers.online.settings import OnlineConfig, online_config


def iterate(config: OnlineConfig, chunks: int) -> list[dict[str, float]]:
    """Seconds of each chunk by part, the first (which compiles) left out; control steps as `steps`."""
    loop = make_loop(config, *resolve(config))
    state, found = loop.init(), []
    for _ in range(chunks + 1):
        began = time.perf_counter()
        chunk = loop.advance(state, np.ones(config.seeds, bool), False)
        state = chunk.state
        whole = {"whole": time.perf_counter() - began, "steps": float(chunk.steps.sum())}
        found.append({**chunk.seconds, **whole})
    return found[1:]


def shares(preset: str, iterations: int, changes: dict[str, Any]) -> dict:
    """Medians over iterations; on XLA everything is one function and has no parts."""
    found = iterate(online_config(preset, log_every=1, **changes), iterations)
    medians = {name: statistics.median(item[name] for item in found) for name in found[0]}
    outside = 1 - medians.get("rollout", medians["whole"]) / medians["whole"]
    return {
        "config": preset,
        "iterations": iterations,
        "seconds": {name: round(value, 3) for name, value in medians.items() if name != "steps"},
        "env_steps_per_second": round(medians["steps"] / medians["whole"]),
        "share_outside_rollouts": round(outside, 4),
    }


def record(preset: str, iterations: int, changes: dict[str, Any]) -> dict:
    """Seconds of the same run without and with a recorded data set, in turn."""
    config = online_config(preset, iterations=iterations, env_steps=None, **changes)
    times: dict[str, list[float]] = {"plain": [], "record": []}
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        train_online(config, Path(folder) / "warm")  # compiles
        for repeat in range(3):
            for name, seconds in times.items():
                data = Path(folder) / f"{repeat}.zarr" if name == "record" else None
                began = time.perf_counter()
                report = train_online(config, Path(folder) / f"{name}{repeat}", record=data)
                seconds.append(time.perf_counter() - began)
    ratios = [with_ / without - 1 for without, with_ in zip(times["plain"], times["record"], strict=True)]
    return {
        "config": preset,
        "iterations": iterations,
        "rows": config.envs * iterations,
        "env_steps": report.env_steps,
        "seconds": {name: [round(value, 2) for value in values] for name, values in times.items()},
        "cost": round(statistics.median(ratios), 3),
    }


def seeds(iterations: int) -> dict:
    """Seconds of ten CartPole runs of 16 environments: one after another, and side by side in one jit."""
    changes = {"log_every": 10, "iterations": iterations + 10}  # ten more, which compile and do not count
    chunks = iterations // 10
    began = time.perf_counter()
    first = iterate(online_config("cartpole-paper", **changes), chunks)
    one_with_start = time.perf_counter() - began
    began = time.perf_counter()
    together = iterate(online_config("cartpole-paper", seeds=10, **changes), chunks)
    ten_with_start = time.perf_counter() - began
    one, ten = (statistics.median(item["whole"] for item in found) / 10 for found in (first, together))
    return {
        "iterations": iterations,
        "milliseconds_an_iteration": {"one": round(1e3 * one, 2), "ten": round(1e3 * ten, 2)},
        "ten_after_another_over_together": round(10 * one / ten, 2),
        "with_compiling": round(10 * one_with_start / ten_with_start, 2),
    }


def resident() -> float:
    """Resident memory in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def memory(iterations: int) -> dict:
    """Resident memory over a run on each backend, after a tenth of it and at its end."""
    result = {}
    for preset, changes in {
        "ant-cpu": {"envs": 64, "horizon": 10, "env_steps": None, "log_every": 1},
        "cartpole-paper": {"horizon": 20, "log_every": 10},
    }.items():
        config = online_config(preset, iterations=iterations, **changes)
        seen: list[float] = []
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
            watch = lambda event, seen=seen: seen.append(resident())  # noqa: E731
            train_online(config, Path(folder) / "run", progress=watch)
        result[preset] = {"megabytes": [round(seen[len(seen) // 10]), round(seen[len(seen) // 2]), round(seen[-1])]}
        result[preset]["growth"] = round(seen[-1] / seen[len(seen) // 10] - 1, 4)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("shares", "record", "seeds", "memory"))
    parser.add_argument("--config", default="ant-paper")
    parser.add_argument("--iterations", type=int)
    parser.add_argument("--envs", type=int)
    parser.add_argument("--backend")
    args = parser.parse_args()
    prepare()
    changes = {name: value for name in ("envs", "backend") if (value := getattr(args, name)) is not None}
    result = {
        "shares": lambda: shares(args.config, args.iterations or 3, changes),
        "record": lambda: record(args.config, args.iterations or 8, changes),
        "seeds": lambda: seeds(args.iterations or 100),
        "memory": lambda: memory(args.iterations or 1000),
    }[args.what]()
    print(json.dumps({"benchmark": f"online-{args.what}", **result, "device": str(jax.devices()[0].device_kind)}))


if __name__ == "__main__":
    main()
