"""The picture of a run: predicted against true return of the policies that the critic never saw."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from epvf_data.pictures import COLOURS, blank, plain_ticks
from epvf_data.untrusted import picture_text

TITLES = {
    "iid": "{} held-out policies",
    "lineage": "{} policies of held-out families",
    "high": "the {} policies of highest return",
    "source": "{} policies of a held-out source",
    "architecture": "{} policies of a held-out architecture",
}
COLUMNS = 3  # panels side by side: a page is no wider
SKEWED = 8.0  # times the median: beyond that the best return squeezes the rest into a corner of linear axes
SPAN = 1e4  # from the least return to the best: beyond that logarithmic axes show little but returns near 0
MOST_SOURCES = 12  # in the legend; the rest is one group
MANY = 3000  # points of one colour; beyond it single points hide how many there are


class Panel(NamedTuple):
    """One split's test rows and what to write above them."""

    split: str
    true: Float[np.ndarray, "n"]
    predicted: Float[np.ndarray, "n"]
    sources: list[str]  # one name a row
    spearman: float
    r2: float
    families: int  # of the test rows
    seeds: int
    ridge_spearman: float | None  # None where no ridge is a control
    ridge_reads: str = "θ"  # or actions


def draw(panels: list[Panel], heading: str) -> Figure:
    """One panel a split: identity line, points coloured by source or, where there are many, density."""
    columns = 2 if len(panels) == 4 else min(COLUMNS, max(1, len(panels)))
    rows = max(1, -(-len(panels) // columns))
    figure = blank(5.0 * columns, 4.9 * rows + 0.6)
    figure.suptitle(picture_text(heading, 200), fontsize=11 if columns > 1 else 9, wrap=True)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, panel in itertools.zip_longest(grid, panels):
        if panel is None:
            axes.axis("off")
            continue
        least, best = panel.true.min(), panel.true.max()
        logarithmic = 0 < best / SPAN < least and best > SKEWED * np.median(panel.true)
        shown = _frame(axes, panel, logarithmic)
        _points(figure, axes, panel._replace(predicted=np.clip(panel.predicted, *shown)))
        _mark_outliers(axes, panel, *shown)
        if logarithmic:
            plain_ticks(axes.xaxis)
            plain_ticks(axes.yaxis)
        axes.legend(
            fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3, markerscale=1.5, frameon=False
        )
        scale = ", log scale" if logarithmic else ""
        axes.set_xlabel(f"true return{scale}")
        axes.set_ylabel("predicted return" + (" (median seed)" if panel.seeds > 1 else "") + scale)
        ridge = "" if panel.ridge_spearman is None else f" (ridge on {panel.ridge_reads} {panel.ridge_spearman:.2f})"
        mean_of = f", means of {panel.seeds} seeds" if panel.seeds > 1 else ""
        families = f"{panel.families:,} {'family' if panel.families == 1 else 'families'}"
        axes.set_title(
            f"{panel.split}: {TITLES[panel.split].format(f'{len(panel.true):,}')}, {families}\n"
            f"Spearman {panel.spearman:.2f}{ridge}, R² {panel.r2:.2f}{mean_of}",
            fontsize=9.5,
        )
    return figure


def _points(figure: Figure, axes: Axes, panel: Panel) -> None:
    short = {name: picture_text(name, 30) for name in set(panel.sources)}
    names, source, counts = np.unique([short[name] for name in panel.sources], return_inverse=True, return_counts=True)
    if counts.max() > MANY:
        limits, scale = (axes.get_xlim(), axes.get_ylim()), axes.get_xscale()
        style: dict[str, Any] = {"gridsize": 60, "norm": LogNorm(), "cmap": "viridis", "xscale": scale, "yscale": scale}
        mesh = axes.hexbin(panel.true, panel.predicted, mincnt=1, **style)
        axes.set(xlim=limits[0], ylim=limits[1])
        figure.colorbar(mesh, ax=axes, label="policies in a cell", shrink=0.8)
        return
    size = float(np.clip(3000 / len(panel.true), 4, 24))
    order = np.argsort(-counts)  # rare sources last, on top
    groups = [(str(names[index]), source == index) for index in order[:MOST_SOURCES]]
    if len(rest := order[MOST_SOURCES:]):
        groups.append((f"{len(rest)} others", np.isin(source, rest)))
    for place, (name, rows) in enumerate(groups):
        axes.scatter(
            panel.true[rows],
            panel.predicted[rows],
            s=size,
            alpha=0.55,
            linewidths=0,
            color=COLOURS[place % len(COLOURS)],
            label=f"{name} ({rows.sum():,})",
        )


def _frame(axes: Axes, panel: Panel, logarithmic: bool) -> tuple[float, float]:
    """Limits from the true returns and most predictions, and the identity line. Gives the predictions' limits."""
    low, high = float(panel.true.min()), float(panel.true.max())
    least, most = np.percentile(panel.predicted, [5, 95]).tolist()
    if logarithmic:
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(low / 1.15, high * 1.15)
        axes.set_ylim(low / 1.15, max(high, min(most, 10 * high)) * 1.15)
    else:
        reach = high - low or 1.0  # what a wild critic predicts is marked at the edge
        axes.set_xlim(_widened(low, high))
        axes.set_ylim(_widened(max(min(low, least), low - reach), min(max(high, most), high + reach)))
    ends = axes.get_xlim()
    axes.plot(ends, ends, color="black", linewidth=1, linestyle="--", zorder=3, label="predicted = true", scaley=False)
    axes.grid(alpha=0.2)
    return axes.get_ylim()


def _widened(low: float, high: float) -> tuple[float, float]:
    margin = 0.04 * (high - low) or 1.0
    return low - margin, high + margin


def _mark_outliers(axes: Axes, panel: Panel, low: float, high: float) -> None:
    """Triangles at the edge for predictions beyond it, and how many there are."""
    for beyond, place, marker, word in (
        (panel.predicted < low, low, "v", "below"),
        (panel.predicted > high, high, "^", "above"),
    ):
        if beyond.any():
            heights, label = np.full(beyond.sum(), place), f"predicted {word} ({beyond.sum():,})"
            axes.plot(panel.true[beyond], heights, marker, color="black", ms=5, clip_on=False, label=label)
