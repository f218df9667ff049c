"""Initialise, flatten and apply one multilayer perceptron policy. Pure functions over one policy; `vmap` for many."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from epvf_data.policies.spec import EPSILON, PolicySpec

Tensors = dict[str, Array]  # tensor name of the spec → array

ACTIVATIONS = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "elu": jax.nn.elu,
    "swish": jax.nn.swish,
    "clip": lambda x: jnp.clip(x, -1.0, 1.0),
    "identity": lambda x: x,
}
# Where fresh parameters are centred; all others at 0. exp(−0.5) ≈ 0.6 is a noise of about the size of a fresh policy's
# outputs: neither drowns the other, and clipping to ±1 leaves most of both.
CENTRES = {"norm_scale": 1.0, "log_std": -0.5}


def init(key: PRNGKeyArray, spec: PolicySpec, scale: Float[Array, ""] | float = 1.0) -> Float[Array, "P"]:
    """Flat parameters drawn from U(±scale/√fan_in), weights **and biases**, where fan_in is the layer's inputs.

    Biases are drawn too: noise scaled by the parameter would never move a bias that starts at zero. LayerNorm's scales
    are 1 and log_std is −0.5, plus a draw from the same law (for log_std, that of the last layer).
    """
    flat = jax.random.uniform(key, (spec.size,), minval=-1.0, maxval=1.0)
    drawn = flat * scale * jnp.asarray(bounds(spec))
    return drawn + centres(spec) if _centred(spec) else drawn


def bounds(spec: PolicySpec) -> Float[Array, "P"]:
    """1/√fan_in for each parameter of the flat vector."""
    parts = []
    for name, slot in spec.tensors.items():
        layer = f"layer_{len(spec.hidden)}" if name == "log_std" else name.split("/")[0]
        fan_in = spec.tensors[f"{layer}/kernel"].shape[0]
        parts.append(jnp.full(slot.size, fan_in**-0.5))
    return jnp.concatenate(parts)


def centres(spec: PolicySpec) -> Float[Array, "P"]:
    """What fresh parameters are spread around: 1 for LayerNorm's scales, −0.5 for log_std, else 0."""
    parts = [jnp.full(slot.size, CENTRES.get(name.split("/")[-1], 0.0)) for name, slot in spec.tensors.items()]
    return jnp.concatenate(parts)


def relative(spec: PolicySpec, flat: Float[Array, "P"]) -> Float[Array, "P"]:
    """The parameters in units of a fresh policy's spread: around 0, within ±scale."""
    return (flat - centres(spec) if _centred(spec) else flat) / bounds(spec)


def _centred(spec: PolicySpec) -> bool:
    return spec.layer_norm or spec.gaussian is not None


def unflatten(spec: PolicySpec, flat: Float[Array, "P"]) -> Tensors:
    """The tensors that lie in a flat parameter vector."""
    return {
        name: flat[slot.offset : slot.offset + slot.size].reshape(slot.shape) for name, slot in spec.tensors.items()
    }


def flatten(spec: PolicySpec, tensors: Mapping[str, Array]) -> Float[Array, "P"]:
    """Inverse of `unflatten`."""
    return jnp.concatenate([jnp.ravel(tensors[name]) for name in spec.tensors])


def apply(spec: PolicySpec, tensors: Mapping[str, Array], observation: Float[Array, "O"]) -> Float[Array, "A"]:
    """The action of one policy in one state; in [−1, 1] unless the spec's output is identity.

    Of a Gaussian policy, also of one that is sampled, the action without noise.
    """
    return ACTIVATIONS[spec.output](sums(spec, tensors, observation))


def sample(
    spec: PolicySpec, tensors: Mapping[str, Array], observation: Float[Array, "O"], key: PRNGKeyArray
) -> Float[Array, "A"]:
    """An action of one Gaussian policy in one state: output(x + exp(log_std) · noise), noise standard normal."""
    noise = jax.random.normal(key, (spec.action_size,))
    return ACTIVATIONS[spec.output](sums(spec, tensors, observation) + jnp.exp(tensors["log_std"]) * noise)


def sums(spec: PolicySpec, tensors: Mapping[str, Array], observation: Float[Array, "O"]) -> Float[Array, "A"]:
    """What the last layer adds up, before the output function."""
    x = observation
    if spec.normaliser is not None:
        mean, std = jnp.asarray(spec.normaliser.mean), jnp.asarray(spec.normaliser.std)
        x = jnp.clip((x - mean) / std, -spec.normaliser.clip, spec.normaliser.clip)
    last = len(spec.sizes) - 2
    for layer in range(last + 1):
        x = x @ tensors[f"layer_{layer}/kernel"]
        if spec.bias:
            x = x + tensors[f"layer_{layer}/bias"]
        if layer < last:
            if spec.layer_norm:
                x = _normalise(x) * tensors[f"layer_{layer}/norm_scale"] + tensors[f"layer_{layer}/norm_bias"]
            x = ACTIVATIONS[spec.activation](x)
    return x


def _normalise(x: Float[Array, "H"]) -> Float[Array, "H"]:
    """Mean 0 and variance 1 over the units of a layer (Ba, Kiros and Hinton 2016)."""
    centred = x - x.mean()
    return centred / jnp.sqrt(jnp.square(centred).mean() + EPSILON)
