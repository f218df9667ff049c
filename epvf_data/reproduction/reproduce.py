"""A figure from its runs: run what is missing, then write data.json, figure.png and report.md."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from epvf_data import outputs, pictures, provenance
from epvf_data.errors import RunError
from epvf_data.launch.calls import Runs
from epvf_data.reproduction import runs
from epvf_data.reproduction.beside import DATA, MADE, SOURCE, read_beside
from epvf_data.reproduction.claims import judge
from epvf_data.reproduction.figures import Figure, Variant, check, variants
from epvf_data.reproduction.plan import configure, references
from epvf_data.reproduction.report import write_report
from epvf_data.reproduction.summary import LAST, SOLVED, WINDOW, Measured, measure, printable_texts, summarise
from epvf_data.trainers import rundir
from epvf_data.trainers.curves.statistics import LEVEL, RESAMPLES
from epvf_data.untrusted import printable

PLAN = "plan.json"
IMAGE, REPORT = "figure.png", "report.md"
RESULTS = DATA, IMAGE, REPORT
_PLAN = {**SOURCE, "figure": str, "scale": str, "left_out": {str: str}}


@dataclass(frozen=True)
class Reproduction:
    """Where a figure lies, and what went wrong: one sentence a failed variant."""

    figure: str
    data: str
    image: str
    report: str
    runs: dict[str, str]  # variant → status
    failed: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """The keys of `reproduce --json`."""
        return {key: getattr(self, key) for key in ("figure", "data", "image", "report", "runs")}


def reproduce(
    figure: str,
    scale: str = "smoke",
    out: str | Path | None = None,
    *,
    settings: str = "paper",
    only: Iterable[str] = (),
    seeds: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    redraw: bool = False,
    beside: Iterable[str | Path] = (),
    plot: Path | None = None,
    force: bool = False,
    quiet: bool = True,
    debug: bool = False,
    executor: Runs | None = None,
) -> Reproduction:
    """Runs or resumes the variants of a figure below `out`/runs and writes data.json, figure.png and report.md.

    `settings` says whose hyper-parameters: "paper", "ours" or "both". `only` runs some variants, and all that exist are
    drawn; with `redraw`, which runs nothing, `only` draws some. Variants of the data.json of the folders `beside` are
    drawn and judged with them, and what no folder has is left out then. `seeds` and `overrides` (nested tables) go to
    every run, and with an `executor` each is a call on it. `plot` gets the picture too, as PNG, PDF or SVG. A run that
    fails leaves the others alone and is named in `failed`.

    Raises ConfigError for unknown names and settings, RunError for a directory with runs of other settings and where
    there is nothing to draw, and DatasetError where others made files of the results' names.
    """
    about, only = check(figure, scale, settings), tuple(only)
    every, chosen = (variants(figure, scale, settings, some) for some in ((), only))
    folder = Path(f"{figure}-{scale}" if out is None else out)
    stored = _stored_plan(folder, figure, scale)
    rundir.check_folder(folder / "runs")
    others, sources = read_beside(map(Path, beside), about, scale, () if redraw else chosen, folder / "runs")
    failed, left_out = {}, {}
    if not redraw:
        jobs, left_out = configure(figure, scale, chosen, references(every), overrides or {}, seeds)
        if runs.check_all(jobs, folder / "runs") or not stored:
            folder.mkdir(parents=True, exist_ok=True)
            stored = _plan(figure, scale, stored, left_out)
            rundir.write_json(folder / PLAN, stored)
        failed = runs.run_all(chosen, jobs, folder / "runs", quiet, debug, executor)
    left_out, partly = {**stored.get("left_out", {}), **left_out}, redraw and len(only) > 0
    shown = chosen if partly else _shown(about, scale, every, folder / "runs")
    measured = measure(shown, folder / "runs", failed, left_out)
    if sources:
        partly, both = True, {name: found for name, found in measured.items() if found.curves} | others
        wanted = only if redraw and only else both
        measured = {v.name: both[v.name] for v in about.variants(scale) if v.name in both and v.name in wanted}
    if not any(found.curves for found in measured.values()):
        cure = next(iter(failed.values()), "run it without --draw" if redraw else "let it run longer")
        raise RunError(f"there is nothing to draw in {folder}, because no run has logged a return: {cure}")
    if measured.keys() - others and not stored:
        raise RunError(f"{folder} has lost its {PLAN}, which says how its runs were made; give the command anew.")
    return _publish(folder, _data(about, scale, measured, partly, stored, sources), failed, plot, force)


def _data(
    about: Figure,
    scale: str,
    measured: Mapping[str, Measured],
    partly: bool,
    stored: Mapping[str, Any],
    sources: list[dict[str, Any]],
) -> dict[str, Any]:
    """The values of data.json. Of runs of several folders the first says at the top how they were made."""
    away = {name for source in sources for name in source["variants"]}
    drawn = [source for source in sources if measured.keys() & {*source["variants"]}]
    made, *beside = [*([stored] if measured.keys() - away else []), *drawn]
    return {
        "figure": about.name,
        "scale": scale,
        "title": about.title,
        "paper": about.paper,
        "ordered": about.ordered,
        "solved": SOLVED,
        "statistics": {"level": LEVEL, "resamples": RESAMPLES, "final_share": LAST, "window": WINDOW},
        **{key: made[key] for key in MADE},
        **({"beside": beside} if beside else {}),
        "variants": summarise(about, scale, measured),
        "claims": judge(about.name, scale, measured, partly),
    }


def _stored_plan(folder: Path, figure: str, scale: str) -> dict[str, Any]:
    """The plan of an earlier call, empty where there is none. Raises RunError for one of another figure or form, and
    DatasetError where others made files of the results' names."""
    stored = printable_texts(runs.read(folder / PLAN))
    earlier = stored or printable_texts(runs.read(folder / DATA))
    for found in (stored, earlier):
        if found and (found.get("figure"), found.get("scale")) != (figure, scale):
            what = f"{printable(found.get('figure'))} at scale {printable(found.get('scale'))}"
            raise RunError(f"{folder} holds {what}; choose another --out.")
    if stored and not rundir.fits(stored, _PLAN):
        raise RunError(f"{folder / PLAN} is not what `reproduce` leaves; choose another --out.")
    if not earlier:  # nothing of ours: its files are the user's
        for name in RESULTS:
            outputs.check_free(folder / name)
    return stored


def _shown(about: Figure, scale: str, every: list[Variant], folder: Path) -> list[Variant]:
    """The variants asked for, and those of other settings that were run before."""
    table = about.variants(scale)
    there = [variant for variant in table if runs.parts(folder / variant.folder)]
    panels = {variant.panel for variant in (*every, *there) if variant in every or variant.kind == "epvf"}
    return [variant for variant in table if variant in every or (variant in there and variant.panel in panels)]


def _plan(figure: str, scale: str, before: Mapping[str, Any], left_out: Mapping[str, str]) -> dict[str, Any]:
    """With what the runs are made, for the record: --draw may happen elsewhere."""
    command = shlex.join(provenance.provenance()["command"])
    return {
        "figure": figure,
        "scale": scale,
        "command": command,
        "commands": [*(other for other in before.get("commands", []) if other != command), command],
        "left_out": {**before.get("left_out", {}), **left_out},
        "date": provenance.now(),
        "versions": provenance.versions(),
        "hardware": {
            "processor": provenance.processor(),
            "cores": provenance.cores(),
            "device": jax.devices()[0].device_kind,
        },
    }


def _publish(
    folder: Path, data: dict[str, Any], failed: dict[str, str], plot: Path | None, force: bool
) -> Reproduction:
    """Writes the three files, each whole or not at all."""
    from epvf_data.reproduction.draw import draw

    image = folder / IMAGE
    rundir.publish(folder / DATA, lambda path: path.write_text(_compact(data), "utf-8"))
    figure = draw(data)
    pictures.save(figure, image, force=True)
    if plot is not None:
        pictures.save(figure, plot, force=force)
    rundir.publish(folder / REPORT, lambda path: path.write_text(write_report(data, image.name), "utf-8"))
    return Reproduction(
        figure=data["figure"],
        data=str(folder / DATA),
        image=str(image),
        report=str(folder / REPORT),
        runs={variant["name"]: variant["status"] for variant in data["variants"]},
        failed=failed,
    )


def _compact(data: Mapping[str, Any]) -> str:
    """JSON with every list of numbers on one line, so that a difference of two files can be read."""
    text = json.dumps(data, indent=1, allow_nan=False)
    return re.sub(r"\[[-+\d.,\seEnul]*\]", lambda found: " ".join(found[0].split()), text) + "\n"
