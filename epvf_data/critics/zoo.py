"""How the critic of a family is made from settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Float

from epvf_data import code
from epvf_data.critics.base import Critic, Row
from epvf_data.critics.families import Family, family_of
from epvf_data.critics.mlp import Network, network, on_vector
from epvf_data.critics.probing import probing
from epvf_data.critics.ridge import ridge
from epvf_data.critics.settings import CriticSettings
from epvf_data.critics.statistics import statistics
from epvf_data.critics.unf import unf
from epvf_data.errors import ConfigError
from epvf_data.policies import acting
from epvf_data.policies.kinds import Spec, mlp_of
from epvf_data.policies.spec import PolicySpec


@dataclass(frozen=True)
class Made:
    """What a family is made from."""

    settings: CriticSettings
    head: Network
    outputs: int
    spec: Spec
    size: int  # of the vector that stands for a policy: P, or as many as there are stored probing actions
    states: Float[np.ndarray, "K O"] | None  # where learned probing states start


def _vector(name: str) -> Callable[[Made], Critic]:
    return lambda made: on_vector(name, made.head, made.size)


def _probing(made: Made, raw: bool) -> Critic:
    acting.check(made.spec)
    chosen = made.settings
    start = made.states if chosen.probe_start == "states" else None
    return probing(made.spec, made.head, chosen.probes, start, chosen.probe_generator, raw)


def _layers(made: Made, name: str) -> PolicySpec:
    """The policies' layers. Raises ConfigError where they have none."""
    return mlp_of(made.spec, f"critic {name}", "take mlp or ridge, which read θ as it is, or ridge-actions")


def _unf(made: Made, raw: bool) -> Critic:
    chosen = made.settings
    spec = _layers(made, "unf")
    return unf(spec, made.head, chosen.channels, chosen.layers, chosen.fixed, raw, chosen.remat, chosen.dtype)


MAKERS: dict[str, Callable[[Made], Critic]] = {
    "ridge": lambda made: ridge(made.size, made.outputs),
    "ridge-actions": lambda made: ridge(made.size, made.outputs),
    "linear": lambda made: ridge(made.size, made.outputs),
    "statistics": lambda made: statistics(_layers(made, "statistics"), made.head),
    "mlp": _vector("mlp"),
    "simba": _vector("simba"),
    "probing": lambda made: _probing(made, False),
    "probing+raw": lambda made: _probing(made, True),
    "stored-probing": _vector("stored-probing"),
    "unf": lambda made: _unf(made, False),
    "unf+raw": lambda made: _unf(made, True),
}


def make_critic(
    name: str | Family,
    settings: CriticSettings,
    spec: Spec,
    outputs: int = 1,
    size: int | None = None,
    states: Float[np.ndarray, "K O"] | None = None,
) -> Critic:
    """The critic of that name, or of a family of the user's, for policies of `spec`, with `outputs` numbers a policy.

    `size` is that of the vector that stands for a policy, by default the spec's; `states` are observations at which
    learned probing states start. Raises ConfigError for an unknown name, settings that no critic can have, and a family
    that gives no critic.
    """
    family = family_of(name)
    widths = family.widths if settings.widths is None else settings.widths
    head = network(widths, outputs, settings.zero_last, simba=name == "simba")
    made = Made(settings, head, outputs, spec, spec.size if size is None else size, states)
    if isinstance(name, str):
        return MAKERS[name](made)
    return _own(name, made)


def _own(family: Family, made: Made) -> Critic:
    """The critic of a family of the user's, traced once: what cannot be fitted is told here in a sentence."""
    assert family.make is not None
    with code.blamed(family.name, "critic"):
        critic = family.make(made)
    if not isinstance(critic, Critic):
        raise ConfigError(f"{family.name} gives {type(critic).__name__}; expected an epvf_data.Critic.")
    vector = jax.ShapeDtypeStruct((made.size,), np.float32)
    row = Row(vector, vector, made.spec if family.reads == "params" else None)  # pyright: ignore[reportArgumentType]
    with code.blamed(family.name, "critic"):
        found = jax.eval_shape(lambda key, row: critic.apply(critic.init(key), row), jax.random.key(0), row)
    shape, kind = getattr(found, "shape", None), getattr(found, "dtype", None)
    if (shape, kind) != ((made.outputs,), np.float32):
        raise ConfigError(
            f"{family.name} gives {'no array' if shape is None else f'{kind} of the shape {list(shape)}'} for a "
            f"policy; expected float32 of the shape [{made.outputs}]: made.outputs numbers."
        )
    return critic
