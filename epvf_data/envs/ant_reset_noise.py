"""The paper's Ant from starts that differ by a hair: returns are means, and not what rounding made of one start."""

from __future__ import annotations

from dataclasses import replace

import jax
from jaxtyping import PRNGKeyArray

from epvf_data.envs import ant
from epvf_data.envs.base import Env, Physics

RESET_NOISE = 1e-3  # m, rad, m/s, rad/s: means hardly change from 1e-6 to 1e-2 (docs/improving.md)


def make() -> Env:
    """`ant`, each position and velocity of its start moved by `RESET_NOISE` · N(0, 1)."""
    return replace(ant.make(), name="ant-reset-noise", reset=_reset, random_start=True)


def _reset(key: PRNGKeyArray) -> Physics:
    first, second = jax.random.split(key)
    start = ant.make().reset(key)
    return start._replace(
        qpos=start.qpos + RESET_NOISE * jax.random.normal(first, start.qpos.shape),
        qvel=RESET_NOISE * jax.random.normal(second, start.qvel.shape),
    )
