"""Improve a policy: climb V inside the weight box, or follow any other gradient there, by the same steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from epvf_data.policies.perturb import clip_weights

Value = Callable[[Float[Array, "P"]], Float[Array, ""]]


class Improver(NamedTuple):
    """How θ follows gradients: with decoupled weight decay, then the weight clip.

    `init(θ [P]) → moments`; `step(θ, moments, gradient [P], rate) → (θ, moments)` moves θ up the gradient. `adam`
    (Kingma and Ba 2015) moves each parameter by about `rate`. `momentum` moves θ by exactly the distance `rate` along
    the running mean of the gradients' directions: no parameter's noise is blown up to the size of another's signal.
    `plain` moves it by rate · gradient.
    """

    init: Callable[[Float[Array, "P"]], Any]
    step: Callable[..., tuple[Float[Array, "P"], Any]]


def make_improver(
    limit: float | None = None,
    weight_decay: float = 0.0,
    beta1: float = 0.9,
    beta2: float = 0.999,
    optimiser: str = "adam",
) -> Improver:
    """`limit` is the box ±limit, None for none; `weight_decay` shrinks θ by rate · weight_decay a step."""
    scale = {"adam": lambda: optax.scale_by_adam(b1=beta1, b2=beta2), "momentum": lambda: _directions(beta1)}
    transform = {**scale, "plain": optax.identity}[optimiser]()

    def step(theta: Float[Array, "P"], moments: Any, gradient: Float[Array, "P"], rate: Float[Array, ""] | float):
        direction, moments = transform.update(gradient, moments)
        moved = theta + rate * (jnp.asarray(direction) - weight_decay * theta)
        return clip_weights(moved, limit), moments

    return Improver(transform.init, step)


def _directions(decay: float) -> optax.GradientTransformation:
    """The running mean of unit gradients, scaled to length one."""
    unit = lambda vector: vector / jnp.maximum(jnp.linalg.norm(vector), 1e-12)  # noqa: E731

    def update(gradient: Array, mean: Array, params: Any = None) -> tuple[Array, Array]:
        mean = decay * mean + (1 - decay) * unit(gradient)
        return unit(mean), mean

    return optax.GradientTransformation(jnp.zeros_like, update)  # pyright: ignore[reportArgumentType]


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


def rate_at(first: float, last: float | None, fraction: Float[Array, ""], end: float = 1.0) -> Float[Array, ""]:
    """The learning rate after this fraction of the budget: exponentially from `first` to `last`, or constant.

    `last` is reached at the fraction `end`.
    """
    if last is None:
        return jnp.asarray(first)
    return first * (last / first) ** jnp.clip(fraction / end, 0.0, 1.0)


def ascend(
    value: Callable[..., Float[Array, ""]],
    starts: Float[Array | np.ndarray, "n P"],
    spread: Float[Array | np.ndarray, "P"],
    length: float,
    looks: Sequence[int],
    *,
    plain: bool = False,
    radius: float | None = None,
    data: Any = None,
) -> list[Float[Array, "n P"]]:
    """The policies after so many steps up V from each start: what every offline method and evaluation climbs by.

    Steps are taken in units of each parameter's spread, z = θ / spread: z ← z + length · ∇V / ‖∇V‖, or with `plain`
    z ← z + length · ∇V, as COMs does. With `radius`, z stays within that distance of its start (a trust region): it is
    brought back along the straight line. `looks` are numbers of steps, ascending. V is `value(θ)`, or with `data`
    `value(θ, data)`: calls with the same function and other data share what is compiled.
    """
    scale = jnp.asarray(spread)
    begin = jnp.asarray(starts) / scale[None]
    now, found, step = begin, [], _step(value, plain, radius is not None)
    for number in range(1, max(looks) + 1):
        now = step(now, begin, scale, length, radius, data)
        if number in looks:
            found.append(now * scale[None])
    return found


@lru_cache(maxsize=4)
def _step(value: Callable[..., Float[Array, ""]], plain: bool, bounded: bool) -> Callable[..., Float[Array, "n P"]]:
    """One step from every policy at once, compiled once for each V."""
    improver = make_improver(optimiser="plain" if plain else "momentum", beta1=0.0)

    @jax.jit
    @partial(jax.vmap, in_axes=(0, 0, None, None, None, None))
    def step(z: Float[Array, "P"], start: Float[Array, "P"], scale: Array, length: Array, radius: Any, data: Any):
        def inner(z: Float[Array, "P"]) -> Float[Array, ""]:
            return value(z * scale) if data is None else value(z * scale, data)

        moved, _, _ = climb(inner, improver, z, improver.init(z), 1, length)
        if not bounded:
            return moved
        away = moved - start
        return start + away * jnp.minimum(1.0, radius / jnp.maximum(jnp.linalg.norm(away), 1e-12))

    return step
