"""What a critic is: a frozen record of two pure functions over one policy, and the scale that it works in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

AnyArray = Array | np.ndarray
Params = Any  # a pytree of arrays


@dataclass(frozen=True)
class Critic:
    """V(θ) for one policy; `vmap` it over policies, and over parameters for seeds or ensembles.

    `init(key, P)` gives the parameters of a critic for policies of P parameters. `apply(params, θ)` maps one
    standardised flat vector θ [P] to one standardised return, a scalar.
    """

    name: str
    init: Callable[[PRNGKeyArray, int], Params]
    apply: Callable[[Params, Float[Array, "P"]], Float[Array, ""]]


class Scale(NamedTuple):
    """Location and spread of the training rows: critics see (θ − mean) / std and learn (return − mean) / std."""

    theta_mean: Float[AnyArray, "P"]
    theta_std: Float[AnyArray, "P"]  # 1 where a parameter never varies
    return_mean: Float[AnyArray, ""]
    return_std: Float[AnyArray, ""]


def standardise(scale: Scale, theta: Float[Array, "P"]) -> Float[Array, "P"]:
    """One flat parameter vector in units of the training rows' spread."""
    return (theta - scale.theta_mean) / scale.theta_std


def value(critic: Critic, params: Params, scale: Scale, theta: Float[Array, "P"]) -> Float[Array, ""]:
    """V(θ) of one raw parameter vector, in units of the return."""
    return critic.apply(params, standardise(scale, theta)) * scale.return_std + scale.return_mean
