"""Configuration: defaults, then TOML files, then `--set a.b=v`, then flags, into a frozen dataclass.

Unknown keys are errors.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import sys
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from epvf_data import untrusted
from epvf_data.errors import ConfigError
from epvf_data.untrusted import printable, shown

T = TypeVar("T")

BACKENDS = ("auto", "mjx", "native")  # that step the physics, see `rollout`
MAX_TEXT = 4096  # characters of a setting, a file's name for example
MAX_LIST = 10_000  # entries of a setting
MAX_LEVELS = 16  # of a dotted name
# What can be asked for at most. More is a slip of the hand, or somebody's trick: no machine has room or time for it.
MAX_WORLDS = 1 << 20  # at once
MAX_POLICIES = 10**9
MAX_EPISODES = 10_000  # a policy
MAX_HORIZON = 10**6  # control steps
MAX_PROBES = 1 << 16
MAX_STEPS = 10**15  # of the environment, in a run
MAX_SEED = 2**31 - 1
MAX_FLOAT = 1e38  # of what becomes a number of 32 bits


class Part:
    """What stands for itself in place of a name that a setting takes: a critic of one's own. Stored is its `name`."""

    name: str

    @classmethod
    def of(cls, given: Any) -> Any:
        """The part that a function passed from Python is, or a name stands for."""
        raise NotImplementedError


def build(cls: type[T], *layers: Mapping[str, Any]) -> T:
    """The dataclass made of its defaults and the layers, later ones winning; nested tables become nested dataclasses.

    Raises ConfigError for an unknown key (with the nearest known one) and for a value of the wrong type.
    """
    return _build(cls, merge(*layers), prefix="")


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """One table of several, later ones winning; tables inside are merged too."""
    merged: dict[str, Any] = {}
    for layer in layers:
        _merge(merged, layer)
    return merged


def nested(dotted: Mapping[str, Any]) -> dict[str, Any]:
    """`{"a.b": 1}` → {"a": {"b": 1}}. Raises ConfigError for a name of many dots."""
    result: dict[str, Any] = {}
    for name, value in dotted.items():
        layer: dict[str, Any] = {}
        node = layer
        *parents, last = name.split(".")
        if len(parents) >= MAX_LEVELS:
            raise ConfigError(f"there is no setting {printable(name)}; it has {len(parents)} dots.")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
        _merge(result, layer)
    return result


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Inverse of `nested`: {"a": {"b": 1}} → {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def read_toml(path: str | Path) -> dict[str, Any]:
    """The tables of a TOML file, or one sentence about what is wrong with it."""
    return untrusted.read_toml(Path(path))


def parse_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    """`["a.b=1", "c=text"]` → {"a": {"b": 1}, "c": "text"}; values are TOML, and plain words are text."""
    result: dict[str, Any] = {}
    for override in overrides:
        path, equals, text = override.partition("=")
        path = path.strip()
        if not equals or not path:
            raise ConfigError(f"got --set {shown(override)}; write it as --set key=value or --set table.key=value.")
        try:
            data, where = f"value = {text}".encode(errors="replace"), f"--set {printable(path)}"
            value = untrusted.parse_toml(data, where)["value"]
        except ConfigError as error:
            if not isinstance(error.__cause__, tomllib.TOMLDecodeError):
                raise
            value = text
        _merge(result, nested({path: value}))
    return result


def check_range(item: object, table: str, least: float, most: float, *names: str, above: bool = False) -> None:
    """Raises ConfigError where one of the settings, or an entry of it, is not in least … most; None always is.

    With `above`, `least` itself is too little, and so is a setting without entries. `table` stands before the names.
    """
    for name in names:
        got = getattr(item, name)
        values = [value for value in (got if isinstance(got, tuple) else (got,)) if value is not None]
        if not all(value > least if above else value >= least for value in values) or (above and got == ()):
            bound = f"{'above' if above else 'at least'} {least:,}"
        elif any(value > most for value in values):
            bound = f"at most {most:,}"
        else:
            continue
        told = shown(list(got) if isinstance(got, tuple) else got)
        raise ConfigError(f"{table}{name} is {told}; it must be {bound}.")


def check_one_of(what: str, got: Any, known: Iterable[str]) -> None:
    """Raises ConfigError, with the nearest known name, for one that is not known."""
    known = list(known)
    if got not in known:
        near = difflib.get_close_matches(shown(got).strip("'"), known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(known)}."
        raise ConfigError(f"there is no {what} {shown(got)}; {hint}")


def to_dict(config: Any) -> dict[str, Any]:
    """The configuration as plain JSON values; `build(cls, to_dict(config))` gives it back."""
    return {
        field.name: value.name
        if isinstance(value, Part)
        else to_dict(value)
        if dataclasses.is_dataclass(value)
        else [one.name if isinstance(one, Part) else one for one in value]
        if isinstance(value, tuple)
        else value
        for field in dataclasses.fields(config)
        for value in [getattr(config, field.name)]
    }


def completed(cls: type, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that an earlier version stored, with the defaults of those that it did not know.

    Raises ConfigError where a table of settings is none.
    """
    if not isinstance(stored, Mapping):
        raise ConfigError(f"there is {shown(stored)} in place of a table of settings.")
    found = dict(stored)
    for field in dataclasses.fields(cls):
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if dataclasses.is_dataclass(default):
            found[field.name] = completed(type(default), found.get(field.name, {}))
        elif default is not dataclasses.MISSING:
            found.setdefault(field.name, list(default) if isinstance(default, tuple) else default)
    return found


def _merge(into: dict[str, Any], layer: Mapping[str, Any]) -> None:
    for key, value in layer.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value


def _build(cls: type[T], values: Mapping[str, Any], prefix: str) -> T:
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    arguments = {}
    for key, value in values.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = (
                f"did you mean {prefix}{near[0]}?"
                if near
                else f"known are {', '.join(prefix + name for name in fields)}."
            )
            raise ConfigError(f"there is no setting {printable(prefix + key)}; {hint}")
        arguments[key] = _convert(hints[key], value, prefix + key)
    return cls(**arguments)


def _convert(hint: Any, value: Any, name: str) -> Any:
    """`value` as the type `hint`, or ConfigError naming what was expected."""
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint) or origin is Mapping:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{name} is {shown(value)}; it is a table of settings: set {name}.something.")
        return value if origin is Mapping else _build(typing.cast(type, hint), value, prefix=f"{name}.")
    if origin in (types.UnionType, typing.Union):
        options = typing.get_args(hint)
        if (value is None or value == "none") and type(None) in options:
            return None
        part = next((one for one in options if isinstance(one, type) and issubclass(one, Part)), None)
        if part is not None and not isinstance(value, str) and (isinstance(value, part) or callable(value)):
            return part.of(value)
        for option in options:
            if option is not type(None):
                return _convert(option, value, name)
    if origin is tuple:
        item = typing.get_args(hint)[0]
        sequence = value if isinstance(value, (list, tuple)) else [value]
        if len(sequence) > MAX_LIST:
            raise ConfigError(f"{name} has {len(sequence):,} entries; it must have at most {MAX_LIST:,}.")
        return tuple(_convert(item, entry, name) for entry in sequence)
    if hint is float and type(value) is int and abs(value) <= sys.float_info.max:
        return float(value)
    infinite = isinstance(value, float) and not math.isfinite(value)
    if infinite or not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
        raise ConfigError(f"{name} is {shown(value)}; expected {_describe(hint)}.")
    if isinstance(value, str) and (len(value) > MAX_TEXT or "\0" in value):
        raise ConfigError(f"{name} is {shown(value)}; expected at most {MAX_TEXT:,} characters, none of them NUL.")
    return value


def _describe(hint: type) -> str:
    return {int: "a whole number", float: "a number (finite)", str: "text", bool: "true or false"}.get(hint, str(hint))
