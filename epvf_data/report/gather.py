"""What the page shows, as plain JSON values: sampled rows, coverage, commits, and what critics say of held-out rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from epvf_data.cards.portrait import Pairs, choose, describe
from epvf_data.curation.history import history
from epvf_data.errors import DatasetError, RunError
from epvf_data.places.base import FolderPlace
from epvf_data.sharing import signatures
from epvf_data.store.reader import Dataset
from epvf_data.untrusted import printable

MOST = 10_000  # points of the page
MOST_COMMITS = 200  # listed; of more, the newest
MOST_SOURCES = 8  # with frames
RANKS = ("best", "median", "worst")


@dataclass(frozen=True)
class Prediction:
    """What a run's critic says of rows that it never saw: numbers of rows over all architectures, and V in each."""

    run: str
    critic: str
    split: str
    spearman: float  # of the mean over seeds
    ridge: float | None  # its control, on what the critic reads; None where the critic is one
    rows: Int64[np.ndarray, "k"]
    values: np.ndarray  # [k]


def gather(datasets: Sequence[Dataset], predictions: Sequence[tuple[int, Prediction]], seed: int) -> dict[str, Any]:
    """All that the page shows but the frames. Predictions come with the number of their data set.

    Rows of several data sets share one map where they share probing states. Raises DatasetError for a data set
    without rows.
    """
    pairs: Pairs = []
    owner, numbers = [], []
    for place, dataset in enumerate(datasets):
        if not dataset.rows:
            raise DatasetError(f"{dataset.path} holds no rows yet; collect some first.")
        held = [one.rows for where, one in predictions if where == place]
        most = MOST // len(datasets)
        random = np.random.default_rng(seed)
        drawn = [random.permutation(rows)[: most // (2 * len(held))] for rows in held]
        extremes = [row for ranks in notable(dataset).values() for row in ranks.values()]
        wanted = np.concatenate([np.array(extremes, np.int64), *drawn])
        chosen = choose(dataset, seed, most, wanted)
        starts = np.cumsum([0, *(item.rows for item in dataset.architectures)])
        for start, (_, rows) in zip(starts.tolist(), chosen, strict=False):
            owner += [place] * len(rows)
            numbers += (rows + start).tolist()
        pairs += chosen
    seen = describe(pairs, sum(dataset.rows for dataset in datasets))
    names = list(dict.fromkeys(seen.sources))
    layers = list(dict.fromkeys(seen.layers))
    place_of = {(one, number): index for index, (one, number) in enumerate(zip(owner, numbers, strict=True))}
    return {
        "datasets": [_about(dataset) for dataset in datasets],
        "sources": [printable(name, 60) for name in names],
        "layers": [printable(name, 60) for name in layers],
        "explained": list(seen.explained),
        "rows": seen.rows,
        "points": {
            "dataset": owner,
            "row": [row for _, rows in pairs for row in rows.tolist()],
            "return": _round(seen.returns),
            "norm": _round(seen.norms),
            "x": _round(seen.map[:, 0]),
            "y": _round(seen.map[:, 1]),
            "source": [names.index(name) for name in seen.sources],
            "layer": [layers.index(name) for name in seen.layers],
            **_lineage(pairs),
        },
        "architectures": {str(table.spec): table.spec.id[:12] for table, _ in pairs},
        "runs": [_predicted(place, one, place_of, len(owner)) for place, one in predictions],
    }


def notable(dataset: Dataset) -> dict[str, dict[str, int]]:
    """Source → best, median, worst row by mean return, numbered over all architectures; the largest sources first."""
    means, words = [], []
    for item in dataset.architectures:
        table = dataset.table(item.id)
        vocabulary = table.vocabulary("source")
        means.append(table.mean_returns())
        words += [vocabulary[index] for index in table.column("source").tolist()]
    every, kinds = np.concatenate(means), np.array(words, object)
    found: dict[str, dict[str, int]] = {}
    names, counts = np.unique(kinds.astype(str), return_counts=True)
    for name in names[np.argsort(-counts, kind="stable")][:MOST_SOURCES].tolist():
        mine = np.flatnonzero((kinds == name) & np.isfinite(every))
        order = mine[np.argsort(every[mine], kind="stable")]
        if len(order):
            picks = (order[-1], order[len(order) // 2], order[0])
            found[name] = {rank: int(row) for rank, row in zip(RANKS, picks, strict=True)}
    return found


def _lineage(pairs: Pairs) -> dict[str, Any]:
    """Base, scale, sign, iteration, length and the range of episodes of each chosen row."""
    words: dict[str, int] = {}
    found: dict[str, list[Any]] = {name: [] for name in ("base", "scale", "sign", "iteration", "length", "low", "high")}
    for table, rows in pairs:
        vocabulary = table.vocabulary("base")
        for index in table.take("base", rows).tolist():
            found["base"].append(-1 if index < 0 else words.setdefault(printable(vocabulary[index], 60), len(words)))
        for name in ("scale", "sign", "iteration"):
            found[name] += [_number(value) for value in table.take(name, rows).tolist()]
        lengths = np.concatenate([piece.mean(1) for piece in table.pieces("lengths")])[rows]
        returns = list(table.pieces("returns"))
        found["length"] += _round(lengths)
        found["low"] += _round(np.concatenate([piece.min(1) for piece in returns])[rows])
        found["high"] += _round(np.concatenate([piece.max(1) for piece in returns])[rows])
    return {**found, "bases": list(words)}


def _about(dataset: Dataset) -> dict[str, Any]:
    """Name, task, coverage, commits, head and signatures of a data set."""
    summary = dataset.summary()
    specs = {item.id: printable(item.spec, 60) for item in dataset.architectures}
    events = history(dataset)
    return {
        "name": printable(dataset.path.name, 120),
        "path": printable(dataset.path, 300),
        "env": printable(dataset.env.name, 80),
        "horizon": dataset.env.horizon,
        "digest": dataset.env.digest[:12],
        "rows": dataset.rows,
        "head": dataset.revision,
        "signatures": _signatures(dataset),
        "licences": [printable(name, 60) for name in dataset.licences],
        "coverage": [
            {**line, "source": printable(line["source"], 60), "architecture": specs[line["architecture"]]}
            for line in summary["coverage"]
        ],
        "commits": len(dataset.commits),
        "events": [_event(event) for event in events[-MOST_COMMITS:]],
        "left_out": max(0, len(events) - MOST_COMMITS),
    }


def _event(event: dict[str, Any]) -> dict[str, Any]:
    text = {key: printable(event[key], 300) for key in ("created", "who", "command", "made", "versions") if event[key]}
    return {"commit": event["commit"], "origin": event["origin"], "rows": event["rows"], **text}


def _signatures(dataset: Dataset) -> str:
    """How many signatures lie beside it, and that nobody has looked whose they are."""
    try:
        count = len(signatures.read(FolderPlace(dataset.path)))
    except (DatasetError, OSError):
        return "signatures that cannot be read"
    if not count:
        return "not signed"
    return f"{count} signature{'s' if count > 1 else ''}, whose is not checked here: epvf-data verify"


def _predicted(place: int, one: Prediction, places: dict[tuple[int, int], int], count: int) -> dict[str, Any]:
    values: list[float | None] = [None] * count
    for row, value in zip(one.rows.tolist(), one.values.tolist(), strict=True):
        if (where := places.get((place, row))) is not None:
            values[where] = _number(value)
    about = {"run": printable(Path(one.run).name, 80), "critic": one.critic, "split": one.split}
    return {
        **about,
        "spearman": _number(one.spearman),
        "ridge": None if one.ridge is None else _number(one.ridge),
        "held_out": len(one.rows),
        "values": values,
    }


def _number(value: float) -> float | None:
    """Five digits, which is more than a screen has; None where it is not finite."""
    return float(f"{value:.5g}") if math.isfinite(value) else None


def _round(values: np.ndarray) -> list[float | None]:
    return [_number(value) for value in np.asarray(values, np.float64).tolist()]


def match(run: Path, content: str, datasets: Sequence[Dataset], contents: Sequence[str]) -> int:
    """The number of the data set that a run was fitted to. Raises RunError where it is none of these."""
    if content not in contents:
        names = ", ".join(printable(dataset.path, 300) for dataset in datasets)
        raise RunError(f"{run} was fitted to other rows than those of {names}; name its own data set.")
    return contents.index(content)
