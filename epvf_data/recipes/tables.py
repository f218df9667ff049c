"""Recipes as tables: TOML files, those that ship with the package, and the recipes in data sets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from epvf_data import config as configuration
from epvf_data import envs
from epvf_data.critics.settings import check_one_of
from epvf_data.errors import ConfigError
from epvf_data.recipes.settings import KINDS, ArchitectureConfig, RecipeConfig, Source
from epvf_data.store import reader

BUNDLED = Path(__file__).parent / "bundled"


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
            raise ConfigError(f"{table} is {given!r}; give it tables [{table}.NAME].")
        for name, settings in given.items():
            try:
                made[name] = _build_one(table, settings)
            except ConfigError as error:
                raise ConfigError(f"{table}.{name}: {error}") from error
    return configuration.build(RecipeConfig, stated | tables)


def _build_one(table: str, settings: Any) -> ArchitectureConfig | Source:
    if not isinstance(settings, Mapping):
        raise ConfigError(f"got {settings!r}; it is a table of settings.")
    if table == "architectures":
        return configuration.build(ArchitectureConfig, settings)
    kind = settings.get("kind")
    check_one_of("kind of source", kind, KINDS)
    return configuration.build(KINDS[str(kind)], {key: value for key, value in settings.items() if key != "kind"})


def read(name: str, env: str | None = None) -> dict[str, Any]:
    """The tables of a recipe that ships with the package, of a TOML file, or of the recipe that made a data set.

    Of a bundled recipe, the one for `env` is taken where there is one. Raises ConfigError where there is no recipe.
    """
    shipped = {path.stem: path for path in sorted(BUNDLED.glob("*.toml"))}
    for stem in (f"{name}-{env}", name):
        if stem in shipped:
            return configuration.read_toml(shipped[stem])
    if Path(name).is_dir():
        made = [commit.provenance.get("config", {}) for commit in reader.open(name).commits]
        stored = next((config["recipe"] for config in made if isinstance(config.get("recipe"), Mapping)), None)
        if stored is None:
            raise ConfigError(f"the data set {name} was not made with a recipe.")
        if env is None and not envs.ships(str(stored.get("env"))):  # a data set must not load code
            raise ConfigError(
                f"{name} was made with an environment that is none of this package's; name it with --env."
            )
        return dict(stored)
    if Path(name).suffix != ".toml":
        check_one_of("recipe", name, [stem for stem in shipped if "-" not in stem])
    return configuration.read_toml(name)
