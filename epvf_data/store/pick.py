"""One row of a data set by what it is worth, or by its number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from epvf_data.errors import ConfigError, DatasetError
from epvf_data.untrusted import printable

if TYPE_CHECKING:
    from epvf_data.store.reader import Dataset
    from epvf_data.store.table import Table

NAMED = ("best", "median", "worst")


def check_row(row: str) -> None:
    """Raises ConfigError for what names no row of any data set."""
    if row not in NAMED and (not row.isdecimal() or len(row) > 18):
        raise ConfigError(f"row '{printable(row)}' was asked for; expected {', '.join(NAMED)} or a number.")


def pick_row(dataset: Dataset, row: str, architecture: str | None = None) -> tuple[Table, int]:
    """The row's table and its number there.

    `row` is `best`, `median` or `worst` by mean return over episodes, among all rows or those of `architecture`, or the
    number of a row of one architecture. Raises ConfigError or DatasetError where there is no such row.
    """
    check_row(row)
    if row not in NAMED:
        table = dataset.table(architecture)
        if int(row) >= table.rows:
            raise DatasetError(f"row {row} was asked for; there are the rows 0 to {table.rows - 1}.")
        return table, int(row)
    if architecture is not None or len(dataset.architectures) < 2:
        tables = [dataset.table(architecture)]
    else:
        tables = [dataset.table(item.id) for item in dataset.architectures]
    import numpy as np  # imported late: names of rows are checked without

    means = [table.mean_returns() for table in tables]
    every = np.concatenate(means)
    good = np.flatnonzero(np.isfinite(every))
    if not good.size:
        raise DatasetError(f"no row of {dataset.path} has a finite return.")
    order = good[np.argsort(every[good], kind="stable")]
    chosen = int(order[{"worst": 0, "median": len(order) // 2, "best": -1}[row]])
    starts = np.cumsum([0, *map(len, means)])
    place = int(np.searchsorted(starts, chosen, side="right")) - 1
    return tables[place], chosen - int(starts[place])
