"""Choose policies of all levels from the snapshots of online runs: bases for `epvf-data collect --base`.

    epvf-data train-online --config ant-pavf --seed 0 --out runs/seed-0     # and with other seeds
    python examples/make_bases.py runs/seed-* --out bases --each 8

Each snapshot's return is the mean over tiny disturbances, N(0, 0.0025²), since an exact return hangs on rounding. Of
each run those are taken that lie nearest to `--each` returns spread evenly from its worst snapshot to its best.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from epvf_data import envs, load_policy
from epvf_data.policies.files import save_policy
from epvf_data.rollout import rollout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run directories of train-online")
    parser.add_argument("--out", type=Path, default=Path("bases"))
    parser.add_argument("--each", type=int, default=8, help="policies of each run")
    parser.add_argument("--disturbances", type=int, default=16)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    found = []
    for number, run in enumerate(args.runs):
        env = envs.make(json.loads((run / "config.json").read_text())["config"]["env"])
        files = sorted({*run.glob("policies/at-*.safetensors"), *run.glob("policies/best-[0-9]*.safetensors")})
        levels = np.array([mean_return(env, *load_policy(str(file)), args.disturbances) for file in files])
        for wanted in np.linspace(levels.min(), levels.max(), args.each):
            nearest = np.abs(levels - wanted).argmin()
            found.append((levels[nearest], f"run-{number}-{files[nearest].stem.rpartition('-')[0]}", files[nearest]))
            levels[nearest] = np.inf  # each once
    for rank, (level, name, file) in enumerate(sorted(found)):
        spec, params = load_policy(str(file))
        save_policy(args.out / f"{rank:02d}-{name}.safetensors", spec, params)
        print(f"{rank:02d}  {level:6.1f}  {file}")


def mean_return(env, spec, params, count) -> float:
    noise = 0.0025 * np.random.default_rng(0).standard_normal((count, spec.size))
    return float(rollout(env, spec, (params + noise).astype(np.float32)).returns.mean())


if __name__ == "__main__":
    main()
