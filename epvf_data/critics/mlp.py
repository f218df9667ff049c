"""A multilayer perceptron on the flat parameter vector: the paper's critic."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from epvf_data.critics.base import Critic, Params
from epvf_data.errors import ConfigError


class _MLP(nn.Module):
    widths: tuple[int, ...]
    zero_last: bool

    @nn.compact
    def __call__(self, theta: Float[Array, "P"]) -> Float[Array, ""]:
        hidden = theta
        for width in self.widths:
            hidden = nn.relu(nn.Dense(width)(hidden))
        kernel = nn.initializers.zeros if self.zero_last else nn.initializers.lecun_normal()
        return jnp.squeeze(nn.Dense(1, kernel_init=kernel)(hidden), axis=-1)


def mlp(widths: tuple[int, ...] = (256, 256), zero_last: bool = False) -> Critic:
    """ReLU layers of the given widths and a linear head.

    `zero_last` starts the head's weights at zero, so that an untrained critic predicts the mean return everywhere and
    its gradient with respect to θ is zero rather than random: what climbing V wants.

    Raises ConfigError for widths that are not whole numbers of at least 1.
    """
    if any(not isinstance(width, int) or width < 1 for width in widths):
        raise ConfigError(f"the critic's widths are {widths!r}; each must be a whole number of at least 1.")
    network = _MLP(tuple(widths), zero_last)

    def init(key: PRNGKeyArray, size: int) -> Params:
        return network.init(key, jnp.zeros(size))

    def apply(params: Params, theta: Float[Array, "P"]) -> Float[Array, ""]:
        return jnp.asarray(network.apply(params, theta))

    return Critic("mlp", init, apply)


def dead_units(params: Params, inputs: Float[Array, "B P"]) -> Float[Array, ""]:
    """Share of the hidden ReLU units that no row of `inputs` activates."""
    layers = params["params"]
    hidden, alive = inputs, []
    for layer in range(len(layers) - 1):  # the last one is the head
        weights = layers[f"Dense_{layer}"]
        hidden = nn.relu(hidden @ weights["kernel"] + weights["bias"][None])
        alive.append((hidden > 0).any(axis=0))
    return 1.0 - jnp.mean(jnp.concatenate(alive)) if alive else jnp.zeros(())
