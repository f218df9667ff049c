"""What the runs of a figure measured: records to judge claims with, and the values of data.json."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from epvf_data import envs, untrusted
from epvf_data.config import flatten, to_dict
from epvf_data.errors import DatasetError, RunError
from epvf_data.reproduction import runs
from epvf_data.reproduction.figures import Figure, Variant
from epvf_data.reproduction.plan import configure, references
from epvf_data.trainers import rundir
from epvf_data.trainers.curves.read import (
    AXES,
    RANK,
    RETURNS,
    Curve,
    align,
    first_pass,
    mean_between,
    read_curves,
    shared_range,
)
from epvf_data.trainers.curves.statistics import Estimate, Statistic, estimate, iqm, median

LAST = 0.1  # share of the environment steps whose mean return counts as the final return
SOLVED = 475.0  # CartPole's threshold
WINDOW = 50  # iterations over which a return is smoothed before it is held against the threshold


@dataclass(frozen=True)
class Measured:
    """One variant with the curves of its seeds, and why it has none or is not finished."""

    variant: Variant
    status: str  # "finished", "unfinished", "failed", "left out" or "missing"
    reason: str
    config: dict[str, Any]  # dotted keys
    curves: list[Curve]
    seconds: float
    versions: dict[str, Any]
    record: dict[str, Any] | None = None  # of a data.json that it was read from

    @property
    def steps(self) -> float:
        """Environment steps that every seed has reached; 0 without curves."""
        return (shared_range(self.curves, "return_perturbed") or (0.0, 0.0))[1]

    @property
    def max_return(self) -> float:
        """The return that no policy exceeds: 1 a step in both environments."""
        if self.record:
            return float(self.record["max_return"])
        name = self.config["env"]
        if not envs.ships(name):  # a run's file must not load code
            raise RunError(f"the run is of {untrusted.shown(name)}, which is none of this package's environments.")
        return float(self.config.get("horizon") or envs.make(name).horizon)

    def final(self, key: str = "return_perturbed", steps: float | None = None, share: float = LAST) -> np.ndarray:
        """Each seed's mean over the last `share` of the steps before `steps` environment steps (None: its end)."""
        found = shared_range(self.curves, key)
        if found is None:
            return np.zeros(0)
        end = found[1] if steps is None else min(steps, found[1])
        return mean_between(self.curves, key, max(found[0], (1 - share) * end), end)

    def passes(self) -> tuple[np.ndarray, np.ndarray]:
        """Each seed's first iteration, and environment steps, at which the smoothed perturbed return is at SOLVED."""
        found = [first_pass(curve, "return_perturbed", SOLVED, WINDOW) for curve in self.curves]
        pairs = np.array(found, np.float64).reshape(-1, 2)
        return pairs[:, 0], pairs[:, 1]


def measure(
    chosen: list[Variant],
    folder: Path,
    failed: Mapping[str, str] | None = None,
    left_out: Mapping[str, str] | None = None,
) -> dict[str, Measured]:
    """Reads the run directory of every variant, by name, in the order of the table."""
    return {variant.name: _measure(variant, folder, failed or {}, left_out or {}) for variant in chosen}


def _measure(variant: Variant, folder: Path, failed: Mapping[str, str], left_out: Mapping[str, str]) -> Measured:
    directory = folder / variant.folder
    state, reason = runs.status(directory), ""
    note = directory.with_name(f"{variant.folder}.failed.txt")
    if state != "finished" and (variant.name in failed or os.path.lexists(note)):
        reason = failed.get(variant.name) or _last_line(note)
        state = "failed"
    elif state == "missing" and variant.name in left_out:
        state, reason = "left out", left_out[variant.name]
    parts = runs.parts(directory)
    configs = [runs.stored_config(part, _settings(variant)) for part in parts]
    versions = runs.read(parts[0] / "versions.json") if parts else {}
    return Measured(
        variant=variant,
        status=state,
        reason=reason,
        config=configs[0] if configs else {},
        curves=[
            curve for part, config in zip(parts, configs, strict=True) for curve in read_curves(part, _seeds(config))
        ],
        seconds=sum(map(_seconds, parts)),
        versions=printable_texts(versions) if rundir.fits(versions, {str: (str, None)}) else {},
    )


def _settings(variant: Variant) -> type:
    """The dataclass of a variant's settings."""
    if variant.kind == "baseline":
        from epvf_data.baselines.settings import BaselineConfig

        return BaselineConfig
    from epvf_data.trainers.online.settings import OnlineConfig

    return OnlineConfig


def _seeds(config: Mapping[str, Any]) -> range:
    """The seeds that a run of these settings logs."""
    return range(config["seed"], config["seed"] + config.get("seeds", 1)) if config else range(0)


def _last_line(note: Path) -> str:
    """What the traceback of a failure ends with."""
    try:
        text = untrusted.read_bytes(note, what="folder of runs").decode(errors="replace")
    except DatasetError as error:
        raise RunError(str(error)) from error
    return untrusted.printable((text.strip().splitlines() or ["no message"])[-1], 500)


def printable_texts(value: Any) -> Any:
    """A JSON value whose texts fit into a report, whoever wrote them."""
    if isinstance(value, dict):
        return {untrusted.printable(key): printable_texts(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [printable_texts(inner) for inner in value]
    return untrusted.printable(value, 4000) if isinstance(value, str) else value


def summarise(about: Figure, scale: str, measured: Mapping[str, Measured]) -> list[dict[str, Any]]:
    """The `variants` of data.json. Changes are from the first variant of a panel, as it ran, else as it would run."""
    first: dict[str, Mapping[str, Any]] = {}
    for panel, variant in references(about.variants(scale)).items():
        found = measured.get(variant.name)
        if found and found.config and not found.record:
            first[panel] = found.config
        else:
            jobs = configure(about.name, scale, [variant], {panel: variant}, {})[0]
            first[panel] = flatten(to_dict(jobs[variant.name][0].config))
    return [_variant(about.name, found, first[found.variant.panel]) for found in measured.values()]


def _variant(figure: str, found: Measured, reference: Mapping[str, Any]) -> dict[str, Any]:
    if found.record:
        return found.record
    variant = found.variant
    both = {*reference, *found.config} - {"seed", "seeds"} if found.config and variant.kind != "baseline" else set()
    if variant.kind == "control":  # which has no critic
        both = {key for key in both if not key.startswith("critic.")}
    record: dict[str, Any] = {
        **{key: getattr(variant, key) for key in ("name", "label", "panel", "kind", "preset")},
        "envs": found.config.get("envs"),
        "status": found.status,
        "reason": found.reason,
        "changes": {
            key: [reference.get(key), found.config.get(key)]
            for key in sorted(both)
            if reference.get(key) != found.config.get(key)
        },
        "seeds": [curve.seed for curve in found.curves],
        "env_steps": found.steps,
        "iterations": max((curve.iteration[-1] for curve in found.curves), default=0.0),
        "seconds": found.seconds,
        "versions": found.versions,
    }
    if not found.curves:
        return record
    record["max_return"] = found.max_return
    record["curves"] = {axis: _curves(found.curves, axis) for axis in AXES}
    record["final"] = {key: _estimate(found.final(key)) for key in RETURNS}
    if figure == "fig1":
        iterations, steps = found.passes()
        record["first_pass"] = {"iteration": _estimate(iterations, median), "env_steps": _estimate(steps, median)}
    return record


def _curves(curves: list[Curve], axis: str) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for key in (*RETURNS, RANK):
        grid, values = align(curves, key, axis)
        if key == RANK and not len(grid):
            continue
        band = estimate(values)
        table[key] = {"grid": _plain(grid), **_band(band, "iqm"), "seeds": [_plain(row) for row in values]}
    return table


def _estimate(values: np.ndarray, statistic: Statistic = iqm) -> dict[str, Any] | None:
    if not len(values):
        return None
    name = "median" if statistic is median else "iqm"
    return {**_band(estimate(values, statistic), name), "seeds": _plain(values)}


def _band(band: Estimate, name: str) -> dict[str, Any]:
    return {name: _plain(band.value), "low": _plain(band.low), "high": _plain(band.high)}


def _plain(values: Any) -> Any:
    """Numbers of six digits; what is not finite (never reached) is null."""
    if np.ndim(values):
        return [_plain(value) for value in values]
    number = float(values)
    return float(f"{number:.6g}") if math.isfinite(number) else None


def _seconds(directory: Path) -> float:
    """Wall time of a run by its report; of an unfinished one, by what it logged."""
    report = runs.read(directory / "report.json")
    if rundir.fits(report, {"seconds": float}):
        return float(report["seconds"])
    lines = (line["seconds"] for line in rundir.read_lines(directory) if rundir.fits(line, {"seconds": float}))
    return float(max(lines, default=0.0))
