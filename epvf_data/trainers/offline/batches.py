"""The order of batches: shuffled epochs of one or several architectures, resident or streamed from the store."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from epvf_data.store.loader import Loader
from epvf_data.trainers.offline.source import Rows, Source


def stream_seed(seed: int, stream: str, index: int = 0) -> int:
    """A seed of its own for each named stream and index, so that adding a stream never shifts another."""
    return int(np.random.SeedSequence([seed, zlib.crc32(stream.encode()), index]).generate_state(1)[0])


class Shape(NamedTuple):
    """Steps of an epoch, and rows of each architecture in every step."""

    steps: int
    sizes: tuple[int, ...]


def shape_epoch(counts: tuple[int, ...], batch: int) -> Shape:
    """So many rows of each architecture in steps of about `batch` rows, each architecture in every step.

    With one architecture a step has `batch` rows; with several each has its share, rounded up.
    """
    if len(counts) == 1:
        return Shape(-(-counts[0] // batch), (batch,))
    steps = -(-sum(counts) // batch)
    sizes = tuple(-(-count // steps) for count in counts)
    return Shape(max(-(-count // size) for count, size in zip(counts, sizes, strict=True) if size), sizes)


def epoch_order(
    rows: Rows, batch: int, seed: int, epoch: int, steps: int | None = None
) -> tuple[Int[np.ndarray, "K B"], Float[np.ndarray, "K B"]]:
    """Row numbers of each batch of a shuffled epoch, and weights: what is left of `steps` is filled with weight 0."""
    order = np.random.default_rng(stream_seed(seed, "shuffle", epoch)).permutation(rows)
    steps = -(-len(order) // batch) if steps is None else steps
    padding = steps * batch - len(order)
    weight = np.concatenate([np.ones(len(order), np.float32), np.zeros(padding, np.float32)])
    order = np.concatenate([order, np.repeat(order[:1], padding)])
    return order.reshape(steps, batch), weight.reshape(steps, batch)


class Streamed(NamedTuple):
    """A batch: for each architecture raw vectors [B, D], labels [B] and weights [B] (0 fills up)."""

    vectors: tuple[np.ndarray, ...]
    labels: tuple[np.ndarray, ...]
    weight: tuple[np.ndarray, ...]


class Stream:
    """Shuffled epochs of batches read from the store."""

    def __init__(self, source: Source, rows: tuple[Rows, ...], shape: Shape, seed: int) -> None:
        self._shape, self._column = shape, source.column
        self._sizes = source.sizes
        self._loaders = [
            Loader(
                table,
                own,
                columns=(source.column, "returns"),
                batch_size=size,
                seed=stream_seed(seed, "shuffle", place),
            )
            if len(own)
            else None
            for place, (table, own, size) in enumerate(zip(source.tables, rows, shape.sizes, strict=True))
        ]

    def epoch(self, number: int) -> Iterator[Streamed]:
        """The batches of one epoch; its order depends on the seed and the number alone."""
        for loader in self._loaders:
            if loader is not None:
                loader.restore({**loader.state(), "epoch": number, "batch": 0})
        each = [iter(()) if loader is None else iter(loader) for loader in self._loaders]
        for _ in range(self._shape.steps):
            parts = [self._next(place, batches) for place, batches in enumerate(each)]
            yield Streamed(*(tuple(column) for column in zip(*parts, strict=True)))

    def _next(self, place: int, batches: Iterator[dict[str, np.ndarray]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The next batch of one architecture, filled up; nothing but filling where its rows are used up."""
        size = self._shape.sizes[place]
        columns = next(batches, None)
        if columns is None:
            return (
                np.zeros((size, self._sizes[place]), np.float32),
                np.zeros(size, np.float32),
                np.zeros(size, np.float32),
            )
        labels = columns["returns"].mean(1, dtype=np.float64).astype(np.float32)
        vectors, weight = columns[self._column].reshape(len(labels), -1), np.ones(len(labels), np.float32)
        short = size - len(labels)
        if not short:
            return vectors, labels, weight
        return np.pad(vectors, ((0, short), (0, 0))), np.pad(labels, (0, short)), np.pad(weight, (0, short))
