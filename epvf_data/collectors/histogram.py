"""A picture of a data set's returns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from epvf_data.store.reader import Dataset


def returns_by_source(dataset: Dataset) -> dict[str, np.ndarray]:
    """Mean return over episodes of every row, by the source that made it."""
    found: dict[str, list[np.ndarray]] = {}
    for architecture in dataset.architectures:
        table = dataset.table(architecture.id)
        means, sources = table.column("returns").mean(axis=1), table.column("source")
        for number, name in enumerate(table.vocabulary("source")):
            found.setdefault(name, []).append(means[sources == number])
    return {name: np.concatenate(parts) for name, parts in found.items()}


def plot_returns(dataset: Dataset, path: str | Path) -> None:
    """Histogram of returns by source, numbers of policies on a logarithmic axis, written as PNG."""
    groups = returns_by_source(dataset)
    every = np.concatenate(list(groups.values()))
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    edges = np.linspace(every.min(), max(every.max(), every.min() + 1e-6), 61)
    for name, values in groups.items():
        axes.hist(values, bins=list(edges), histtype="stepfilled", alpha=0.35, label=f"{name} ({len(values):,})")
        axes.hist(values, bins=list(edges), histtype="step", color=axes.patches[-1].get_facecolor()[:3])
    axes.set_yscale("log")
    axes.set_xlabel("return")
    axes.set_ylabel("policies")
    axes.set_title(
        f"{dataset.env.name}: {every.size:,} policies, return {every.mean():.1f} on average, {every.max():.1f} at most"
    )
    axes.legend(title="source", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
