"""Recipes as tables: TOML files, those that ship with the package, and the recipes in data sets."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from epvf_data import code
from epvf_data import config as configuration
from epvf_data.baselines.settings import PRESETS
from epvf_data.config import check_one_of
from epvf_data.errors import ConfigError
from epvf_data.recipes.settings import KINDS, ArchitectureConfig, RecipeConfig, Source, check_names
from epvf_data.store import reader
from epvf_data.trainers.online.settings import presets
from epvf_data.untrusted import WHOLE, printable, shown

NONE = [None, "none"]  # as settings say it
BUNDLED = Path(__file__).parent / "bundled"


def shipped() -> list[str]:
    """Names of the recipes that ship with the package; some have a variant NAME-ENV."""
    return [path.stem for path in sorted(BUNDLED.glob("*.toml")) if "-" not in path.stem]


def to_dict(config: RecipeConfig) -> dict[str, Any]:
    """The recipe as plain JSON values, which `build` reads back."""
    kinds = {cls: kind for kind, cls in KINDS.items()}
    plain = {one.name: getattr(config, one.name) for one in dataclasses.fields(config)}
    plain["architectures"] = {name: configuration.to_dict(one) for name, one in config.architectures.items()}
    plain["sources"] = {
        name: {"kind": kinds[type(one)], **configuration.to_dict(one)} for name, one in config.sources.items()
    }
    return plain


def build(*layers: Mapping[str, Any]) -> RecipeConfig:
    """A recipe of tables, later ones winning. Raises ConfigError for what is unknown, with the nearest known name."""
    stated = configuration.merge(*layers)
    tables: dict[str, dict[str, Any]] = {"architectures": {}, "sources": {}}
    for table, made in tables.items():
        if not isinstance(given := stated.get(table, {}), Mapping):
            raise ConfigError(f"{table} is {shown(given)}; give it tables [{table}.NAME].")
        check_names(table, given)
        for name, settings in given.items():
            try:
                made[name] = _build_one(table, settings)
            except ConfigError as error:
                raise ConfigError(f"{table}.{name}: {error}") from error
    return configuration.build(RecipeConfig, stated | tables)


def _build_one(table: str, settings: Any) -> ArchitectureConfig | Source:
    if not isinstance(settings, Mapping):
        raise ConfigError(f"got {shown(settings)}; it is a table of settings.")
    if table == "architectures":
        return configuration.build(ArchitectureConfig, settings)
    kind = settings.get("kind")
    check_one_of("kind of source", kind, KINDS)
    return configuration.build(KINDS[str(kind)], {key: value for key, value in settings.items() if key != "kind"})


def read(name: str, env: str | None = None, typed: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The tables of a recipe that ships with the package, of a TOML file, or of the recipe that made a data set.

    Of a bundled recipe, the one for `env` is taken where there is one; `env` takes the place of the recipe's own.
    `typed` are the settings that the user states on top, for `build`. Raises ConfigError where there is no recipe,
    where it names code, or where that of a data set names files, unless `typed` states that setting anew.
    """
    typed = dict(typed or {}) | ({} if env is None else {"env": env})
    bundled = {path.stem: path for path in BUNDLED.glob("*.toml")}
    found = next((bundled[stem] for stem in (f"{name}-{env}", name) if stem in bundled), None)
    if found is not None:
        stated = configuration.read_toml(found)
    elif os.path.isdir(name):  # noqa: PTH112 (no name is too long for it)
        stated = _stored(name)
        _check_files(stated, typed, name)
    else:
        if Path(name).suffix != ".toml":
            check_one_of("recipe", name, shipped())
        stated = configuration.read_toml(name)
    code.check_stated(stated, typed, name)
    return stated if env is None else stated | {"env": env}


def _stored(name: str) -> dict[str, Any]:
    """The recipe in the first commit of a data set that has one."""
    for commit in reader.open(name).commits:
        config = commit.provenance.get("config")
        if isinstance(config, Mapping) and isinstance(config.get("recipe"), Mapping):
            return dict(config["recipe"])
    raise ConfigError(f"the data set {name} was not made with a recipe.")


def _check_files(stated: Mapping[str, Any], typed: Mapping[str, Any], where: str) -> None:
    """Raises ConfigError where the recipe of a data set names a file: what a stranger wrote reads nothing here.

    `bases` and `preset` may name what ships with the package; `like` and a run's `start` are files always.
    """
    for name, value in code.untyped(stated, typed).items():
        setting, values = name.rpartition(".")[2], value if isinstance(value, list) else [value]
        ours = {"bases": ["bundled"], "preset": [*presets(), *PRESETS], "like": NONE, "start": NONE}.get(setting)
        if ours is not None and any(one not in ours for one in values):
            raise ConfigError(
                f"the recipe in {where} says {printable(name)} = {shown(value)}, and a data set may name no file of "
                f"yours; state it anew with --set {printable(name, WHOLE)}=…."
            )
