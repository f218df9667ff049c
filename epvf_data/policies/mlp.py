"""Initialise, flatten and apply one multilayer perceptron policy. Pure functions over one policy; `vmap` for many."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from epvf_data.policies.spec import PolicySpec

Tensors = dict[str, Array]  # tensor name of the spec → array

ACTIVATIONS = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "elu": jax.nn.elu,
    "swish": jax.nn.swish,
    "clip": lambda x: jnp.clip(x, -1.0, 1.0),
    "identity": lambda x: x,
}


def init(key: PRNGKeyArray, spec: PolicySpec, scale: Float[Array, ""] | float = 1.0) -> Float[Array, "P"]:
    """Flat parameters drawn from U(±scale/√fan_in), weights **and biases**, where fan_in is the layer's inputs.

    Biases are drawn too: noise scaled by the parameter would never move a bias that starts at zero.
    """
    flat = jax.random.uniform(key, (spec.size,), minval=-1.0, maxval=1.0)
    return flat * scale * jnp.asarray(bounds(spec))


def bounds(spec: PolicySpec) -> Float[Array, "P"]:
    """1/√fan_in for each parameter of the flat vector."""
    parts = []
    for name, slot in spec.tensors.items():
        fan_in = spec.tensors[name.replace("/bias", "/kernel")].shape[0]
        parts.append(jnp.full(slot.size, fan_in**-0.5))
    return jnp.concatenate(parts)


def unflatten(spec: PolicySpec, flat: Float[Array, "P"]) -> Tensors:
    """The tensors that lie in a flat parameter vector."""
    return {
        name: flat[slot.offset : slot.offset + slot.size].reshape(slot.shape) for name, slot in spec.tensors.items()
    }


def flatten(spec: PolicySpec, tensors: Mapping[str, Array]) -> Float[Array, "P"]:
    """Inverse of `unflatten`."""
    return jnp.concatenate([jnp.ravel(tensors[name]) for name in spec.tensors])


def apply(spec: PolicySpec, tensors: Mapping[str, Array], observation: Float[Array, "O"]) -> Float[Array, "A"]:
    """The action of one policy in one state; in [−1, 1] unless the spec's output is identity."""
    x = observation
    if spec.normaliser is not None:
        mean, std = jnp.asarray(spec.normaliser.mean), jnp.asarray(spec.normaliser.std)
        x = jnp.clip((x - mean) / std, -spec.normaliser.clip, spec.normaliser.clip)
    last = len(spec.sizes) - 2
    for layer in range(last + 1):
        x = x @ tensors[f"layer_{layer}/kernel"]
        if spec.bias:
            x = x + tensors[f"layer_{layer}/bias"]
        x = ACTIVATIONS[spec.output if layer == last else spec.activation](x)
    return x
