"""What a file does not say about its policy, as a TOML file or the command line states it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from epvf_data import config as configuration
from epvf_data.errors import ConfigError
from epvf_data.untrusted import shown

_OURS = re.compile(r"layer_(\d{1,3})/(kernel|bias)|normaliser/(mean|std|var)")
_ALIASES = {"silu": "swish", "linear": "identity"}
_TABLES = ("tensors",)
FORMATS = ("safetensors", "msgpack", "orbax", "torch", "sb3")
MAX_PATTERNS = 100


@dataclass(frozen=True)
class NormaliserSettings:
    """(observation − mean) / (std + epsilon), clipped to ±clip, or / √(var + epsilon) where `var` is stated."""

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    var: tuple[float, ...] | None = None
    epsilon: float = 0.0
    clip: float | None = None  # None: not clipped
    fold: bool = False  # into the first layer; the policy then needs no normaliser

    def __post_init__(self) -> None:
        configuration.check_range(self, "normaliser.", 0, 1e9, "epsilon")
        configuration.check_range(self, "normaliser.", 0, configuration.MAX_FLOAT, "clip", above=True)


@dataclass(frozen=True)
class Place:
    """Where one of our tensors lies in the file."""

    name: str
    transpose: bool | None = None  # None: where the name ends in `weight`, as PyTorch's [outputs, inputs] do


@dataclass(frozen=True)
class ImportSettings:
    """Everything that makes a policy of a file's tensors; what is None is taken from the file."""

    activation: str | None = None
    output: str | None = None
    hidden: tuple[int, ...] | None = None  # only compared with the tensors
    bias: bool | None = None  # only compared with the tensors
    action_size: int | None = None  # half the last layer's outputs: the other half are a Gaussian's widths
    action_low: tuple[float, ...] | None = None  # the actions that −1 and 1 stand for, where `output` is clip
    action_high: tuple[float, ...] | None = None
    transpose: bool | None = None  # of all matrices
    prefix: str | None = None  # the policy's tensors are those whose names begin so
    head: str | None = None  # the last layer, where it is not numbered like the others: fc_mean
    ignore: tuple[str, ...] = ()  # patterns of names that are not the policy's
    normaliser: NormaliserSettings | None = field(default_factory=NormaliserSettings)

    def __post_init__(self) -> None:
        if len(self.ignore) > MAX_PATTERNS:
            raise ConfigError(f"ignore has {len(self.ignore):,} patterns; at most {MAX_PATTERNS} can be.")


def read_settings(file: str | None, overrides: Sequence[str]) -> dict[str, Any]:
    """The settings of a TOML file with `--set` on top, as a table; ConfigError for unknown ones."""
    table = configuration.merge(configuration.read_toml(file) if file else {}, configuration.parse_overrides(overrides))
    build(table)
    return table


def build(*layers: Mapping[str, Any]) -> tuple[ImportSettings, dict[str, Place]]:
    """(settings, our tensor's name → its place) of some layers, later ones winning. Raises ConfigError."""
    from epvf_data.importing.limits import plain  # imported late, with numpy

    table = configuration.merge(*layers)
    for key in ("activation", "output"):
        if isinstance(name := table.get(key), str):
            table[key] = _ALIASES.get(name.lower(), name.lower())
    rest = {key: value for key, value in table.items() if key not in _TABLES}
    chosen, places = configuration.build(ImportSettings, rest), _places(table.get("tensors", {}))
    chosen = replace(
        chosen,
        ignore=tuple(map(plain, chosen.ignore)),
        **{key: plain(name) for key in ("prefix", "head") if (name := getattr(chosen, key)) is not None},
    )
    return chosen, {ours: replace(place, name=plain(place.name)) for ours, place in places.items()}


def _places(table: Any) -> dict[str, Place]:
    if not isinstance(table, Mapping):
        raise ConfigError(f'tensors is {shown(table)}; it is a table: "layer_0/kernel" = "name in the file".')
    places = {}
    for ours, theirs in table.items():
        if not _OURS.fullmatch(ours):
            raise ConfigError(
                f"tensors names {shown(ours)}; expected layer_0/kernel, layer_0/bias, …, normaliser/mean, /std or /var."
            )
        if isinstance(theirs, str):
            places[ours] = Place(theirs)
        elif isinstance(theirs, Mapping) and "name" in theirs:
            places[ours] = configuration.build(Place, theirs)
        else:
            raise ConfigError(f"tensors.{ours} is {shown(theirs)}; expected a name, or {{name = …, transpose = true}}.")
    return places
