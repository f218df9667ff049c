"""Rows as a table of pandas: what can be said of a policy in one number or word; parameters stay in the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from epvf_data.errors import extra
from epvf_data.store.lineage import VOCABULARIES
from epvf_data.store.table import Table

if TYPE_CHECKING:
    import pandas  # pyright: ignore[reportMissingImports]

NUMBERS = ("scale", "sign", "iteration")


def to_frame(tables: list[Table]) -> pandas.DataFrame:
    """One line a row of the data set, architecture by architecture; see `Dataset.to_pandas`."""
    with extra():
        import pandas  # pyright: ignore[reportMissingImports]
    frames = [pandas.DataFrame(_columns(table)) for table in tables]
    frame = pandas.concat(frames, ignore_index=True) if frames else pandas.DataFrame()
    words = [name for name in ("architecture", *VOCABULARIES) if name in frame]
    return frame.astype(dict.fromkeys(words, "category"))


def _columns(table: Table) -> dict[str, Any]:
    returns = [piece.astype(np.float64) for piece in table.pieces("returns")]
    flags = {name: _each(table, name, np.all) for name in ("terminated", "finite")}
    found: dict[str, Any] = {
        "architecture": [str(table.spec)] * table.rows,
        "row": np.arange(table.rows),
        "return": np.concatenate([piece.mean(1) for piece in returns]),
        "return_min": np.concatenate([piece.min(1) for piece in returns]),
        "return_max": np.concatenate([piece.max(1) for piece in returns]),
        "episodes": np.concatenate([np.full(len(piece), piece.shape[1]) for piece in returns]),
        "length": _each(table, "lengths", np.mean),
        **flags,
    }
    for name in VOCABULARIES:
        words = np.array([*table.vocabulary(name), None], object)  # −1, the last, is none
        found[name] = words[table.column(name)]
    return {**found, **{name: table.column(name) for name in NUMBERS}}


def _each(table: Table, name: str, over: Any) -> np.ndarray:
    return np.concatenate([over(piece, axis=1) for piece in table.pieces(name)])
