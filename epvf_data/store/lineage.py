"""Where each row comes from: generator, base policy, run and perturbation, as index columns with vocabularies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32, Int, Int8, Int32, Int64, UInt16, UInt32

from epvf_data.errors import DatasetError

# Vocabulary column → the dtype of its index. In `base` and `run` the index −1 means "none".
VOCABULARIES: Mapping[str, str] = {"source": "uint16", "law": "uint16", "base": "int32", "run": "int32"}
_DTYPES = {**VOCABULARIES, "scale": "float32", "sign": "int8", "noise_seed": "uint32", "iteration": "int32"}
LINEAGE_COLUMNS: tuple[str, ...] = tuple(_DTYPES)


@dataclass(frozen=True)
class Lineage:
    """The lineage of n rows. Use `Lineage.build` to make one from plain values.

    `source`, `law`, `base` and `run` are indices into `vocabularies`; `sign` is +1 or −1 for antithetic halves and 0
    for an unperturbed policy; `scale` is the law's scale; `noise_seed` is the raw key data of the perturbation stream;
    `iteration` is the training iteration, −1 for none. Raises DatasetError where dtypes, lengths or indices disagree.
    """

    source: UInt16[np.ndarray, " rows"]
    law: UInt16[np.ndarray, " rows"]
    base: Int32[np.ndarray, " rows"]
    run: Int32[np.ndarray, " rows"]
    scale: Float32[np.ndarray, " rows"]
    sign: Int8[np.ndarray, " rows"]
    noise_seed: UInt32[np.ndarray, "rows 2"]
    iteration: Int32[np.ndarray, " rows"]
    vocabularies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rows = len(self.source)
        for name, dtype in _DTYPES.items():
            value = getattr(self, name)
            shape = (rows, 2) if name == "noise_seed" else (rows,)
            if value.dtype != dtype or value.shape != shape:
                raise DatasetError(
                    f"lineage column {name} is {value.dtype}{list(value.shape)}; expected {dtype}{list(shape)}."
                )
        if set(self.vocabularies) != set(VOCABULARIES):
            raise DatasetError(f"the vocabularies are {sorted(self.vocabularies)}; expected {sorted(VOCABULARIES)}.")
        for name, words in self.vocabularies.items():
            problem = index_problem(name, getattr(self, name), words)
            if problem:
                raise DatasetError(f"lineage column {problem}.")
        if rows and np.abs(self.sign).max() > 1:
            raise DatasetError("lineage column sign holds other values than −1, 0 and +1.")

    @classmethod
    def build(
        cls,
        rows: int,
        *,
        source: str | Sequence[str],
        base: str | Sequence[str | None] | None = None,
        run: str | Sequence[str | None] | None = None,
        law: str | Sequence[str] = "none",
        scale: float | Sequence[float] | np.ndarray = 0.0,
        sign: int | Sequence[int] | np.ndarray = 0,
        noise_seed: Sequence[int] | np.ndarray | None = None,
        iteration: int | Sequence[int] | np.ndarray = -1,
    ) -> Lineage:
        """Lineage of `rows` rows; each value is one for all rows or one a row. `noise_seed` is [2] or [rows, 2]."""
        vocabularies, columns = {}, {}
        for name, value in (("source", source), ("law", law), ("base", base), ("run", run)):
            per_row = [value] * rows if value is None or isinstance(value, str) else list(value)
            words = tuple(dict.fromkeys(word for word in per_row if word is not None))
            place = {word: index for index, word in enumerate(words)}
            if None in per_row and name in ("source", "law"):
                raise DatasetError(f"lineage column {name} has rows without a value; name one for every row.")
            indices = np.array([-1 if word is None else place[word] for word in per_row], dtype=np.int64)
            vocabularies[name] = words
            columns[name] = indices.astype(VOCABULARIES[name])
        try:
            columns |= {
                "scale": np.broadcast_to(np.asarray(scale, np.float32), (rows,)).copy(),
                "sign": np.broadcast_to(np.asarray(sign, np.int8), (rows,)).copy(),
                "noise_seed": np.broadcast_to(
                    np.zeros(2, np.uint32) if noise_seed is None else np.asarray(noise_seed, np.uint32), (rows, 2)
                ).copy(),
                "iteration": np.broadcast_to(np.asarray(iteration, np.int32), (rows,)).copy(),
            }
        except (ValueError, OverflowError) as error:
            raise DatasetError(f"the lineage does not describe {rows} rows ({error}).") from error
        return cls(**columns, vocabularies=vocabularies)

    def __len__(self) -> int:
        return len(self.source)

    def columns(self) -> dict[str, np.ndarray]:
        """Column name → array, in the format's order."""
        return {name: getattr(self, name) for name in LINEAGE_COLUMNS}

    def words(self, name: str) -> list[str | None]:
        """The vocabulary column `name` as words, one a row; None where there is none."""
        vocabulary = self.vocabularies[name]
        return [None if index < 0 else vocabulary[index] for index in getattr(self, name).tolist()]

    def select(self, rows: Int[np.ndarray, " selected"] | slice) -> Lineage:
        """The lineage of some rows, in that order; words that no row uses any more are dropped."""
        columns = {name: value[rows] for name, value in self.columns().items()}
        vocabularies = {}
        for name, words in self.vocabularies.items():
            columns[name], vocabularies[name] = compact_vocabulary(columns[name], words)
        return Lineage(**columns, vocabularies=vocabularies)

    @classmethod
    def concatenate(cls, items: Sequence[Lineage]) -> Lineage:
        """The rows of several lineages one after another, with one vocabulary a column."""
        columns = {
            name: np.concatenate([item.columns()[name] for item in items])
            for name in LINEAGE_COLUMNS
            if name not in VOCABULARIES
        }
        vocabularies = {}
        for name in VOCABULARIES:
            vocabularies[name], maps = merge_vocabularies([item.vocabularies[name] for item in items])
            pieces = [remap(item.columns()[name], mapping) for item, mapping in zip(items, maps, strict=True)]
            columns[name] = np.concatenate(pieces).astype(VOCABULARIES[name])
        return cls(**columns, vocabularies=vocabularies)


def by_word(indices: np.ndarray) -> Iterator[tuple[int, Int64[np.ndarray, " some"]]]:
    """Each index that a vocabulary column holds, with the numbers of its rows; in time for as many words as rows."""
    order = np.argsort(indices, kind="stable")
    values, starts = np.unique(indices[order], return_index=True)
    yield from zip(values.tolist(), np.split(order, starts[1:]), strict=True) if len(order) else ()


def index_problem(name: str, indices: np.ndarray, words: Sequence[str]) -> str | None:
    """What is wrong with a vocabulary column, or None. `indices` is an integer array [rows]."""
    if any(not isinstance(word, str) for word in words) or len(set(words)) != len(words):
        return f"{name} has a vocabulary with repeated words or with values that are not text"
    lowest = -1 if name in ("base", "run") else 0
    if len(indices) and (int(indices.min()) < lowest or int(indices.max()) >= len(words)):
        return (
            f"{name} holds indices from {indices.min()} to {indices.max()}; "
            f"its vocabulary of {len(words)} words allows {lowest} to {len(words) - 1}"
        )
    return None


def merge_vocabularies(vocabularies: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], list[np.ndarray]]:
    """One vocabulary in order of first appearance, and for each given one the map old index → new index (int32)."""
    place: dict[str, int] = {}
    maps = [np.array([place.setdefault(word, len(place)) for word in words], np.int32) for words in vocabularies]
    return tuple(place), maps


def remap(indices: np.ndarray, mapping: Int32[np.ndarray, " words"]) -> Int32[np.ndarray, " rows"]:
    """Indices under a new vocabulary; negative indices ("none") stay."""
    if not len(mapping):
        return indices.astype(np.int32)
    return np.where(indices < 0, np.int32(-1), mapping[np.maximum(indices, 0)]).astype(np.int32)


def compact_vocabulary(indices: np.ndarray, words: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """The same column with only the words in use, in order of first use."""
    used, first = np.unique(indices[indices >= 0], return_index=True)
    used = used[np.argsort(first)]
    mapping = np.zeros(len(words), np.int32)
    mapping[used] = np.arange(len(used))
    kept: list[int] = used.tolist()
    return remap(indices, mapping).astype(indices.dtype), tuple(words[index] for index in kept)
