"""Variants of other folders' data.json, to be drawn and judged beside a figure's own runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from epvf_data.errors import RunError
from epvf_data.reproduction import runs
from epvf_data.reproduction.figures import Figure, Variant
from epvf_data.reproduction.summary import Measured, printable_texts
from epvf_data.trainers import rundir
from epvf_data.trainers.curves.read import RANK, RETURNS, Curve

DATA = "data.json"
MADE = ("command", "commands", "date", "versions", "hardware")  # with what runs were made
SOURCE = {
    **dict.fromkeys(("command", "date"), str),
    "commands": [str],
    "versions": {str: (str, None)},
    "hardware": {"processor": str, "cores": int, "device": str},
}
_SERIES = {"grid": [float], "iqm": [float], "low": [float], "high": [float], "seeds": [[float]]}
_FINAL = ({**dict.fromkeys(("iqm", "low", "high"), float), "seeds": [float]}, None)
_VARIANT = {
    "status": str,
    "reason": str,
    "envs": (int, None),
    "changes": {str: [object, object]},
    "seeds": [int],
    **dict.fromkeys(("env_steps", "iterations", "seconds", "max_return"), float),
    "versions": {str: (str, None)},
    "curves": {axis: dict.fromkeys(RETURNS, _SERIES) for axis in ("env_steps", "iteration")},
    "final": dict.fromkeys(RETURNS, _FINAL),
}
_DATA = {**SOURCE, "figure": str, "scale": str, "variants": [{"name": str}]}


def read_beside(
    folders: Iterable[Path], about: Figure, scale: str, running: Iterable[Variant], own: Path
) -> tuple[dict[str, Measured], list[dict[str, Any]]]:
    """The variants of the folders' data.json, by name, and with what they were made: a table for each lot of them.

    Left out are variants that are `running` or have a run below `own`; where several folders have one, the first one's
    counts. Curves are means over cells, as data.json holds them. Raises RunError for a folder without results of this
    figure at this scale, and for fig1, which counts single iterations.
    """
    known = {variant.name: variant for variant in about.variants(scale)}
    free = {*known} - {one.name for one in running} - {name for name, v in known.items() if runs.parts(own / v.folder)}
    found: dict[str, Measured] = {}
    sources: list[dict[str, Any]] = []
    for folder in folders:
        data = _read(folder, about, scale)
        lots = data.get("beside", [])  # that folder may have been joined itself
        here = {v["name"]: v for v in data["variants"] if v.get("curves") and v["name"] in free}
        for name, record in here.items():
            if not _right(record):
                raise RunError(f"{folder / DATA} is not what `reproduce` writes: variant {name}.")
            found[name] = _measured(known[name], record)
        free -= {*here}
        rest = {*here}.difference(*(lot["variants"] for lot in lots))
        for lot in ({**data, "variants": rest}, *lots):
            if names := [name for name in here if name in lot["variants"]]:
                sources.append({"variants": names, **{key: lot[key] for key in MADE}})
    return found, sources


def _right(record: Mapping[str, Any]) -> bool:
    """Whether a variant is of the form that is written, its series all as long as their grids."""
    if not rundir.fits(record, _VARIANT) or record["status"] not in ("finished", "unfinished", "failed"):
        return False
    if not all(re.fullmatch(r"[a-z_.]+", name) for name in record["changes"]):
        return False
    series = [one for axis in record["curves"].values() for one in axis.values()]
    if not all(rundir.fits(one, _SERIES) for one in series):
        return False
    rows = ((one["grid"], row) for one in series for row in (one["iqm"], one["low"], one["high"], *one["seeds"]))
    many = {len(record["seeds"]), *(len(one["seeds"]) for one in series)}
    return len(many) == 1 and all(len(grid) == len(row) for grid, row in rows)


def _read(folder: Path, about: Figure, scale: str) -> dict[str, Any]:
    if about.name == "fig1":
        raise RunError("fig1 is judged by single iterations, which data.json does not hold; draw it from its runs.")
    path = folder / DATA
    data = printable_texts(runs.read(path))
    if not data:
        raise RunError(f"{folder} holds no whole {DATA}; name a folder that `epvf-data reproduce {about.name}` wrote.")
    if not rundir.fits(data, _DATA) or not rundir.fits(data.get("beside", []), [{**SOURCE, "variants": [str]}]):
        raise RunError(f"{path} is not what `reproduce` writes.")
    if (data["figure"], data["scale"]) != (about.name, scale):
        what = f"{data['figure'][:80]} at scale {data['scale'][:80]}"
        raise RunError(f"{folder} holds {what}, and what is drawn is {about.name} at scale {scale}.")
    return data


def _measured(variant: Variant, record: Mapping[str, Any]) -> Measured:
    """The variant as if it had been read from its runs, and the record itself, under this version's names."""
    names = {key: getattr(variant, key) for key in ("name", "label", "panel", "kind", "preset")}
    record = {**record, **names}
    return Measured(
        variant=variant,
        status=record["status"],
        reason=record["reason"],
        config={"envs": record["envs"]},
        curves=[_curve(record, place, seed) for place, seed in enumerate(record["seeds"])],
        seconds=record["seconds"],
        versions=record["versions"],
        record=record,
    )


def _curve(record: Mapping[str, Any], place: int, seed: int) -> Curve:
    """A seed's cells, each series on its own grid and NaN on those of the others."""
    table = record["curves"]["env_steps"]
    x = np.concatenate([np.array(one["grid"], np.float64) for one in table.values()])
    columns, start = {key: np.full(len(x), np.nan) for key in (*RETURNS, RANK)}, 0
    order = np.argsort(x, kind="stable")
    for key, one in table.items():
        if key in columns:
            columns[key][start : start + len(one["grid"])] = one["seeds"][place]
        start += len(one["grid"])
    steps = x[order]
    iteration = steps * (record["iterations"] / record["env_steps"] if record["env_steps"] else np.nan)
    found = {key: column[order] for key, column in columns.items()}
    return Curve(seed, iteration, steps, **found, minutes=np.full(len(x), np.nan))
