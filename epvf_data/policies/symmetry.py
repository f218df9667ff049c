"""Changes of the parameters that leave the policy as it is: hidden units renumbered, and signs flipped.

Hecht-Nielsen 1990: a hidden unit can change places with another one of its layer, and where the activation is odd, its
incoming and outgoing weights can change sign together. With LayerNorm the unit's own scale and bias change sign in
place of the incoming weights, which the other units' mean depends on. Pure functions over one policy.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from epvf_data.errors import ConfigError
from epvf_data.policies import mlp
from epvf_data.policies.spec import PolicySpec

ODD = ("tanh", "identity")  # activations with f(−x) = −f(x)


def flips(spec: PolicySpec) -> bool:
    """Whether flipping signs leaves policies of this architecture as they are."""
    return not spec.hidden or spec.activation in ODD


def permute(spec: PolicySpec, theta: Float[Array, "P"], key: PRNGKeyArray) -> Float[Array, "P"]:
    """The same policy with the units of every hidden layer in a random order."""
    keys = jax.random.split(key, max(1, len(spec.hidden)))
    orders = [jax.random.permutation(own, width) for own, width in zip(keys, spec.hidden, strict=False)]
    take = lambda tensor, order, axis: jnp.take(tensor, order, axis=axis)  # noqa: E731
    return _change(spec, theta, orders, ("kernel", "bias", "norm_scale", "norm_bias"), take)


def flip(spec: PolicySpec, theta: Float[Array, "P"], key: PRNGKeyArray) -> Float[Array, "P"]:
    """The same policy with the signs of a random half of the hidden units flipped.

    Raises ConfigError for an activation that is not odd.
    """
    if not flips(spec):
        raise ConfigError(
            f"flipping signs changes what a policy with {spec.activation} does; only {' and '.join(ODD)} are odd."
        )
    keys = jax.random.split(key, max(1, len(spec.hidden)))
    signs = [jax.random.rademacher(own, (width,), theta.dtype) for own, width in zip(keys, spec.hidden, strict=False)]

    def apply(tensor: Array, sign: Array, axis: int) -> Array:
        return tensor * sign.reshape(*(-1 if place == axis else 1 for place in range(tensor.ndim)))

    incoming = ("norm_scale", "norm_bias") if spec.layer_norm else ("kernel", "bias")
    return _change(spec, theta, signs, incoming, apply)


def _change(spec: PolicySpec, theta: Array, changes: list[Array], incoming: tuple[str, ...], apply) -> Array:
    """Applies change l to the outputs (the last axis) of layer l's tensors, and to the inputs of layer l + 1."""
    tensors = mlp.unflatten(spec, theta)
    for layer, change in enumerate(changes):
        for name in (f"layer_{layer}/{tensor}" for tensor in incoming):
            if name in tensors:
                tensors[name] = apply(tensors[name], change, tensors[name].ndim - 1)
        after = f"layer_{layer + 1}/kernel"
        tensors[after] = apply(tensors[after], change, 0)
    return mlp.flatten(spec, tensors)
