"""Conservative objective models (Trabucco, Kumar, Geng and Levine 2021): a critic that does not promise more uphill.

Beside its loss a critic pays α (E V(z⁻) − E V(z)), where z⁻ is where gradient ascent leads from a training policy z:
z ← z + η √D ∇V(z), T times, from D standardised numbers. α is a Lagrange multiplier: it grows while the gap exceeds
its limit, in standardised returns, and falls else. So V may rise along the climb by no more than the limit.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from epvf_data.critics.settings import Conservative


def uphill(
    value: Callable[[Float[Array, "D"]], Float[Array, ""]], z: Float[Array, "D"], how: Conservative
) -> Float[Array, "D"]:
    """Where T gradient steps up V lead from z; nothing is differentiated through them."""
    rate = how.rate * z.shape[0] ** 0.5

    def step(z: Float[Array, "D"], _: None) -> tuple[Float[Array, "D"], None]:
        return z + rate * jax.grad(value)(z), None

    return jax.lax.stop_gradient(jax.lax.scan(step, z, length=how.steps)[0])


def next_dual(log_alpha: Float[Array, ""], gap: Float[Array, ""], how: Conservative) -> Float[Array, ""]:
    """log α after one step; its size is bounded, for a gap may be a thousand limits at first."""
    return log_alpha + how.dual_rate * jnp.clip(gap - how.limit, -1.0, 1.0)
