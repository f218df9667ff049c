"""From a variant to the configuration of its run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from epvf_data.config import flatten, to_dict
from epvf_data.errors import ConfigError
from epvf_data.reproduction.figures import (
    FIGURES,
    SEEDS,
    SMOKE,
    SMOKE_BASELINES,
    SMOKE_TIME,
    Envs,
    Times,
    Variant,
    Whole,
)

# What a control takes over from the panel's reference: both spend the same on the same task. Its population is its own.
SHARED = (
    *("env", "horizon", "episodes", "iterations", "env_steps"),
    *("seed", "seeds", "backend", "evaluation_episodes", "policy.hidden"),
)


class Job(NamedTuple):
    """One call of a trainer: the run directory below the folder of runs, and its configuration."""

    path: str
    config: Any


def configure(
    figure: str,
    scale: str,
    chosen: list[Variant],
    reference: Mapping[str, Variant],
    overrides: Mapping[str, Any],
    seeds: int | None = None,
) -> tuple[dict[str, list[Job]], dict[str, str]]:
    """The jobs of the chosen variants by name, and why optional ones are left out.

    A variant's own changes win over `overrides` (nested tables, as `--set` gives them), and these over the preset:
    otherwise an override would make two lines of a figure the same. `reference` holds the first variant of each panel.
    Raises ConfigError for settings that no run can have.
    """
    from epvf_data.trainers.online.settings import online_config

    env = FIGURES[figure].env
    small = (SMOKE_TIME if figure == "time" else SMOKE[env]) if scale == "smoke" else {}
    base = {"seeds": SEEDS[env][scale] if seeds is None else seeds, **small}
    base |= flatten(overrides)
    references = {panel: online_config(first.preset, **base) for panel, first in reference.items()}
    jobs: dict[str, list[Job]] = {}
    left_out: dict[str, str] = {}
    for variant in chosen:
        try:
            jobs[variant.name] = _configure(variant, base, flatten(to_dict(references[variant.panel])), scale)
        except (ConfigError, ImportError) as error:
            if not variant.optional:
                raise
            left_out[variant.name] = str(error)
    return jobs, left_out


def _configure(variant: Variant, base: Mapping[str, Any], reference: Mapping[str, Any], scale: str) -> list[Job]:
    from epvf_data.trainers.online.settings import online_config

    if variant.kind == "baseline":
        return _baseline(variant, reference, scale)
    before = {key: reference[key] for key in SHARED} if variant.kind == "control" else base
    changes = {
        key: _multiple(value.factor, reference[key]) if isinstance(value, Times) else value
        for key, value in variant.changes.items()
    }
    envs = changes.get("envs", reference["envs"])
    changes = {key: value.times * envs if isinstance(value, Envs) else value for key, value in changes.items()}
    changes = {key: _episode(reference) if isinstance(value, Whole) else value for key, value in changes.items()}
    if variant.apart:
        return [
            Job(
                f"{variant.folder}/seed-{seed}",
                online_config(variant.preset, **{**before, **changes, "seed": seed, "seeds": 1}),
            )
            for seed in _seeds(reference)
        ]
    return [Job(variant.folder, online_config(variant.preset, **{**before, **changes}))]


def _episode(reference: Mapping[str, Any]) -> int:
    """Control steps of a whole episode."""
    from epvf_data import envs

    return reference["horizon"] or envs.make(reference["env"]).horizon


def _multiple(factor: float, value: Any) -> Any:
    """Of a number, of its type; what is not set stays so."""
    return value if value is None else type(value)(factor * value)


def _baseline(variant: Variant, reference: Mapping[str, Any], scale: str) -> list[Job]:
    """One job a seed, on the same task and with the same environment steps."""
    from epvf_data.baselines import library
    from epvf_data.baselines.settings import baseline_config

    library.load("training")  # ConfigError where it is not installed
    shared = {key: reference[key] for key in ("env", "horizon", "env_steps")}
    shared |= SMOKE_BASELINES if scale == "smoke" else {}
    return [
        Job(f"{variant.folder}/seed-{seed}", baseline_config(variant.preset, **shared, seed=seed))
        for seed in _seeds(reference)[: 1 if scale == "smoke" else None]  # compiling takes minutes
    ]


def _seeds(reference: Mapping[str, Any]) -> range:
    return range(reference["seed"], reference["seed"] + reference["seeds"])


def references(every: list[Variant]) -> dict[str, Variant]:
    """The first variant of each panel."""
    found: dict[str, Variant] = {}
    for variant in every:
        found.setdefault(variant.panel, variant)
    return found
