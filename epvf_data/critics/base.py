"""What a critic is: a frozen record of two pure functions over one policy, and the scale that it works in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.struct
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from epvf_data.policies.kinds import Spec

AnyArray = Array | np.ndarray
Params = Any  # a pytree of arrays


@flax.struct.dataclass
class Row:
    """A policy as a critic sees it; leading axes make it many.

    `vector` is θ, or for critics that never see θ the stored probing actions. Critics that look into the policy read
    it as it is, the others read it in units of the training rows' spread.
    """

    vector: Float[Array, "D"]
    scaled: Float[Array, "D"]
    spec: Spec | None = flax.struct.field(pytree_node=False, default=None)


@dataclass(frozen=True)
class Critic:
    """V of one policy; `vmap` it over rows, and over parameters for seeds or ensembles.

    `init(key)` gives the critic's parameters. `apply(params, row)` maps one policy to `outputs` numbers, which
    the loss knows how to read (`critics.losses`). `many(params, rows)`, where there is one, is the same for many
    policies, in a faster way than `vmap`.
    """

    name: str
    init: Callable[[PRNGKeyArray], Params]
    apply: Callable[[Params, Row], Float[Array, "outputs"]]
    many: Callable[[Params, Row], Float[Array, "n outputs"]] | None = None


class Scale(NamedTuple):
    """Location and spread of the training rows: critics see (θ − mean) / std and learn (return − mean) / std."""

    theta_mean: Float[AnyArray, "D"]
    theta_std: Float[AnyArray, "D"]  # 1 where a parameter never varies
    return_mean: Float[AnyArray, ""]
    return_std: Float[AnyArray, ""]


def make_row(scale: Scale, vector: Float[Array, "D"], spec: Spec | None = None) -> Row:
    """One policy with its vector in units of the training rows' spread beside it."""
    return Row(vector, (vector - scale.theta_mean) / scale.theta_std, spec)
