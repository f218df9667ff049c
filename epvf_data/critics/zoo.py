"""All families of critics in one table, and how one is made from settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from epvf_data.critics.base import Critic
from epvf_data.critics.mlp import Network, network, on_vector
from epvf_data.critics.probing import probing
from epvf_data.critics.ridge import ridge
from epvf_data.critics.settings import CriticSettings, check_one_of
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


@dataclass(frozen=True)
class Family:
    """How a critic is made, one line about it, and what it can do."""

    make: Callable[[Made], Critic]
    about: str
    source: str
    reads: str = "params"  # the column of the store that it reads: "params" or "probe_actions"
    mixed: bool = False  # reads policies of several architectures in one data set
    widths: tuple[int, ...] = (256, 256)  # where the settings give none
    online: bool = True  # can be fitted to an iteration's policies by gradient steps


def _vector(name: str) -> Callable[[Made], Critic]:
    return lambda made: on_vector(name, made.head, made.size)


def _probing(made: Made, raw: bool) -> Critic:
    chosen = made.settings
    start = made.states if chosen.probe_start == "states" else None
    return probing(made.spec, made.head, chosen.probes, start, chosen.probe_generator, raw)


def _unf(made: Made, raw: bool) -> Critic:
    chosen = made.settings
    return unf(made.spec, made.head, chosen.channels, chosen.layers, chosen.fixed, raw, chosen.remat, chosen.dtype)


CRITICS: dict[str, Family] = {
    "ridge": Family(
        lambda made: ridge(made.size, made.outputs), "a plane in closed form: the control", "textbook", online=False
    ),
    "linear": Family(lambda made: ridge(made.size, made.outputs), "the same plane by gradient steps", "textbook"),
    "statistics": Family(
        lambda made: statistics(made.spec, made.head),
        "MLP on mean, deviation and quartiles of every tensor",
        "Unterthiner et al. 2020",
    ),
    "mlp": Family(_vector("mlp"), "MLP on θ: the paper's", "Faccio et al. 2021"),
    "simba": Family(_vector("simba"), "residual blocks with LayerNorm on θ", "Lee et al. 2025", widths=(512, 512)),
    "probing": Family(
        lambda made: _probing(made, False), "MLP on actions in learned states", "Faccio et al. 2022", mixed=True
    ),
    "probing+raw": Family(
        lambda made: _probing(made, True), "the same with θ beside the actions", "Bohlinger & Peters"
    ),
    "stored-probing": Family(
        _vector("stored-probing"),
        "MLP on the stored actions; needs no θ",
        "Harb et al. 2020",
        "probe_actions",
        True,
        online=False,
    ),
    "unf": Family(lambda made: _unf(made, False), "symmetric in hidden units", "Zhou et al. 2024", widths=(256,)),
    "unf+raw": Family(
        lambda made: _unf(made, True), "the same with θ beside it", "Bohlinger & Peters", widths=(256, 256)
    ),
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
    return family.make(Made(settings, head, outputs, spec, spec.size if size is None else size, states))
