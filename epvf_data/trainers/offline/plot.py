"""The picture of a run: predicted against true return of the policies that the critic never saw."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from epvf_data.untrusted import picture_text

TITLES = {
    "iid": "held-out policies of {} families",
    "lineage": "policies of {} held-out families",
    "high": "policies of the highest returns, {} families",
    "source": "policies of a held-out source, {} families",
    "architecture": "policies of a held-out architecture, {} families",
}
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")  # safe for the colour-blind
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


def draw(panels: list[Panel], critic: str, heading: str, path: Path) -> None:
    """Writes a PNG, one panel a split: identity line, points coloured by source or, where there are many, density."""
    figure = Figure(figsize=(5.4 * len(panels) + 0.4, 5.6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(picture_text(heading, 200), fontsize=12)
    for axes, panel in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
        _points(figure, axes, panel)
        _frame(axes, panel)
        axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=4, markerscale=1.5, frameon=False)
        axes.set_xlabel("true return")
        axes.set_ylabel(f"return predicted by the {critic}" + (" (median seed)" if panel.seeds > 1 else ""))
        mean_of = f" (mean of {panel.seeds} seeds)" if panel.seeds > 1 else ""
        ridge = "" if panel.ridge_spearman is None else f"\nridge: Spearman {panel.ridge_spearman:.2f}"
        axes.set_title(
            f"{len(panel.true):,} {TITLES[panel.split].format(panel.families)}\n"
            f"Spearman {panel.spearman:.2f}, R² {panel.r2:.2f}{mean_of}{ridge}",
            fontsize=10,
        )
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Writes the PNG; characters that the font lacks are drawn as boxes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(path, format="png")


def _points(figure: Figure, axes: Axes, panel: Panel) -> None:
    short = {name: picture_text(name, 30) for name in set(panel.sources)}
    names, source, counts = np.unique([short[name] for name in panel.sources], return_inverse=True, return_counts=True)
    if counts.max() > MANY:
        mesh = axes.hexbin(panel.true, panel.predicted, gridsize=60, norm=LogNorm(), cmap="viridis", mincnt=1)
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


def _frame(axes: Axes, panel: Panel) -> None:
    """Equal limits on both axes from what is shown, a few wild predictions excepted, and the identity line."""
    shown = np.concatenate([panel.true, np.percentile(panel.predicted, [0.5, 99.5])])
    low, high = float(shown.min()), float(shown.max())
    margin = 0.04 * (high - low) or 1.0
    limits: Any = (low - margin, high + margin)
    axes.plot(limits, limits, color="black", linewidth=1, linestyle="--", zorder=3, label="predicted = true")
    axes.set_xlim(limits)
    axes.set_ylim(limits)
    axes.set_aspect("equal")
    axes.grid(alpha=0.2)
