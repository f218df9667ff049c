"""Multilayer perceptrons on a flat vector: the paper's critic, SimBa, and the head of every other critic."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from epvf_data.critics.base import Critic, Params
from epvf_data.errors import ConfigError


class Network(NamedTuple):
    """`init(key, size)` gives parameters for inputs of that size; `apply(params, x [size]) → [outputs]`."""

    init: Callable[[PRNGKeyArray, int], Params]
    apply: Callable[[Params, Float[Array, "*B D"]], Float[Array, "*B outputs"]]


class _MLP(nn.Module):
    widths: tuple[int, ...]
    outputs: int
    zero_last: bool
    layer_norm: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B outputs"]:
        for width in self.widths:
            x = nn.Dense(width)(x)
            x = nn.relu(nn.LayerNorm()(x) if self.layer_norm else x)
        return nn.Dense(self.outputs, kernel_init=_last(self.zero_last))(x)


class _SimBa(nn.Module):
    widths: tuple[int, ...]
    outputs: int
    zero_last: bool

    @nn.compact
    def __call__(self, x: Float[Array, "D"]) -> Float[Array, "outputs"]:
        x = nn.Dense(self.widths[0])(x)
        for width in self.widths:
            inner = nn.relu(nn.Dense(4 * width)(nn.LayerNorm()(x)))
            x = x + nn.Dense(width)(inner)
        return nn.Dense(self.outputs, kernel_init=_last(self.zero_last))(nn.LayerNorm()(x))


def _last(zero: bool) -> nn.initializers.Initializer:
    return nn.initializers.zeros if zero else nn.initializers.lecun_normal()


def network(
    widths: tuple[int, ...], outputs: int = 1, zero_last: bool = False, simba: bool = False, layer_norm: bool = False
) -> Network:
    """ReLU layers of the given widths and a linear head; with `simba`, a residual block with LayerNorm for each width.

    With `layer_norm`, plain layers normalise over their units before the ReLU (Ba, Kiros and Hinton 2016). Inputs may
    be a batch.

    `zero_last` starts the head's weights at zero, so that an untrained critic predicts the mean return everywhere and
    its gradient with respect to θ is zero rather than random: what climbing V wants.

    Raises ConfigError for widths that are not whole numbers of at least 1, or for SimBa's not alike.
    """
    if any(not isinstance(width, int) or width < 1 for width in widths):
        raise ConfigError(f"the critic's widths are {widths!r}; each must be a whole number of at least 1.")
    if simba and len(set(widths)) != 1:
        raise ConfigError(f"SimBa's residual blocks need one width; got {widths!r}.")
    shape = (tuple(widths), outputs, zero_last)
    module = _SimBa(*shape) if simba else _MLP(*shape, layer_norm)

    def init(key: PRNGKeyArray, size: int) -> Params:
        return module.init(key, jnp.zeros(size))

    def apply(params: Params, x: Float[Array, "*B D"]) -> Float[Array, "*B outputs"]:
        return jnp.asarray(module.apply(params, x))

    return Network(init, apply)


def on_vector(name: str, net: Network, size: int) -> Critic:
    """The network on a policy's scaled vector of `size` numbers."""
    return Critic(name, lambda key: net.init(key, size), lambda params, row: net.apply(params, row.scaled))


def mlp(size: int, widths: tuple[int, ...] = (256, 256), zero_last: bool = False, outputs: int = 1) -> Critic:
    """The paper's critic for policies of `size` parameters."""
    return on_vector("mlp", network(widths, outputs, zero_last), size)


def simba(size: int, widths: tuple[int, ...] = (512, 512), zero_last: bool = False, outputs: int = 1) -> Critic:
    """Residual blocks x + W₂ relu(W₁ LayerNorm(x)), LayerNorm, linear head (Lee et al. 2025)."""
    return on_vector("simba", network(widths, outputs, zero_last, simba=True), size)


def dead_units(params: Params, inputs: Float[Array, "B D"]) -> Float[Array, ""]:
    """Share of an MLP's hidden ReLU units that no row of `inputs` activates."""
    layers = params["params"]
    hidden, alive = inputs, []
    for layer in range(len(layers) - 1):  # the last one is the head
        weights = layers[f"Dense_{layer}"]
        hidden = nn.relu(hidden @ weights["kernel"] + weights["bias"][None])
        alive.append((hidden > 0).any(axis=0))
    return 1.0 - jnp.mean(jnp.concatenate(alive)) if alive else jnp.zeros(())
