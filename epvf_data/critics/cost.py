"""What a critic costs: parameters, and operations for one policy."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from epvf_data.critics.base import Row
from epvf_data.critics.families import Family, family_of
from epvf_data.critics.losses import make_loss
from epvf_data.critics.settings import CriticSettings
from epvf_data.critics.zoo import make_critic
from epvf_data.policies.spec import PolicySpec

_STORED = 64  # probing states of a data set, unless said otherwise


class Cost(NamedTuple):
    """`operations` are those of the value and its gradient with respect to the critic's parameters, one policy."""

    parameters: int
    operations: float


def cost(name: str | Family, settings: CriticSettings, spec: PolicySpec) -> Cost:
    """Counted by the compiler on the traced program; nothing is computed. Raises ConfigError for unknown names."""
    loss = make_loss(settings.loss, bins=settings.bins)
    size = _STORED * spec.action_size if family_of(name).reads == "probe_actions" else spec.size
    critic = make_critic(name, settings, spec, loss.outputs, size)
    params = jax.eval_shape(critic.init, jax.random.key(0))
    vector = jax.ShapeDtypeStruct((size,), jnp.float32)

    def value(params, vector):
        return jnp.sum(critic.apply(params, Row(vector, vector, spec)))

    counted = jax.jit(jax.value_and_grad(value)).lower(params, vector).cost_analysis() or {}
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    return Cost(parameters * settings.ensemble, float(counted.get("flops", 0.0)) * settings.ensemble)
