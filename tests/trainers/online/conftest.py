"""Small runs that learn something in a second or two."""

from __future__ import annotations

import pytest

from epvf_data.trainers.online.settings import online_config

TINY = {
    "envs": 8,
    "iterations": 6,
    "log_every": 2,
    "horizon": 30,
    "checkpoint_seconds": 0.0,
    "policy.hidden": [8],
    "critic.widths": [16],
    "critic.steps": 2,
    "improvement.steps": 2,
    "replay.capacity": 32,
    "replay.batch_size": 8,
}
ANT = {**TINY, "envs": 16, "log_every": 1, "horizon": 12, "replay.capacity": None, "replay.batch_size": None}


@pytest.fixture
def cartpole():
    """CartPole settings with some changed."""
    return lambda **changes: online_config("cartpole-paper", **{**TINY, **changes})


@pytest.fixture
def ant():
    """Ant settings, ours, with some changed."""
    return lambda preset="ant-cpu", **changes: online_config(preset, **{**ANT, "critic.probes": 8, **changes})
