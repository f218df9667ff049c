"""The policy that an online run hands out."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from epvf_data.errors import RunError
from epvf_data.trainers.curves.history import read_run
from epvf_data.trainers.curves.summary import MEASURES


def best_policy(run: str | Path) -> Path:
    """The file of the best unperturbed policy: of the seed whose θ had the highest return at a log entry.

    `render`, `score`, `collect --base` and `load_policy` take it. PPO and SAC keep their last one. Raises RunError
    where there is no online run, or no policy yet.
    """
    found = read_run(run, empty=True)
    folder, best = found.directory / "policies", {curve.seed: MEASURES["best_return"](curve) for curve in found.curves}
    seeds = range(found.settings["seed"], found.settings["seed"] + (found.settings.get("seeds") or 1))
    order = sorted(seeds, key=lambda seed: -np.nan_to_num(best.get(seed, np.nan), nan=-np.inf))
    for name in ("best", "last"):
        for seed in order:
            if (path := folder / f"{name}-{seed}.safetensors").is_file():
                return path
    raise RunError(f"{folder} holds no best-{seeds[0]}.safetensors yet; a run writes it with its first checkpoint.")
