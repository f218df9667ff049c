"""V(θ) in units of the return, of one critic and of an ensemble."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from epvf_data.critics.base import AnyArray, Critic, Params, Scale, make_row
from epvf_data.critics.losses import Loss
from epvf_data.policies.kinds import Spec


def value(
    critic: Critic, loss: Loss, params: Params, scale: Scale, vector: Float[Array, "D"], spec: Spec | None = None
) -> Float[Array, ""]:
    """V of one policy, given by its vector as it is stored; differentiable with respect to it."""
    return loss.read(critic.apply(params, make_row(scale, vector, spec))) * scale.return_std + scale.return_mean


def combine(members: Float[AnyArray, "*S E n"], bound: str, axis: int = -2) -> Any:
    """What an ensemble says: the mean of its members, the least ("min"), or the mean less one deviation ("lower")."""
    if bound == "min":  # by its place: the slope of jax's minimum is NaN where XLA computes the members anew, otherwise
        module: Any = np if isinstance(members, np.ndarray) else jnp
        return module.take_along_axis(members, members.argmin(axis, keepdims=True), axis).squeeze(axis)
    mean = members.mean(axis)
    return mean - (members.var(axis) + 1e-12) ** 0.5 if bound == "lower" else mean  # a root has no slope at 0
