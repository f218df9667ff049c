"""Online runs while they go on: their learning curves in letters, again and again until the runs end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from epvf_data.trainers import rundir
from epvf_data.trainers.curves.chart import MARGIN, MARKS, Line, chart
from epvf_data.trainers.curves.history import Group, Run, grouped, read_run
from epvf_data.trainers.curves.plot import band
from epvf_data.trainers.curves.summary import summarise
from epvf_data.untrusted import printable

QUIET = 60.0  # seconds without a word after which a run that nobody holds has stopped


class View(NamedTuple):
    """How runs stand at this moment."""

    lines: list[str]
    going: bool  # whether one of them is still trained


def look(runs: Sequence[str | Path], width: int = 72, height: int = 14) -> View:
    """The curves of the runs as they are now, in so many letters. Raises RunError for what is no online run."""
    found = [read_run(run, empty=True) for run in runs]
    groups = grouped([run for run in found if run.curves])
    lines, told = [], []
    for number, group in enumerate(groups):
        drawn = band(group.curves, "return_unperturbed", "env_steps")
        if len(groups) == 1:
            other = band(group.curves, "return_perturbed", "env_steps")
            lines.append(Line(".", other.place, other.median))
        lines.append(Line(MARKS[number % len(MARKS)], drawn.place, drawn.median))
        told.append(_told(group, MARKS[number % len(MARKS)]))
    told += [f"  {_name(run)}: nothing logged yet; a run compiles first" for run in found if not run.curves]
    above = ["undiscounted return of the unperturbed policy θ" + (", median over seeds" if _several(groups) else "")]
    above[0] += "; . of its perturbed policies" if len(groups) == 1 else ""
    drawn = chart(lines, max(20, width - MARGIN), height, "env steps of one seed")
    return View([*(above if drawn else []), *drawn, *told], any(map(is_going, found)))


def follow(runs: Sequence[str | Path], every: float, width: int, height: int) -> Iterator[View]:
    """Looks again every so many seconds, until no run is trained any more; the last view is of the end."""
    while True:
        view = look(runs, width, height)
        yield view
        if not view.going:
            return
        time.sleep(every)


def is_going(run: Run) -> bool:
    """Whether somebody trains the run: its file is held or, where there are no locks, written to not long ago."""
    if run.finished:
        return False
    paths = (run.directory / name for name in (rundir.CONFIG, rundir.METRICS))
    last = max(path.stat().st_mtime for path in paths if path.is_file())
    return rundir.is_held(run.directory) or time.time() - last < QUIET


def _told(group: Group, mark: str) -> str:
    found = summarise(group)
    state = (
        "finished" if group.finished else "training" if any(map(is_going, group.runs)) else "stopped; --resume goes on"
    )
    last, best = (_number(found[name]["median"]) for name in ("final_return", "best_return"))
    seeds = f"{len(found['seeds'])} seeds" if len(found["seeds"]) > 1 else "1 seed"
    what = f"{printable(found['algorithm'], 20)} on {printable(found['env'], 40)}, {seeds}"
    return f"{mark} {printable(group.name)} ({what}): {_progress(found)}, return of θ {last}, best {best}; {state}"


def _progress(found: dict) -> str:
    """The iteration, and how much there will be where that is known."""
    budget = found["budget"].get("iterations")
    return f"iteration {found['iterations']:,}" + (f" of {budget:,}" if budget else "")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.2f}"


def _several(groups: list[Group]) -> bool:
    return any(len(group.curves) > 1 for group in groups)


def _name(run: Run) -> str:
    return printable(run.directory)
