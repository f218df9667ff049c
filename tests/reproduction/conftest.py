"""Run directories as training writes them, with learning curves of a known shape in place of training."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from epvf_data.config import to_dict
from epvf_data.trainers.online.settings import configure

VERSIONS = {"python": "3", "device": "none"}


def metrics(config, seed, top=500.0, rate=0.02, noise=10.0, iterations=200):
    """One seed's lines: a return that rises as 1 − exp(−rate · iteration), and episodes as long as their return."""
    random = np.random.default_rng([seed, int(1000 * rate)])
    at = np.arange(config.log_every, iterations + 1, config.log_every)
    returns = top * (1 - np.exp(-rate * at)) + noise * random.normal(size=len(at)) / np.sqrt(config.envs)
    steps = np.cumsum(np.maximum(returns, 10.0) * config.envs * config.log_every)
    return [
        {
            "iteration": int(iteration),
            "seed": seed,
            "env_steps": int(step),
            "return_perturbed": float(value),
            "return_unperturbed": float(min(1.1 * value, top)),
            "seconds": 0.1 * float(iteration),
        }
        for iteration, step, value in zip(at, steps, returns, strict=True)
    ]


def write_run(directory, config, finished=True, **shape):
    """A run directory of all seeds of the configuration; `shape` goes to `metrics`."""
    (directory / "checkpoints").mkdir(parents=True)
    (directory / "checkpoints" / "one").touch()
    (directory / "config.json").write_text(json.dumps({"config": to_dict(config)}))
    (directory / "versions.json").write_text(json.dumps(VERSIONS))
    lines = [line for seed in range(config.seed, config.seed + config.seeds) for line in metrics(config, seed, **shape)]
    lines.sort(key=lambda line: line["iteration"])
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if finished:
        (directory / "report.json").write_text(json.dumps({"finished": True, "seconds": 12.0}))
    return directory


def settings(**changes):
    """A configuration with two hundred iterations, an entry every fifth, and these changes."""
    from epvf_data.config import nested

    return configure(None, {"iterations": 200, "log_every": 5, "seeds": 5}, nested(changes))


@pytest.fixture(scope="session")
def sim():
    """`sim.write_run`, `sim.metrics` and `sim.settings`."""
    return SimpleNamespace(write_run=write_run, metrics=metrics, settings=settings)
