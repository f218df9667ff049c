"""Improve a policy: climb V inside the weight box, or follow any other gradient there, by the same steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from epvf_data.policies.perturb import clip_weights

Value = Callable[[Float[Array, "P"]], Float[Array, ""]]


class Improver(NamedTuple):
    """Adam (Kingma and Ba 2015) with decoupled weight decay, then the weight clip.

    `init(θ [P]) → moments`; `step(θ, moments, gradient [P], rate) → (θ, moments)` moves θ up the gradient by about
    `rate` a parameter.
    """

    init: Callable[[Float[Array, "P"]], Any]
    step: Callable[..., tuple[Float[Array, "P"], Any]]


def make_improver(
    limit: float | None = None, weight_decay: float = 0.0, beta1: float = 0.9, beta2: float = 0.999
) -> Improver:
    """`limit` is the box ±limit, None for none; `weight_decay` shrinks θ by rate · weight_decay a step."""
    adam = optax.scale_by_adam(b1=beta1, b2=beta2)

    def step(theta: Float[Array, "P"], moments: Any, gradient: Float[Array, "P"], rate: Float[Array, ""] | float):
        direction, moments = adam.update(gradient, moments)
        moved = theta + rate * (jnp.asarray(direction) - weight_decay * theta)
        return clip_weights(moved, limit), moments

    return Improver(adam.init, step)


def climb(
    value: Value,
    improver: Improver,
    theta: Float[Array, "P"],
    moments: Any,
    steps: int,
    rate: Float[Array, ""] | float,
) -> tuple[Float[Array, "P"], Any, Float[Array, ""]]:
    """`steps` gradient steps up V: the L steps of Algorithm 1 (Bohlinger & Peters).

    Returns θ, the moments and the norm of ∇V where the climb began.
    """

    def body(carry: tuple[Array, Any], _: None):
        theta, moments = carry
        gradient = jax.grad(value)(theta)
        return improver.step(theta, moments, gradient, rate), jnp.linalg.norm(gradient)

    (theta, moments), norms = jax.lax.scan(body, (theta, moments), length=steps)
    return theta, moments, norms[0]


def rate_at(first: float, last: float | None, fraction: Float[Array, ""]) -> Float[Array, ""]:
    """The learning rate after this fraction of the budget: exponentially from `first` to `last`, or constant."""
    if last is None:
        return jnp.asarray(first)
    return first * (last / first) ** jnp.clip(fraction, 0.0, 1.0)
