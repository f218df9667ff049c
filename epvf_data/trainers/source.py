"""The rows that a critic learns from: labels in memory, parameters in memory or streamed, splits, and their scale."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from epvf_data.critics import Scale
from epvf_data.errors import DatasetError
from epvf_data.store.loader import Loader, load_all
from epvf_data.store.splits import split_by_lineage, split_iid
from epvf_data.store.table import Table
from epvf_data.trainers.metrics import label_variances

MIN_ROWS = 10
_BLOCK_BYTES = 64 << 20

Rows = Int[np.ndarray, "k"]


@dataclass(frozen=True, eq=False)
class Source:
    """One architecture's rows. `theta` is None when the parameters are streamed."""

    table: Table
    labels: Float[np.ndarray, "n"]  # mean return over episodes
    variances: Float[np.ndarray, "n"]  # of the labels, NaN where a policy has one episode
    families: Int[np.ndarray, "n"]
    rows_not_finite: int
    theta: Float[np.ndarray, "n P"] | None

    @property
    def size(self) -> int:
        return self.table.spec.size

    def read(self, rows: Rows) -> Float[np.ndarray, "k P"]:
        """Raw parameters of the rows, in their order."""
        return self.theta[rows] if self.theta is not None else self.table.take("params", rows)

    def blocks(self, rows: Rows) -> Iterator[Rows]:
        """The rows in pieces of bounded memory."""
        step = max(1, _BLOCK_BYTES // (4 * self.size))
        for start in range(0, len(rows), step):
            yield rows[start : start + step]


class Split(NamedTuple):
    """Row numbers, ascending. Training uses `fit`, chooses by `validation`, and never looks at `test`."""

    fit: Rows
    validation: Rows
    test: Rows

    @property
    def train(self) -> Rows:
        return np.sort(np.concatenate([self.fit, self.validation]))


def open_source(table: Table, device_bytes: int) -> Source:
    """Reads labels and lineage, and the parameters where they fit into `device_bytes`.

    Raises DatasetError for too few rows, equal returns, and returns or parameters that are not finite.
    """
    if table.rows < MIN_ROWS:
        raise DatasetError(
            f"got {table.rows} rows of policies {table.spec}; training needs at least {MIN_ROWS}: collect more."
        )
    labels = table.mean_returns()
    if not np.isfinite(labels).all():
        row = int(np.flatnonzero(~np.isfinite(labels))[0])
        raise DatasetError(f"row {row} has a return that is not finite; leave such rows out before training.")
    if not np.ptp(labels) > 0:
        raise DatasetError(
            f"all {table.rows} returns are {labels[0]:g}; a critic needs policies whose returns differ: "
            "collect from other sources."
        )
    resident = 4 * table.rows * table.spec.size <= device_bytes
    if not resident:
        table.row_shape("returns")  # streaming needs as many episodes in every part; raises DatasetError otherwise
    source = Source(
        table=table,
        labels=labels,
        variances=np.concatenate([label_variances(piece.astype(np.float64)) for piece in table.pieces("returns")]),
        families=table.groups(),
        rows_not_finite=sum(int((~piece).any(1).sum()) for piece in table.pieces("finite")),
        theta=load_all(table, columns=("params",))["params"] if resident else None,
    )
    for rows in source.blocks(np.arange(table.rows)):
        good = np.isfinite(source.read(rows)).all(1)
        if not good.all():
            row = int(rows[np.flatnonzero(~good)[0]])
            raise DatasetError(f"row {row} has parameters that are not finite; leave such rows out before training.")
    return source


def make_split(source: Source, name: str, test_fraction: float, validation_fraction: float, seed: int) -> Split:
    """Test rows held out by `name`, and validation rows held out of the rest in the same manner.

    By lineage, whole families are held out; where the training rows are one family, its validation rows are drawn
    singly. Raises DatasetError when there is one family only.
    """
    if name == "iid":
        train, test = split_iid(len(source.labels), test_fraction, seed)
    else:
        train, test = split_by_lineage(source.families, test_fraction, seed)
    train, test = np.sort(train), np.sort(test)
    families = source.families[train]
    if name == "lineage" and np.ptp(families) > 0:
        fit, validation = split_by_lineage(families, validation_fraction, seed + 1)
    else:
        fit, validation = split_iid(len(train), validation_fraction, seed + 1)
    split = Split(train[np.sort(fit)], train[np.sort(validation)], test)
    if not all(len(part) for part in split):
        raise DatasetError(
            f"the {name} split left {len(split.fit)}, {len(split.validation)} and {len(test)} rows to fit, validate "
            "and test; each needs one: collect more rows or change test_fraction."
        )
    return split


def measure_scale(source: Source, rows: Rows) -> Scale:
    """Mean and standard deviation of the given rows only, streamed in float64 (merging after Chan et al. 1979)."""
    count, mean, squares = 0, np.zeros(source.size), np.zeros(source.size)
    for block in source.blocks(rows):
        theta = source.read(block).astype(np.float64)
        centre = theta.mean(0)
        delta, total = centre - mean, count + len(block)
        squares += np.square(theta - centre).sum(0) + delta**2 * (count * len(block) / total)
        mean += delta * (len(block) / total)
        count = total
    spread = np.sqrt(squares / count)
    varies = spread > 1e-7 * np.maximum(np.abs(mean), 1e-30)  # below float32's resolution it is rounding
    labels = source.labels[rows]
    label_spread = labels.std()
    return Scale(
        theta_mean=mean.astype(np.float32),
        theta_std=np.where(varies, spread, 1.0).astype(np.float32),
        return_mean=np.array(labels.mean(), np.float32),
        return_std=np.array(label_spread if label_spread > 0 else 1.0, np.float32),
    )


def stream_seed(seed: int, stream: str, index: int = 0) -> int:
    """A seed of its own for each named stream and index, so that adding a stream never shifts another."""
    return int(np.random.SeedSequence([seed, zlib.crc32(stream.encode()), index]).generate_state(1)[0])


def epoch_order(
    rows: Rows, batch: int, seed: int, epoch: int
) -> tuple[Int[np.ndarray, "K B"], Float[np.ndarray, "K B"]]:
    """Row numbers of each batch of a shuffled epoch, and weights: the last batch is filled up with rows of weight 0."""
    order = np.random.default_rng(stream_seed(seed, "shuffle", epoch)).permutation(rows)
    padding = -len(order) % batch
    weight = np.concatenate([np.ones(len(order), np.float32), np.zeros(padding, np.float32)])
    order = np.concatenate([order, np.repeat(order[:1], padding)])
    return order.reshape(-1, batch), weight.reshape(-1, batch)


class Stream:
    """Shuffled epochs of batches read from the store: raw θ, labels, weights (0 for rows that fill the last one)."""

    def __init__(self, source: Source, rows: Rows, batch: int, seed: int) -> None:
        self._batch = batch
        self._loader = Loader(
            source.table, rows, columns=("params", "returns"), batch_size=batch, seed=stream_seed(seed, "shuffle")
        )

    def epoch(
        self, number: int
    ) -> Iterator[tuple[Float[np.ndarray, "B P"], Float[np.ndarray, "B"], Float[np.ndarray, "B"]]]:
        """The batches of one epoch; its order depends on the seed and the number alone."""
        self._loader.restore({**self._loader.state(), "epoch": number, "batch": 0})
        for columns in self._loader:
            labels = columns["returns"].mean(1, dtype=np.float64).astype(np.float32)
            short = self._batch - len(labels)
            weight = np.concatenate([np.ones(len(labels), np.float32), np.zeros(short, np.float32)])
            yield np.pad(columns["params"], ((0, short), (0, 0))), np.pad(labels, (0, short)), weight
