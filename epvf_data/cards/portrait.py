"""Four pictures of a data set: returns by source, norm against return, and a map of what policies do, twice."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Float64, Int64

from epvf_data import pictures
from epvf_data.cards.histogram import bin_edges
from epvf_data.errors import DatasetError
from epvf_data.store import reader
from epvf_data.store.reader import Dataset
from epvf_data.store.table import Table
from epvf_data.untrusted import picture_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 5000  # rows that are drawn; of more, as many at random
_BYTES = 256 << 20  # of probing actions, which fewer rows have to keep where each has many
_MOST_SOURCES = 8
Pairs = list[tuple[Table, Int64[np.ndarray, "k"]]]  # of each architecture, its chosen rows
WIDE = 8.0  # norms this many times apart are drawn on a logarithmic axis


@dataclass(frozen=True)
class Portrait:
    """The rows that are drawn; NaN stands for what a row does not have."""

    returns: Float64[np.ndarray, "n"]  # mean over episodes
    norms: Float64[np.ndarray, "n"]  # Euclidean, of the parameters
    sources: tuple[str, ...]  # one a row
    layers: tuple[str, ...]  # one a row: the architecture as in 34-64-64-8
    map: Float64[np.ndarray, "n 2"]  # the first two principal components of the probing actions
    explained: tuple[float, float]  # share of the actions' variance in each
    rows: int  # of the data set


def sit(dataset: Dataset, seed: int = 0) -> Portrait:
    """Reads what is drawn, of at most `MOST` rows. Raises DatasetError for a data set without rows."""
    if not dataset.rows:
        raise DatasetError(f"{dataset.path} holds no rows yet; collect some first.")
    if seed < 0:
        raise DatasetError(f"the seed is {seed}; seeds start at 0.")
    return describe(choose(dataset, seed, MOST), dataset.rows)


def choose(dataset: Dataset, seed: int, most: int, wanted: Int64[np.ndarray, "w"] | None = None) -> Pairs:
    """Each architecture's table with the numbers of its rows that are drawn: those `wanted`, and others at random.

    Rows are numbered over all architectures, one after the other. There are `most` at most, fewer where each has many
    probing actions.
    """
    tables = [dataset.table(item.id) for item in dataset.architectures]
    starts = np.cumsum([0, *(table.rows for table in tables)])
    widest = max(
        part.layout("probe_actions").row_bytes if "probe_actions" in part.names else 1 for part in dataset.parts
    )
    most = min(most, max(1, _BYTES // widest))
    first = np.zeros(0, np.int64) if wanted is None else np.unique(wanted)[:most]
    others = np.random.default_rng(seed).permutation(dataset.rows)
    others = others[~np.isin(others, first)] if len(first) else others
    chosen = np.sort(np.concatenate([first, others[: most - len(first)]]))
    local = [chosen[(chosen >= a) & (chosen < b)] - a for a, b in itertools.pairwise(starts.tolist())]
    return list(zip(tables, local, strict=True))


def describe(pairs: Pairs, total: int) -> Portrait:
    """What is drawn of the chosen rows, which may be of several data sets; they have `total` rows."""
    words = [[table.vocabulary("source")[i] for i in table.take("source", rows).tolist()] for table, rows in pairs]
    actions = _actions(pairs)
    place, explained = _components(actions)
    return Portrait(
        returns=np.concatenate([table.mean_returns()[rows] for table, rows in pairs]),
        norms=np.concatenate([_norms(table, rows) for table, rows in pairs]),
        sources=tuple(word for some in words for word in some),
        layers=tuple(str(table.spec) for table, rows in pairs for _ in rows),
        map=place,
        explained=explained,
        rows=total,
    )


def _norms(table: Table, rows: Int64[np.ndarray, "k"]) -> Float64[np.ndarray, "k"]:
    if "params" not in table.names:
        return np.full(len(rows), np.nan)
    blocks = [table.take("params", rows[start : start + 256]) for start in range(0, len(rows), 256)]
    return np.concatenate([np.linalg.norm(block.astype(np.float64), axis=1) for block in blocks] or [np.zeros(0)])


def _actions(pairs: Pairs) -> Float[np.ndarray, "n D"]:
    """Actions in the probing states that most rows share; NaN for rows without them."""
    probes: Counter[Any] = Counter()
    for table, rows in pairs:
        probes[table.parts[0].entry.probe if "probe_actions" in table.names else None] += len(rows)
    del probes[None]
    if not probes:
        return np.full((sum(len(rows) for _, rows in pairs), 1), np.nan)
    shared = probes.most_common(1)[0][0]
    mine = ["probe_actions" in table.names and table.parts[0].entry.probe == shared for table, _ in pairs]
    size = next(
        int(np.prod(table.row_shape("probe_actions")))
        for (table, _), is_mine in zip(pairs, mine, strict=True)
        if is_mine
    )
    return np.concatenate(
        [
            table.take("probe_actions", rows).reshape(len(rows), size)
            if is_mine
            else np.full((len(rows), size), np.nan)
            for (table, rows), is_mine in zip(pairs, mine, strict=True)
        ]
    )


def _components(actions: Float[np.ndarray, "n D"]) -> tuple[Float64[np.ndarray, "n 2"], tuple[float, float]]:
    """The first two principal components of the rows without NaN, and their shares of the variance."""
    place, good = np.full((len(actions), 2), np.nan), np.isfinite(actions).all(1)
    centred = actions[good].astype(np.float64)
    centred -= centred.mean(0) if len(centred) else 0.0
    total = float(np.square(centred).sum())
    if len(centred) < 3 or not total > 0:
        return place, (0.0, 0.0)
    wide = centred.shape[1] > centred.shape[0]
    values, vectors = np.linalg.eigh(centred @ centred.T if wide else centred.T @ centred)
    values, vectors = np.maximum(values[::-1][:2], 0.0), vectors[:, ::-1][:, :2]
    scores = vectors * np.sqrt(values) if wide else centred @ vectors
    place[good] = np.pad(scores, ((0, 0), (0, 2 - scores.shape[1])))
    shares = [*(values / total).tolist(), 0.0]
    return place, (shares[0], shares[1])


def plot_dataset(dataset: str | Path | Dataset, path: str | Path, seed: int = 0, *, force: bool = False) -> Portrait:
    """Draws the data set (a path or an opened one) as PNG, PDF or SVG.

    Raises ConfigError for another kind of file, DatasetError for a data set without rows and where there is a file
    already, unless `force` replaces it, StorageError if the disk refuses.
    """
    pictures.check(Path(path), force)
    dataset = reader.open(dataset) if isinstance(dataset, (str, Path)) else dataset
    seen = sit(dataset, seed)
    pictures.save(draw(dataset.env.name, seen), Path(path), force=force)
    return seen


def draw(env: str, seen: Portrait) -> Figure:
    """The picture. Names come from strangers: nothing in them is markup here."""
    figure = pictures.blank(11, 7.6)
    panels = figure.subplots(2, 2)
    names = [name for name, _ in Counter(seen.sources).most_common(_MOST_SOURCES)]
    label = np.array([names.index(word) if word in names else len(names) for word in seen.sources])
    shown = [*names, "others"]
    drawn = f"{len(seen.returns):,} of {seen.rows:,}" if len(seen.returns) < seen.rows else f"{seen.rows:,}"
    shapes = Counter(seen.layers)
    layers = ", ".join(picture_text(shape) for shape in list(shapes)[:4])
    title = f"{picture_text(env, 30)}: {drawn} policies, {layers}{' …' if len(shapes) > 4 else ''}"
    figure.suptitle(title, fontsize=12)
    _by_source(panels[0, 0], seen, label, shown)
    _norm_panel(panels[0, 1], seen, label, shown)
    _map_panels(figure, panels[1], seen, label, shown)
    return figure


def _by_source(axes: Any, seen: Portrait, label: np.ndarray, shown: list[str]) -> None:
    """A strip of dots for each source, as wide as returns are frequent there, its quartiles over them."""
    random = np.random.default_rng(0)
    good = np.isfinite(seen.returns)
    for number in np.unique(label).tolist():
        values = seen.returns[good & (label == number)]
        if len(values):
            counts, edges = np.histogram(values, bins=bin_edges(values, 40))
            frequent = counts[np.searchsorted(edges[1:-1], values, side="right")] / counts.max()
            places = number + 0.42 * np.sqrt(frequent) * random.uniform(-1, 1, len(values))
            axes.plot(values, places, ".", color=f"C{number}", alpha=0.3, markersize=3)
            low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
            axes.plot([low, high], [number, number], color="black", linewidth=2)
            axes.plot([middle], [number], "o", color="black", markersize=5)
    there = np.unique(label).tolist()
    counts = {number: int((label == number).sum()) for number in there}
    axes.set_yticks(there, [f"{picture_text(shown[number], 24)} ({count:,})" for number, count in counts.items()])
    for number, name in zip(there, axes.get_yticklabels(), strict=True):  # the legend of all panels
        name.set_color(f"C{number}")
    axes.set(xlabel="return (mean over episodes)", title="returns by source: dots, quartiles, median")
    axes.set_ylim(max(there) + 0.55, min(there) - 0.55)


def _norm_panel(axes: Any, seen: Portrait, label: np.ndarray, shown: list[str]) -> None:
    good = np.isfinite(seen.returns) & np.isfinite(seen.norms)
    axes.set(xlabel="Euclidean norm of the parameters", ylabel="return", title="norm and return")
    if not good.any():
        axes.text(0.5, 0.5, "parameters are withheld", ha="center", transform=axes.transAxes)
        return
    order = np.random.default_rng(0).permutation(np.flatnonzero(good))  # so that no source hides another
    colours = np.array([f"C{number}" for number in range(len(shown))])
    axes.scatter(seen.norms[order], seen.returns[order], s=5, alpha=0.4, linewidths=0, c=colours[label[order]])
    if seen.norms[good].min() > 0 and seen.norms[good].max() > WIDE * seen.norms[good].min():
        axes.set_xscale("log")
        axes.set_xlabel("Euclidean norm of the parameters (log scale)")
        pictures.plain_ticks(axes.xaxis)


def _map_panels(figure: Any, panels: Any, seen: Portrait, label: np.ndarray, shown: list[str]) -> None:
    """The same map of actions in probing states, by return and by source."""
    good = np.isfinite(seen.map).all(1) & np.isfinite(seen.returns)
    for axes, what in zip(panels, ("return", "source"), strict=True):
        axes.set_title(f"actions in probing states, by {what}")
        axes.set_xlabel(f"first component ({seen.explained[0]:.0%} of the variance)")
        axes.set_ylabel(f"second component ({seen.explained[1]:.0%})")
        if not good.any():
            axes.text(0.5, 0.5, "no probing actions", ha="center", transform=axes.transAxes)
    if not good.any():
        return
    order = np.argsort(seen.returns[good])
    x, y = seen.map[good][order].T
    dots = panels[0].scatter(x, y, c=seen.returns[good][order], s=5, cmap="viridis")
    figure.colorbar(dots, ax=panels[0], label="return")
    for number in np.unique(label[good]).tolist():
        mine = good & (label == number)
        panels[1].plot(*seen.map[mine].T, ".", color=f"C{number}", alpha=0.4, markersize=4)
