"""Rows of one architecture, numbered: what `gather` makes and commits."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt32

from epvf_data.envs import Env
from epvf_data.errors import ConfigError
from epvf_data.policies.spec import PolicySpec
from epvf_data.store.schema import Lineage
from epvf_data.untrusted import printable


class Drawn(NamedTuple):
    """n policies before they are rolled out."""

    params: Float[np.ndarray, "n P"]
    reset_seed: UInt32[np.ndarray, "n 2"]
    lineage: Lineage


@dataclass(frozen=True)
class Lot:
    """Row i of a lot is the same whenever it is made, and whatever is made beside it."""

    env: Env
    spec: PolicySpec
    rows: int
    batch: int  # rows of one commit
    episodes: int  # a policy
    backend: str
    probe_states: Float[np.ndarray, "K O"]
    simulation: dict[str, str]
    discount: float | None
    run: str  # equal for two lots that would make the same row i, whatever their number
    seed: int
    config: Mapping[str, Any]  # what the commits' records say of it
    draw: Callable[[Int[np.ndarray, "n"]], Drawn]  # the rows of these numbers


def check_memory(policies: int, spec: PolicySpec) -> None:
    """Raises ConfigError when the parameters of so many policies, held at once, exceed the machine's memory."""
    needed, there = 4 * policies * spec.size, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise ConfigError(
            f"{policies:,} policies {printable(spec)} take {needed / 1e9:,.0f} GB at once and this machine has "
            f"{there / 1e9:,.0f} GB of memory; ask for fewer --envs or smaller policies."
        )
