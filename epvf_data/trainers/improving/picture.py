"""The picture of an improvement: promised against realised, and what critics say along the climb."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from epvf_data.pictures import COLOURS, blank
from epvf_data.trainers.improving.report import Improvement, Tried
from epvf_data.untrusted import picture_text


def draw(found: Improvement) -> Figure:
    """One panel for each of the two that there is something to show of."""
    panels = [_realised] * any(one.screened for one in found.candidates) + [_climb] * bool(found.looks)
    figure = blank(5.6 * max(1, len(panels)), 4.8)
    figure.suptitle(f"{found.method} on {picture_text(found.source, 80)}, {found.env}", fontsize=11)
    for axes, panel in zip(np.atleast_1d(figure.subplots(1, max(1, len(panels)))), panels, strict=False):
        panel(axes, found)
    return figure


def _realised(axes: Axes, found: Improvement) -> None:
    """Screened returns of proposals against what was promised, or in order where nothing was."""
    promised = all(one.promised is not None for one in found.candidates)
    place = [one.promised if promised else number + 1 for number, one in enumerate(found.candidates)]
    _bars(axes, place, found.candidates, COLOURS[0], "a proposal")
    _bars(axes, place, found.random, "grey", "a random step of its length")
    for value, style, name in _lines(found):
        axes.axhline(value, color="black", linewidth=1, linestyle=style, label=name)
    axes.set_xlabel("return promised by the critics that were climbed" if promised else "proposal")
    axes.set_ylabel("return in real episodes, ± standard error")
    axes.set_title("promised and realised", fontsize=10)
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, frameon=False)


def _lines(found: Improvement) -> list[tuple[float, str, str]]:
    if found.final is None:
        return []
    row, best = found.final.best_row.mean, found.final.improved.mean
    return [(row, ":", f"best row, fresh episodes: {row:.1f}"), (best, "--", f"best proposal, fresh: {best:.1f}")]


def _bars(axes: Axes, place: list, tried: list[Tried], colour: str, name: str) -> None:
    means = [np.nan if one.screened is None else one.screened.mean for one in tried]
    errors = [0.0 if one.screened is None else one.screened.standard_error or 0.0 for one in tried]
    axes.errorbar(place[: len(means)], means, errors, fmt="o", ms=3, linewidth=0.8, color=colour, label=name)


def _climb(axes: Axes, found: Improvement) -> None:
    steps = [one.steps for one in found.looks]
    axes.plot(steps, [one.promised for one in found.looks], "o-", ms=3, color=COLOURS[1], label="critics climbed")
    axes.plot(
        steps, [one.judged for one in found.looks], "s-", ms=3, color=COLOURS[0], label="other critics, less deviation"
    )
    real = sorted((one.steps, one.screened.mean) for one in found.candidates if one.screened and one.steps is not None)
    if real:
        places = sorted({place for place, _ in real})
        means = [np.mean([mean for place, mean in real if place == one]) for one in places]
        axes.plot(places, means, "*-", ms=11, color=COLOURS[2], label="realised, mean of proposals")
    if found.stop is not None:
        axes.axvline(found.stop, color="black", linewidth=0.8, linestyle=":", label="critics are believed up to here")
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xticks(steps, [str(step) for step in steps])
    axes.set_xlim(-0.15, 1.15 * steps[-1])
    axes.minorticks_off()
    axes.set_xlabel("steps (0: where the climb starts; log scale above 1)")
    axes.set_ylabel("return, mean of candidates")
    axes.set_title("along the climb", fontsize=10)
    axes.legend(fontsize=8, frameon=False)
