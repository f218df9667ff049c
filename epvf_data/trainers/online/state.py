"""What a run carries from iteration to iteration, and what passes between its steps. All of one seed."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

from epvf_data.policies import mlp
from epvf_data.policies.kinds import Spec, mlp_of

Metrics = dict[str, Array]  # name → scalar


class Normaliser(NamedTuple):
    """Running mean and squared deviation of observations (Chan, Golub and LeVeque 1979)."""

    count: Float[Array, ""]
    mean: Float[Array, "O"]
    squares: Float[Array, "O"]  # sum of squared deviations from the mean


class State(NamedTuple):
    """Everything of one seed: a checkpoint is this record."""

    theta: Float[Array, "T P"]  # the policies being improved, before the normaliser is folded in
    improver: Any  # moments of the optimiser of θ, one a policy
    inner: Any  # what the algorithm keeps: critic, buffer, incumbent
    normaliser: Normaliser | None
    key: UInt32[Array, "2"]  # raw key data; iteration i draws from fold_in(key, i)
    iteration: Int[Array, ""]
    fraction: Float[Array, ""]  # of the budget that is spent


class Proposal(NamedTuple):
    """The M policies of an iteration."""

    theta: Float[Array, "M P"]  # what critics read
    base: Float[Array, "T P"]  # what they were made from
    origin: Float[Array, "T P"]  # the same with the normaliser folded in
    params: Float[Array, "M P"]  # what is rolled out: θ with the normaliser folded in
    seeds: UInt32[Array, "M 2"]  # raw key data of the resets
    noise: UInt32[Array, "M 2"]  # raw key data of the perturbation of each row
    sign: Float[Array, "M"]  # −1 for the second half of antithetic pairs
    scale: Float[Array, "M"]  # of the perturbation law


class Result(NamedTuple):
    """How the M policies did."""

    returns: Float[Array, "M"]  # undiscounted, mean over episodes
    finite: Bool[Array, "M"]
    lengths: Int[Array, "M"]  # control steps, all episodes
    observations: Float[Array, "M O"] | None  # one of each policy's episodes


def make_normaliser(size: int) -> Normaliser:
    """Before any observation: mean 0, deviation 1."""
    return Normaliser(jnp.zeros(()), jnp.zeros(size), jnp.zeros(size))


def observe(normaliser: Normaliser, observations: Float[Array, "M O"]) -> Normaliser:
    """The normaliser after these observations."""
    count = normaliser.count + observations.shape[0]
    mean = observations.mean(axis=0)
    shift = mean - normaliser.mean
    weight = observations.shape[0] / count
    between = jnp.square(shift) * normaliser.count * weight
    squares = normaliser.squares + jnp.sum(jnp.square(observations - mean[None]), axis=0) + between
    return Normaliser(count, normaliser.mean + shift * weight, squares)


def deviation(normaliser: Normaliser) -> Float[Array, "O"]:
    """Standard deviation, 1 before two observations and at least 0.01."""
    variance = normaliser.squares / jnp.maximum(normaliser.count, 1.0)
    return jnp.where(normaliser.count > 1, jnp.maximum(jnp.sqrt(variance), 1e-2), 1.0)


def fold(spec: Spec, normaliser: Normaliser | None, theta: Float[Array, "P"]) -> Float[Array, "P"]:
    """Parameters that act on raw observations as θ acts on normalised ones.

    With mean m and deviation s the first layer is (o − m)/s · W + b = o · W/s + (b − m · W/s). Rollouts,
    stored rows and saved policies hold these, so nobody downstream needs the normaliser.
    """
    if normaliser is None:
        return theta
    spec = mlp_of(spec, "normalise_observations", "set normalise_observations=false")
    tensors = dict(mlp.unflatten(spec, theta))
    kernel = tensors["layer_0/kernel"] / deviation(normaliser)[:, None]
    tensors["layer_0/kernel"] = kernel
    tensors["layer_0/bias"] = tensors["layer_0/bias"] - normaliser.mean @ kernel
    return mlp.flatten(spec, tensors)


def raw_key(key: Array) -> UInt32[Array, "2"]:
    return jax.random.key_data(key)


def typed_key(data: UInt32[Array, "2"]) -> Array:
    return jax.random.wrap_key_data(data, impl="threefry2x32")
