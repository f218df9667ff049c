"""Is the critic right where it matters? Measured on rollouts that happen anyway."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


def correlation(first: Float[Array, "n"], second: Float[Array, "n"]) -> Float[Array, ""]:
    """Pearson's correlation; 0 where one of them does not vary."""
    first, second = first - first.mean(), second - second.mean()
    norm = jnp.linalg.norm(first) * jnp.linalg.norm(second)
    return jnp.where(norm > 1e-12, jnp.sum(first * second) / jnp.maximum(norm, 1e-12), 0.0)


def cosine(first: Float[Array, "P"], second: Float[Array, "P"]) -> Float[Array, ""]:
    """Cosine of the angle between two directions; 0 where one of them is zero."""
    norm = jnp.linalg.norm(first) * jnp.linalg.norm(second)
    return jnp.where(norm > 1e-20, jnp.sum(first * second) / jnp.maximum(norm, 1e-20), 0.0)


def evolution_gradient(
    shaped: Float[Array, "M"], noise: Float[Array, "M P"], scale: Float[Array, "P"]
) -> Float[Array, "P"]:
    """The gradient of the smoothed return in units of the noise: mean of shaped return × noise / scale.

    For Gaussian noise of standard deviation `scale` that is `scale` times the gradient (Salimans et al. 2017).
    """
    return shaped @ (noise / jnp.maximum(scale, 1e-12)[None]) / len(shaped)


def share_at(theta: Float[Array, "*T P"], limit: float | None) -> Float[Array, ""]:
    """Share of the parameters that lie at the weight clip; 0 without one."""
    return jnp.zeros(()) if limit is None else jnp.mean(jnp.abs(theta) >= limit * (1 - 1e-6))
