"""Directories of online runs with learning curves of a known shape in place of training."""

from __future__ import annotations

import json

import pytest

from epvf_data.config import to_dict
from epvf_data.trainers.online.settings import online_config


def write(directory, top=100.0, iterations=20, finished=True, per_second=1.0, **changes):
    """A run whose returns rise to `top` + seed along a line; an entry an iteration."""
    config = online_config("cartpole-es", iterations=iterations, log_every=1, **changes)
    (directory / "policies").mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps({"config": to_dict(config), "env_digest": "d", "run": "r"}))
    lines = [
        {
            "iteration": at,
            "seed": seed,
            "env_steps": 100 * at,
            "return_unperturbed": (top + seed) * at / iterations,
            "return_perturbed": 0.5 * (top + seed) * at / iterations,
            "seconds": 30 + at / per_second,
        }
        for at in range(1, iterations + 1)
        for seed in range(config.seed, config.seed + config.seeds)
    ]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if finished:
        (directory / "report.json").write_text(json.dumps({"finished": True}))
    return directory


@pytest.fixture(scope="session")
def write_run():
    """`write_run(directory, top, seeds=3, …)`."""
    return write
