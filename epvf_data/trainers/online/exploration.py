"""Choose M policies: perturbations of θ, each of which its key, base and sign give again at any time."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32

from epvf_data.policies.kinds import Spec
from epvf_data.policies.perturb import clip_weights, noise
from epvf_data.streams import STREAMS
from epvf_data.trainers.online.settings import OnlineConfig
from epvf_data.trainers.online.state import Proposal, State, fold, raw_key, typed_key

CACHED = 64  # policies made at a time: their random bits stay in a processor's cache, which is four times as fast


def spread(
    config: OnlineConfig,
    base: Float[Array, "P"],
    data: UInt32[Array, "2"],
    sign: Float[Array, ""] | float,
    scale: Float[Array, ""] | None = None,
) -> Float[Array, "P"]:
    """One perturbed θ, from the raw key data of its noise; `scale` takes the place of the settings'."""
    explore = config.exploration
    size = explore.scale if scale is None else scale
    step = sign * noise(explore.law, typed_key(data), base, size, explore.floor)
    if explore.clip_noise is not None:
        step = jnp.clip(step, -explore.clip_noise, explore.clip_noise)
    return clip_weights(base + step, config.improvement.weight_clip if explore.clip_weights else None)


def noise_scale(config: OnlineConfig, base: Float[Array, "P"]) -> Float[Array, "P"]:
    """Standard deviation of each parameter's perturbation, before clips."""
    explore = config.exploration
    if explore.law == "gaussian":
        return jnp.full_like(base, explore.scale)
    magnitude = jnp.maximum(jnp.abs(base), explore.floor)
    return explore.scale * magnitude / (3.0**0.5 if explore.law == "uniform_scaled" else 1.0)


def member(
    config: OnlineConfig, key: UInt32[Array, "2"], row: Int[Array, ""]
) -> tuple[UInt32[Array, "2"], Float[Array, ""]]:
    """Noise key and sign of row m of the iteration with this key; antithetic partners share the key."""
    half = config.envs // 2 if config.exploration.antithetic else config.envs
    own = jax.random.fold_in(typed_key(key), STREAMS["perturb"])
    return raw_key(jax.random.fold_in(own, row % half)), jnp.where(row < half, 1.0, -1.0)


def regenerate(
    config: OnlineConfig, bases: Float[Array, "M P"], keys: UInt32[Array, "M 2"], sign: Float[Array, "M"]
) -> Float[Array, "M P"]:
    """The perturbed θ of rows; row m of an iteration is made from θ number m mod T."""
    one = lambda row: spread(config, *row)  # noqa: E731
    return jax.lax.map(one, (bases, keys, sign), batch_size=CACHED)


def iteration_key(state: State) -> UInt32[Array, "2"]:
    """The raw key data that all randomness of this iteration comes from."""
    return raw_key(jax.random.fold_in(typed_key(state.key), state.iteration))


def propose(config: OnlineConfig, spec: Spec, state: State) -> Proposal:
    """The M policies to roll out in this iteration."""
    key = iteration_key(state)
    keys, sign = jax.vmap(partial(member, config, key))(jnp.arange(config.envs))
    bases = jnp.tile(state.theta, (config.envs // len(state.theta), 1))
    theta = regenerate(config, bases, keys, sign)
    if config.algorithm == "random":
        theta = theta.at[0].set(state.theta[0])  # it has to be beaten on the same terms
    params, origin = (jax.vmap(lambda row: fold(spec, state.normaliser, row))(rows) for rows in (theta, state.theta))
    resets = jax.random.fold_in(typed_key(key), STREAMS["reset"])
    seeds = raw_key(jax.random.split(resets, config.envs))
    scale = jnp.full(config.envs, config.exploration.scale)
    return Proposal(theta, state.theta, origin, params, seeds, keys, sign, scale)
