"""z(θ): the few numbers by which a critic that uses time knows a policy."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from epvf_data.policies import acting
from epvf_data.policies.kinds import Spec
from epvf_data.policies.probe import probe
from epvf_data.trainers.online.settings import OnlineConfig
from epvf_data.trainers.online.state import Normaliser, fold


class Representation(NamedTuple):
    """What z(θ) is computed with."""

    states: Float[Array, "K O"]  # probing states, raw observations
    projection: Float[Array, "F Z"]  # fixed


def make_representation(config: OnlineConfig, spec: Spec, key: PRNGKeyArray) -> Representation:
    """A fixed Gaussian projection, and probing states at zero until the first are drawn."""
    time = config.time
    features = {"probing": time.probes * spec.action_size, "raw": spec.size, "none": 1}[time.representation]
    size = 1 if time.representation == "none" else time.projection
    projection = 2.0 * features**-0.5 * jax.random.normal(key, (features, size))
    return Representation(jnp.zeros((time.probes, spec.observation_size)), projection)


def represent(
    config: OnlineConfig,
    spec: Spec,
    known: Representation,
    theta: Float[Array, "P"],
    normaliser: Normaliser | None,
) -> Float[Array, "Z"]:
    """z of θ, to which the normaliser belongs: its actions in the probing states, or its parameters in units of a fresh
    policy's spread, times the projection. `none` is a zero."""
    kind = config.time.representation
    if kind == "none":
        return jnp.zeros(1)
    if kind == "raw":
        return acting.relative(spec, theta) @ known.projection
    return probe(spec, fold(spec, normaliser, theta), known.states).ravel() @ known.projection
