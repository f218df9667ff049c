"""How the critic of a family is made from settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from epvf_data.config import check_one_of
from epvf_data.critics.base import Critic
from epvf_data.critics.families import CRITICS
from epvf_data.critics.mlp import Network, network, on_vector
from epvf_data.critics.probing import probing
from epvf_data.critics.ridge import ridge
from epvf_data.critics.settings import CriticSettings
from epvf_data.critics.statistics import statistics
from epvf_data.critics.unf import unf
from epvf_data.policies.spec import PolicySpec


@dataclass(frozen=True)
class Made:
    """What a family is made from."""

    settings: CriticSettings
    head: Network
    outputs: int
    spec: PolicySpec
    size: int  # of the vector that stands for a policy: P, or as many as there are stored probing actions
    states: Float[np.ndarray, "K O"] | None  # where learned probing states start


def _vector(name: str) -> Callable[[Made], Critic]:
    return lambda made: on_vector(name, made.head, made.size)


def _probing(made: Made, raw: bool) -> Critic:
    chosen = made.settings
    start = made.states if chosen.probe_start == "states" else None
    return probing(made.spec, made.head, chosen.probes, start, chosen.probe_generator, raw)


def _unf(made: Made, raw: bool) -> Critic:
    chosen = made.settings
    return unf(made.spec, made.head, chosen.channels, chosen.layers, chosen.fixed, raw, chosen.remat, chosen.dtype)


MAKERS: dict[str, Callable[[Made], Critic]] = {
    "ridge": lambda made: ridge(made.size, made.outputs),
    "ridge-actions": lambda made: ridge(made.size, made.outputs),
    "linear": lambda made: ridge(made.size, made.outputs),
    "statistics": lambda made: statistics(made.spec, made.head),
    "mlp": _vector("mlp"),
    "simba": _vector("simba"),
    "probing": lambda made: _probing(made, False),
    "probing+raw": lambda made: _probing(made, True),
    "stored-probing": _vector("stored-probing"),
    "unf": lambda made: _unf(made, False),
    "unf+raw": lambda made: _unf(made, True),
}


def make_critic(
    name: str,
    settings: CriticSettings,
    spec: PolicySpec,
    outputs: int = 1,
    size: int | None = None,
    states: Float[np.ndarray, "K O"] | None = None,
) -> Critic:
    """The critic of that name for policies of `spec`, with `outputs` numbers a policy.

    `size` is that of the vector that stands for a policy, by default the spec's; `states` are observations at which
    learned probing states start. Raises ConfigError for an unknown name or settings that no critic can have.
    """
    check_one_of("critic", name, CRITICS)
    family = CRITICS[name]
    widths = family.widths if settings.widths is None else settings.widths
    head = network(widths, outputs, settings.zero_last, simba=name == "simba")
    return MAKERS[name](Made(settings, head, outputs, spec, spec.size if size is None else size, states))
