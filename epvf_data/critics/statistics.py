"""Statistics of the weights: what can be told of a policy without looking at where its weights are.

Mean, deviation and quartiles of every tensor (Unterthiner et al. 2020): a cheap control. Symmetric in hidden units, as
UNF is, and blind to nearly everything else.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from epvf_data.critics.base import Critic, Params, Row
from epvf_data.critics.mlp import Network
from epvf_data.policies import mlp as policy
from epvf_data.policies.spec import PolicySpec

_QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
EACH = 2 + len(_QUANTILES)  # numbers of a tensor


def statistics(spec: PolicySpec, head: Network) -> Critic:
    """The head on mean, deviation and quantiles 0, ¼, ½, ¾, 1 of each tensor, in units of 1/√fan_in."""

    def init(key: PRNGKeyArray) -> Params:
        return head.init(key, EACH * len(spec.tensors))

    def apply(params: Params, row: Row) -> Float[Array, "outputs"]:
        return head.apply(params, describe(spec, row.vector))

    return Critic("statistics", init, apply)


def describe(spec: PolicySpec, theta: Float[Array, "P"]) -> Float[Array, "F"]:
    """Seven numbers a tensor, in the order of the spec."""
    tensors = policy.unflatten(spec, policy.relative(spec, theta))
    quantiles = jnp.asarray(_QUANTILES)
    each = [
        jnp.concatenate([jnp.stack([tensor.mean(), _deviation(tensor)]), jnp.quantile(tensor, quantiles)])
        for tensor in tensors.values()
    ]
    return jnp.concatenate(each)


def _deviation(tensor: Array) -> Array:
    """Standard deviation with a gradient where all entries are equal."""
    return jnp.sqrt(jnp.mean(jnp.square(tensor - tensor.mean())) + 1e-12)
