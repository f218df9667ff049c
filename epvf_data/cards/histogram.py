"""A picture of a data set's returns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64

from epvf_data import pictures
from epvf_data.store.lineage import by_word
from epvf_data.store.reader import Dataset
from epvf_data.untrusted import picture_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BINS = 60
_MOST_SOURCES = 8  # in the legend; the rest is one group


def returns_by_source(dataset: Dataset) -> dict[str, Float64[np.ndarray, " rows"]]:
    """Mean return over episodes of every row, by the source that made it."""
    found: dict[str, list[np.ndarray]] = {}
    for architecture in dataset.architectures:
        table = dataset.table(architecture.id)
        means, words = table.mean_returns(), table.vocabulary("source")
        for index, rows in by_word(table.column("source")):
            found.setdefault(words[index], []).append(means[rows])
    return {name: np.concatenate(parts) for name, parts in found.items()}


def plot_returns(dataset: Dataset, path: str | Path, *, force: bool = False) -> None:
    """Histogram of returns by source, numbers of policies on a logarithmic axis, written as PNG, PDF or SVG.

    Raises ConfigError for another kind of file, DatasetError where there is a file already, unless `force` replaces it,
    StorageError if the disk refuses.
    """
    pictures.check(Path(path), force)
    pictures.save(draw_returns(dataset.env.name, returns_by_source(dataset)), Path(path), force=force)


def draw_returns(env: str, groups: Mapping[str, Float64[np.ndarray, " rows"]]) -> Figure:
    """The same picture. Returns that are not finite are left out.

    Names come from data sets of strangers: nothing in them is markup here.
    """
    groups = _largest({name: values[np.isfinite(values)] for name, values in groups.items()})
    every = np.concatenate([*groups.values(), np.zeros(0)])
    figure = pictures.blank(7, 3.6, dpi=150)
    axes = figure.add_subplot()
    if every.size:
        edges = bin_edges(every, _BINS)
        # Outlines over the sum of all: filled steps would hide one another.
        axes.hist(every, bins=edges, histtype="stepfilled", color="0.88", label=f"all ({every.size:,})")
        for number, (name, values) in enumerate(groups.items()):
            label = f"{picture_text(name, 30)} ({len(values):,})"
            axes.hist(values, bins=edges, histtype="step", color=f"C{number}", linewidth=1.6, label=label)
        peak = np.histogram(every, edges)[0].max()
        axes.set_yscale("log")
        axes.set_ylim(0.5, max(12.0, 1.5 * peak))
        title = f"{every.size:,} policies, return {every.mean():.1f} on average, {every.max():.1f} at most"
    else:
        title = "no finite return"
    axes.set_xlabel("return (mean over episodes)")
    axes.set_ylabel("policies (log scale)" if every.size else "policies")
    axes.set_title(f"{picture_text(env, 30)}: {title}", fontsize=10)
    if groups:
        axes.legend(title="source", frameon=False, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _largest(groups: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The groups with most rows, and all others as one."""
    ranked = sorted((item for item in groups.items() if len(item[1])), key=lambda item: -len(item[1]))
    kept, rest = dict(ranked[:_MOST_SOURCES]), [values for _, values in ranked[_MOST_SOURCES:]]
    if rest:
        kept[f"{len(rest)} others"] = np.concatenate([kept.pop(f"{len(rest)} others", np.zeros(0)), *rest])
    return kept


def bin_edges(values: Float64[np.ndarray, " rows"], bins: int) -> list[float]:
    """Edges of the bins; also of returns that are all the same, or so large that small steps vanish."""
    low, high = float(values.min()), float(values.max())
    room = max(high - low, 1e-6, 1e-6 * max(abs(low), abs(high)))
    return np.linspace(low, low + room, bins + 1).tolist()
