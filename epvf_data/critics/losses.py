"""Losses over a batch: (predictions, targets, weights) → scalar. A weight of zero leaves a padded row out."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


def mse(
    predictions: Float[Array, "B"], targets: Float[Array, "B"], weights: Float[Array, "B"] | None = None
) -> Float[Array, ""]:
    """Weighted mean of the squared errors, in squared units of the targets; a plain mean without weights."""
    errors = jnp.square(predictions - targets)
    if weights is None:
        return jnp.mean(errors)
    return jnp.sum(weights * errors) / jnp.sum(weights)
