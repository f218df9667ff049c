"""Reads data sets: `open(path)` gives a Dataset, its tables give rows as NumPy arrays."""

from __future__ import annotations

import copy
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from epvf_data.errors import DatasetError
from epvf_data.places.address import is_url
from epvf_data.policies.kinds import Spec
from epvf_data.store import licences
from epvf_data.store.afar import far_of, open_url
from epvf_data.store.commit import CommitRecord, PartEntry, live_parts, read_chain
from epvf_data.store.frame import to_frame
from epvf_data.store.lineage import LINEAGE_COLUMNS, VOCABULARIES, Lineage, by_word
from epvf_data.store.loader import Loader
from epvf_data.store.part import Layouts, Mapped, Part
from epvf_data.store.root import Root, read_root
from epvf_data.store.schema import EnvIdentity
from epvf_data.store.table import Table

if TYPE_CHECKING:
    import pandas  # pyright: ignore[reportMissingImports]


@dataclass(frozen=True)
class Architecture:
    """One policy architecture of a data set: its id, its specification, and how many rows have it."""

    id: str
    spec: Spec
    rows: int


def open(path: str | os.PathLike[str]) -> Dataset:
    """Opens a data set for reading; sees the commits that are there now (`refresh` sees later ones).

    `path` is a folder, or the URL of a place (`s3://…`, `https://…`, maybe with `@sha256:<revision>`): then records are
    read, and files come when they are needed, into the user's cache.

    Raises DatasetError where there is no data set or one of a newer format, CorruptDatasetError where the commit chain
    is broken, UnsafeDatasetError where something is there that has no business in a data set.
    """
    root = open_url(str(path)) if is_url(path) else Path(path)
    return Dataset(root, read_root(root), tuple(read_chain(root)))


class Dataset:
    """A data set as it was when it was opened. Rows are read through `table`."""

    def __init__(self, path: Path, root: Root, commits: tuple[CommitRecord, ...]) -> None:
        self.path = path
        self._place = path.absolute()  # the working directory may change
        self._acting: dict[str, Spec] = {}  # by id: specifications with the user's code
        self.commits = commits
        self._root = root
        self._origin = {part.id: record for record in commits for part in record.add}
        self._entries = {part.id: part for record in commits for part in record.add}
        known: Layouts = {}
        mapped, far = Mapped(), far_of(self._place)
        self.parts = tuple(
            Part(self._place, root.env, entry, self._origin[entry.id].probes.get(entry.probe or ""), known, mapped, far)
            for entry in live_parts(commits)
        )

    @property
    def env(self) -> EnvIdentity:
        """The environment that all rows belong to."""
        return self._root.env

    @cached_property
    def licences(self) -> tuple[str, ...]:
        """What its card states, by SPDX identifiers; without a card, what those of the data sets did that it is of."""
        return licences.of_card(self.path) or licences.inherited(record.provenance for record in self.commits)

    @property
    def format_version(self) -> int:
        return self._root.format_version

    @property
    def revision(self) -> str | None:
        """What pins all of it, as papers cite it: the SHA-256 of the newest commit's record; None without commits."""
        return self.commits[-1].sha256 if self.commits else None

    @property
    def rows(self) -> int:
        return sum(part.entry.rows for part in self.parts)

    def __len__(self) -> int:
        return self.rows

    @cached_property
    def architectures(self) -> tuple[Architecture, ...]:
        """The policy architectures in order of first appearance."""
        first: dict[str, Part] = {}
        rows: Counter[str] = Counter()
        for part in self.parts:
            first.setdefault(part.entry.architecture, part)
            rows[part.entry.architecture] += part.entry.rows
        return tuple(Architecture(name, part.spec, rows[name]) for name, part in first.items())

    def table(self, architecture: str | Spec | None = None) -> Table:
        """The rows of one architecture: a specification, an id or the beginning of one; None if there is only one.

        Raises DatasetError where that names no architecture or several.
        """
        ids = list(dict.fromkeys(part.entry.architecture for part in self.parts))
        if not ids:
            raise DatasetError(f"{self.path} holds no rows yet; collect some first.")
        wanted = architecture.id if isinstance(architecture, Spec) else (architecture or "")
        matches = [name for name in ids if name.startswith(wanted)]
        if len(matches) != 1:
            listed = ", ".join(f"{item.id[:12]} ({item.spec}, {item.rows} rows)" for item in self.architectures)
            got = f"{wanted[:12]!r} names {len(matches)} of them" if wanted else "none was named"
            raise DatasetError(f"{self.path} holds these architectures: {listed}; {got}, name exactly one.")
        mine = [part for part in self.parts if part.entry.architecture == matches[0]]
        return Table(mine, self._acting.get(matches[0]))

    def acting(self, specs: Iterable[Spec]) -> Dataset:
        """The same data set, whose tables have these specifications: equal ones, with code by which policies act."""
        found = copy.copy(self)
        found._acting = {**self._acting, **{spec.id: spec for spec in specs}}
        return found

    def to_numpy(
        self, architecture: str | Spec | None = None, columns: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """All rows of one architecture in memory, one array [rows, …] a column (all columns of the table for None)."""
        table = self.table(architecture)
        return {name: table.column(name) for name in (columns or table.names)}

    def to_pandas(self, architecture: str | Spec | None = None) -> pandas.DataFrame:
        """One line a policy, of one architecture or of all: mean, least and greatest return, mean length, lineage.

        `row` is its number in `table(architecture)`, where its parameters are. Needs the extra `pandas`.
        """
        names = [item.id for item in self.architectures] if architecture is None else [architecture]
        return to_frame([self.table(name) for name in names])

    def iter_batches(
        self,
        batch_size: int,
        *,
        columns: Sequence[str] = ("params", "returns"),
        architecture: str | Spec | None = None,
        rows: Int[np.ndarray, " chosen"] | None = None,
        shuffle: bool = True,
        seed: int = 0,
        epochs: int = 1,
        drop_last: bool = False,
    ) -> Iterator[dict[str, np.ndarray]]:
        """Batches of one architecture's rows, column → [batch, …], in bounded memory; each row once an epoch.

        `shuffle` mixes rows inside a moving window of 4,096; `rows` restricts to some. `Loader` can do more: resume,
        shards, other windows. Raises DatasetError for settings that make no sense, CorruptDatasetError for damage.
        """
        table = self.table(architecture)
        loader = Loader(
            table, rows, columns=columns, batch_size=batch_size, shuffle=shuffle, seed=seed, drop_last=drop_last
        )
        for _ in range(epochs):
            yield from loader

    def lineage(self, architecture: str | Spec | None = None) -> Lineage:
        """Where each row of one architecture comes from; `lineage.words("source")` gives words instead of indices."""
        table = self.table(architecture)
        columns = {name: table.column(name) for name in LINEAGE_COLUMNS}
        indices = {name: columns[name].astype(dtype) for name, dtype in VOCABULARIES.items()}
        vocabularies = {name: table.vocabulary(name) for name in VOCABULARIES}
        return Lineage(**{**columns, **indices}, vocabularies=vocabularies)

    def record_of(self, part: Part | PartEntry) -> CommitRecord:
        """The commit that added a part."""
        return self._origin[part.entry.id if isinstance(part, Part) else part.id]

    def removed(self, name: str) -> PartEntry:
        """What the commits say of a part that was there once."""
        return self._entries[name]

    def summary(self) -> dict[str, Any]:
        """What `info` prints: plain JSON values. Non-finite returns are left out of `returns`."""
        sources: Counter[str] = Counter()
        coverage: list[dict[str, Any]] = []
        low, high, total, count = np.inf, -np.inf, 0.0, 0
        for item in self.architectures:
            table = self.table(item.id)
            counts = np.bincount(table.column("source"), minlength=len(table.vocabulary("source")))
            sources.update(dict(zip(table.vocabulary("source"), counts.tolist(), strict=True)))
            coverage += _coverage(table)
            for values in table.pieces("returns"):
                finite = values[np.isfinite(values)]
                low, high = min(low, finite.min(initial=np.inf)), max(high, finite.max(initial=-np.inf))
                total, count = total + float(finite.sum(dtype=np.float64)), count + finite.size
        known = count > 0
        return {
            "format_version": self.format_version,
            "rows": self.rows,
            "commits": len(self.commits),
            "revision": self.revision,
            "env": {"name": self.env.name, "digest": self.env.digest, "horizon": self.env.horizon},
            "architectures": [
                {"id": a.id, "rows": a.rows, "params": a.spec.size, "withheld": self._withheld(a.id)}
                for a in self.architectures
            ],
            "sources": dict(sources),
            "coverage": coverage,
            "returns": {
                "min": float(low) if known else None,
                "mean": total / count if known else None,
                "max": float(high) if known else None,
            },
        }

    def _withheld(self, architecture: str) -> int:
        """How many rows of an architecture come without parameters."""
        parts = self.table(architecture).parts
        return sum(part.entry.rows for part in parts if "params" not in part.names)

    def refresh(self) -> Dataset:
        """The same data set with the commits that were added since."""
        later = Dataset(self.path, self._root, tuple(read_chain(self._place, self.commits)))
        return later.acting(self._acting.values())

    def __repr__(self) -> str:
        return f"Dataset({str(self.path)!r}, {self.env.name}, {self.rows} rows in {len(self.commits)} commits)"


def _coverage(table: Table) -> list[dict[str, Any]]:
    """Rows and finite mean returns of each source of an architecture."""
    means, words, found = table.mean_returns(), table.vocabulary("source"), []
    for index, rows in by_word(table.column("source")):
        finite = means[rows][np.isfinite(means[rows])]
        mean, top = (float(finite.mean()), float(finite.max())) if finite.size else (None, None)
        found.append(
            {
                "source": words[index],
                "architecture": table.spec.id,
                "rows": len(rows),
                "return_mean": mean,
                "return_max": top,
            }
        )
    return found
