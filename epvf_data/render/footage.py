"""An episode as a film tells it: which states are shown when, the return gathered so far, the words over a frame."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt32

from epvf_data.envs import ant
from epvf_data.envs.base import Env, Physics
from epvf_data.physics.trajectory import Trajectory, replay
from epvf_data.policies.kinds import Spec

ANT_SPEED = 17  # place of the body-frame velocity's x in the Ant's observation


class Footage(NamedTuple):
    """One episode of T control steps, and the states that a film of it shows."""

    env: Env
    played: Trajectory
    returns: Float[np.ndarray, "T+1"]  # gathered on arriving in each state; the last is the episode's own
    shown: Int[np.ndarray, "F"]  # state of each frame, in real time: the first to the last that is finite

    @property
    def length(self) -> int:
        """Control steps."""
        return int(self.played.episode.length)

    @property
    def ended(self) -> str:
        """Why the episode ended: "diverged", "terminated" or "truncated" (at the horizon)."""
        if not self.played.episode.finite:
            return "diverged"
        return "terminated" if self.played.episode.terminated else "truncated"

    def seconds(self, state: int) -> float:
        """Simulated time at a state."""
        return state * _step(self.env)

    def caption(self, state: int) -> str:
        """Time, return, what the task is about and, over the last frame, how it ended."""
        parts = [f"{self.seconds(state):.2f} s", f"return {self.returns[state]:.1f}"]
        if self.env.name in ("ant", "ant-reset-noise", "ant-servo"):
            speed = self.played.observations[state, ANT_SPEED]
            parts.append(f"speed {speed:.2f} of {ant.TARGET_VELOCITY[0]:g} m/s")
        if self.env.name == "cartpole":
            position, angle = self.played.qpos[state]
            parts.append(f"cart {position:+.2f} m   pole {math.degrees(angle):+.1f}°")
        if state == self.shown[-1]:
            parts.append("horizon reached" if self.ended == "truncated" else self.ended)
        return "   ".join(parts)


def play(
    env: Env,
    spec: Spec,
    params: Float[np.ndarray, "P"],
    reset_seed: UInt32[np.ndarray, "2"] | None,
    number: int,
    fps: int,
) -> Footage:
    """Plays episode `number` of a policy as `rollout` does, for a film of `fps` frames a second."""
    played = replay(env, spec, params, reset_seed, number)
    rewards = _rewards(env)(played.qpos, played.qvel, played.actions)
    returns = np.concatenate([[0.0], np.cumsum(np.nan_to_num(np.asarray(rewards, np.float64)))])
    returns[-1] = played.episode.returns
    return Footage(env, played, returns, _shown(env, played, fps))


def _step(env: Env) -> float:
    """Seconds a control step."""
    return env.timestep * env.substeps


def _shown(env: Env, played: Trajectory, fps: int) -> Int[np.ndarray, "F"]:
    finite = np.isfinite(np.concatenate([played.qpos, played.qvel], axis=1)).all(axis=1)
    last = int(np.flatnonzero(finite)[-1])
    count = math.ceil(last * _step(env) * fps - 1e-6) + 1  # the end is shown even where it falls between two frames
    return np.minimum(np.round(np.arange(count) / (fps * _step(env)) - 1e-6).astype(int), last)


@lru_cache(maxsize=16)
def _rewards(env: Env) -> Callable:
    """(qpos [T+1, nq], qvel [T+1, nv], actions [T+1, A]) → the reward of each step [T], compiled."""

    def rewards(qpos, qvel, actions):
        states = Physics(qpos, qvel, actions, jnp.diff(qpos, axis=0, prepend=qpos[:1]))
        before, after = (
            jax.tree.map(lambda leaf, part=part: leaf[part], states) for part in (slice(-1), slice(1, None))
        )
        return jax.vmap(env.reward)(before, after)

    return jax.jit(rewards)
