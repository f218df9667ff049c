"""What can be wrong with the values of a part's columns, counted exactly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool

from epvf_data.store.lineage import VOCABULARIES
from epvf_data.store.schema import COLUMNS

Doubt = tuple[str, str, Bool[np.ndarray, "rows ..."]]


@dataclass
class Tally:
    """Counts of bad values: (column, what is wrong) → how many there are, and the first row that has one."""

    found: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)

    def add(self, column: str, what: str, bad: Bool[np.ndarray, "rows ..."], first: int) -> None:
        """Counts the true entries of `bad`, whose first row is row `first` of the part."""
        count = int(np.count_nonzero(bad))
        if count:
            row = first + int(bad.reshape(len(bad), -1).any(1).argmax())
            before, earliest = self.found.get((column, what), (0, row))
            self.found[column, what] = (before + count, earliest)

    def sentences(self) -> Iterator[tuple[str, str]]:
        """Column and finding, such as "3 values are not finite, the first in row 5"."""
        for (column, what), (count, row) in self.found.items():
            yield column, f"{count} {'value is' if count == 1 else 'values are'} {what}, the first in row {row}"


def doubts(
    columns: Mapping[str, np.ndarray], words: Mapping[str, int], squashed: bool, horizons: Sequence[int]
) -> Iterator[Doubt]:
    """Column, what is wrong, and where: for some rows of a part, column → [rows, …].

    `words` is the size of each vocabulary; `squashed` says that the policy's actions lie in −1 to 1; `horizons` are the
    environments', in control steps. Nothing is given for a column without NaN or infinity: looking must be cheap.
    """
    for name, values in columns.items():
        if COLUMNS[name].dtype == "float32":
            finite = np.isfinite(values)
            if not finite.all():
                yield name, "not finite", ~finite
    if squashed and "probe_actions" in columns:
        yield "probe_actions", "beyond −1 to 1", np.abs(columns["probe_actions"]) > 1
    flags = {}
    for name in ("terminated", "truncated", "finite"):
        raw = np.ascontiguousarray(columns[name]).view(np.uint8)  # a stored flag may be any byte
        flags[name] = raw != 0
        yield name, "neither false nor true", raw > 1
    lengths = columns["lengths"]
    longest, named = max(horizons), " or ".join(map(str, sorted({*horizons})[:20]))
    yield "lengths", f"outside 0 to the horizon of {longest}", (lengths < 0) | (lengths > longest)
    yield (
        "finite",
        "true in an episode that is neither terminated nor truncated",
        flags["finite"] & ~flags["terminated"] & ~flags["truncated"],
    )
    early = flags["truncated"] & flags["finite"] & ~np.isin(lengths, horizons)
    yield "truncated", f"true in a finite episode whose length is not the horizon of {named}", early
    for name in VOCABULARIES:
        lowest = -1 if name in ("base", "run") else 0
        outside = (columns[name] < lowest) | (columns[name] >= words[name])
        yield name, f"outside the vocabulary of {words[name]} words", outside
    yield "scale", "negative", columns["scale"] < 0
    yield "sign", "neither −1, 0 nor +1", (columns["sign"] < -1) | (columns["sign"] > 1)
    yield "iteration", "below −1", columns["iteration"] < -1
