"""Probing: the actions a policy takes in given states, which make policies of different architectures comparable."""

from __future__ import annotations

import jax
from jaxtyping import Array, Float

from epvf_data.policies import acting
from epvf_data.policies.kinds import Spec


def probe(spec: Spec, flat: Float[Array, "P"], states: Float[Array, "K O"]) -> Float[Array, "K A"]:
    """The action of one policy in each of K observations (Harb et al. 2020; Faccio et al. 2022), without noise."""
    tensors = acting.unflatten(spec, flat)
    return jax.vmap(lambda state: acting.apply(spec, tensors, state))(states)
