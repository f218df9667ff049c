"""What it costs to collect several architectures in place of one: one JSON line.

python benchmarks/mixture.py                 # minutes on two cores; writes to a temporary folder here
python benchmarks/mixture.py --policies 512  # a look

The same number of random Ant policies, of 1, 2, 4 and 8 architectures. `first` is a new process with an empty compile
cache, `again` the same collection once more in that process. `over_one` divides by the mean of the architectures alone,
since wide policies cost more than narrow ones.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ARCHITECTURES = {
    "tanh-64-64": {"hidden": [64, 64]},
    "elu-128-layernorm": {"hidden": [128], "activation": "elu", "layer_norm": True},
    "tanh-32-32": {"hidden": [32, 32]},
    "relu-32-32-32-clip": {"hidden": [32, 32, 32], "activation": "relu", "output": "clip"},
    "swish-48-48": {"hidden": [48, 48], "activation": "swish"},
    "tanh-96-no-bias": {"hidden": [96], "bias": False},
    "tanh-64-32-16": {"hidden": [64, 32, 16]},
    "relu-40-40-layernorm": {"hidden": [40, 40], "activation": "relu", "layer_norm": True},
}


def collect(names: list[str], policies: int, horizon: int) -> None:
    """One JSON line: seconds of the first and of a second collection in this process."""
    from epvf_data.recipes.collect import collect_recipe
    from epvf_data.recipes.tables import build
    from epvf_data.runtime import prepare

    prepare()
    recipe = {
        "env": "ant",
        "policies": policies,
        "envs": max(64, policies // 8),  # as many commits however many architectures
        "horizon": horizon,
        "architectures": {name: ARCHITECTURES[name] for name in names},
        "sources": {"random": {"kind": "random"}},
    }
    seconds, steps = [], 0
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        for number in range(2):
            begin = time.perf_counter()
            steps = collect_recipe(build(recipe), Path(folder) / f"{number}.zarr").env_steps
            seconds.append(round(time.perf_counter() - begin, 3))
    print(json.dumps({"first": seconds[0], "again": seconds[1], "env_steps": steps}))


def measure(names: list[str], policies: int, horizon: int) -> dict[str, float]:
    """`collect` in a process of its own with an empty compile cache."""
    with tempfile.TemporaryDirectory() as cache:
        words = [sys.executable, __file__, "--policies", str(policies), "--horizon", str(horizon), "--names", *names]
        environment = {**os.environ, "XDG_CACHE_HOME": cache}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policies", type=int, default=4096)
    parser.add_argument("--horizon", type=int, default=1000)
    parser.add_argument("--names", nargs="+", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.names:
        collect(chosen.names, chosen.policies, chosen.horizon)
        return
    every = list(ARCHITECTURES)
    alone = {name: measure([name], chosen.policies, chosen.horizon) for name in every[:4]}
    found = {"policies": chosen.policies, "horizon": chosen.horizon, "alone": alone, "several": {}}
    for count in (2, 4, 8):
        several = measure(every[:count], chosen.policies, chosen.horizon)
        if count <= 4:
            for key in ("first", "again"):
                one = sum(alone[name][key] for name in every[:count]) / count
                several[f"{key}_over_one"] = round(several[key] / one, 3)
        several["compiling_each"] = round((several["first"] - several["again"]) / count, 3)
        found["several"][count] = several
    print(json.dumps(found))


if __name__ == "__main__":
    main()
