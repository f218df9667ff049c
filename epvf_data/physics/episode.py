"""One episode's bookkeeping, written once for every backend: act, and account for what the physics did."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt32

from epvf_data.envs.base import Env, Physics
from epvf_data.policies import acting
from epvf_data.policies.kinds import Spec

_NOISE = 2**32 - 1  # folded into an episode's key for its actions' noise: no `reset` that splits the key gets so far
MAX_STATE = 1e10  # beyond it MuJoCo C calls a state diverged (mjMAXVAL); MJX follows here


class Outcomes(NamedTuple):
    """How every episode of every policy ended, on the host; within the loop, how one did."""

    returns: Float[np.ndarray, "N E"]  # undiscounted
    discounted: Float[np.ndarray, "N E"]
    lengths: Int[np.ndarray, "N E"]  # control steps
    terminated: Bool[np.ndarray, "N E"]
    truncated: Bool[np.ndarray, "N E"]
    finite: Bool[np.ndarray, "N E"]
    observations: Float[np.ndarray, "N E O"] | None = None  # one of each episode, drawn uniformly; where asked for

    @classmethod
    def empty(cls, policies: int, episodes: int, observation_size: int | None = None) -> Outcomes:
        """Arrays to be filled in; returns start as NaN so that a forgotten one shows."""
        shape = (policies, episodes)
        flags = [np.zeros(shape, bool) for _ in range(3)]
        first, second = np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32)
        seen = None if observation_size is None else np.zeros((*shape, observation_size), np.float32)
        return cls(first, second, np.zeros(shape, np.int32), flags[0], flags[1], flags[2], seen)

    @property
    def env_steps(self) -> int:
        return int(self.lengths.sum(dtype=np.int64))


class Sample(NamedTuple):
    """One of the observations that an episode's policy has acted on, each equally likely (a reservoir of one)."""

    observation: Float[Array, "O"]
    seed: UInt32[Array, "2"]  # raw key data of the draws


class Episode(NamedTuple):
    """What is known of one world's episode so far."""

    physics: Physics
    returns: Float[Array, ""]  # undiscounted sum of rewards
    discounted: Float[Array, ""]
    length: Int[Array, ""]  # control steps whose reward is in the return
    terminated: Bool[Array, ""]
    truncated: Bool[Array, ""]
    finite: Bool[Array, ""]  # False: the policy or the physics gave NaN or infinity, and the episode ended there
    running: Bool[Array, ""]
    sample: Sample | None = None
    noise: UInt32[Array, "2"] | None = None  # raw key data of the actions' noise; None where there is none


def begin(env: Env, key: PRNGKeyArray, sample: bool = False, noise: bool = False) -> Episode:
    """A fresh episode from the environment's start; with `sample`, it keeps one of its observations.

    `noise` is for policies whose actions are sampled.
    """
    zero, no, yes = jnp.zeros(()), jnp.zeros((), bool), jnp.ones((), bool)
    kept = Sample(jnp.zeros(env.observation_size), jax.random.key_data(jax.random.fold_in(key, 1))) if sample else None
    physics = env.reset(key)
    physics = physics._replace(moved=jnp.zeros_like(physics.qpos))
    drawn = jax.random.key_data(jax.random.fold_in(key, _NOISE)) if noise else None
    length = jnp.zeros((), jnp.int32)
    return Episode(physics, zero, zero, length, no, no, finite=yes, running=yes, sample=kept, noise=drawn)


def act(
    env: Env, spec: Spec, tensors: acting.Tensors, episode: Episode
) -> tuple[Episode, Float[Array, "A"], Float[Array, "nu"]]:
    """The policy's action in the present state, and the actuator controls it stands for.

    A policy that answers NaN or infinity ends its episode here, before the physics sees the control.
    """
    observation = env.observe(episode.physics)
    action = _decide(spec, tensors, episode, observation)
    finite = jnp.isfinite(action).all()
    action = jnp.where(finite, action, 0.0)
    episode = episode._replace(
        finite=episode.finite & (finite | ~episode.running),
        terminated=episode.terminated | (episode.running & ~finite),
        running=episode.running & finite,
        sample=None if episode.sample is None else _draw(episode, episode.sample, observation, finite),
    )
    return episode, action, env.control(action)


def _decide(spec: Spec, tensors: acting.Tensors, episode: Episode, observation: Float[Array, "O"]) -> Float[Array, "A"]:
    """The action; the noise of a sampled one depends on the episode's start key and the control step alone."""
    if not spec.sampled:
        return acting.apply(spec, tensors, observation)
    assert episode.noise is not None  # begun with `noise`
    key = jax.random.wrap_key_data(episode.noise, impl="threefry2x32")
    return acting.sample(spec, tensors, observation, jax.random.fold_in(key, episode.length))


def _draw(episode: Episode, sample: Sample, observation: Float[Array, "O"], finite: Bool[Array, ""]) -> Sample:
    """The t-th observation takes the place with probability 1/t, so all are equally likely in the end (Vitter 1985)."""
    key = jax.random.fold_in(jax.random.wrap_key_data(sample.seed, impl="threefry2x32"), episode.length)
    takes = episode.running & finite & (jax.random.uniform(key) * (episode.length + 1) < 1.0)
    return sample._replace(observation=jnp.where(takes, observation, sample.observation))


def account(env: Env, discount: float, episode: Episode, after: Physics) -> Episode:
    """Adds the reward of the step that led to `after` and ends the episode where the task says so.

    A state that is not finite, or beyond MuJoCo's bound of 1e10, ends the episode as terminated and keeps the return
    gathered before it.
    """
    finite = (jnp.abs(after.qpos) < MAX_STATE).all() & (jnp.abs(after.qvel) < MAX_STATE).all()
    reward = env.reward(episode.physics, after)
    finite &= jnp.isfinite(reward)
    counts = episode.running & finite
    length = episode.length + counts
    ended = env.terminated(after) | ~finite
    over_time = length >= env.horizon
    return Episode(
        physics=after,
        returns=episode.returns + jnp.where(counts, reward, 0.0),
        discounted=episode.discounted + jnp.where(counts, reward * discount**episode.length, 0.0),
        length=length,
        terminated=episode.terminated | (episode.running & ended),
        truncated=episode.truncated | (counts & over_time),
        finite=episode.finite & (finite | ~episode.running),
        running=episode.running & ~ended & ~over_time,
        sample=episode.sample,
        noise=episode.noise,
    )
