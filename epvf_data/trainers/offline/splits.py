"""Which rows are held out: relatives of the training rows, whole families, the best, a source, an architecture."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from epvf_data.errors import DatasetError
from epvf_data.store.splits import folds_by_lineage, split_by_lineage, split_iid
from epvf_data.trainers.offline.source import Rows, Source
from epvf_data.untrusted import printable, shown


class Split(NamedTuple):
    """Row numbers, ascending. Training uses `fit`, chooses by `validation`, and never looks at `test`."""

    fit: Rows
    validation: Rows
    test: Rows

    @property
    def train(self) -> Rows:
        return np.sort(np.concatenate([self.fit, self.validation]))


def make_splits(
    source: Source,
    name: str,
    test_fraction: float,
    validation_fraction: float,
    seed: int,
    held_out: str | None = None,
    folds: int = 1,
) -> list[Split]:
    """Test rows held out by `name`, and validation rows held out of the rest; by lineage so many folds.

    Over the folds every family is held out once (grouped cross-validation); with one fold, and otherwise than by
    lineage, the test rows are `test_fraction` of all. By lineage whole families are validation rows as well, and of the
    highest returns the highest that are left, so that choosing by them is choosing for the test; where the training
    rows are one family, validation rows are drawn singly.
    Of sources and architectures the one called `held_out` is held out, else the smallest.

    Raises DatasetError where there is nothing to hold out.
    """
    if name == "lineage" and folds > 1:
        parts = folds_by_lineage(source.families, folds, seed)
    else:
        parts = [_hold_out(source, name, test_fraction, seed, held_out)]
    return [_with_validation(source, name, train, test, validation_fraction, seed) for train, test in parts]


def _with_validation(
    source: Source, name: str, train: Rows, test: Rows, validation_fraction: float, seed: int
) -> Split:
    fit, validation = _hold_out_again(source, name, train, validation_fraction, seed + 1)
    split = Split(np.sort(train[fit]), np.sort(train[validation]), np.sort(test))
    if not all(len(part) for part in split):
        raise DatasetError(
            f"the {name} split left {len(split.fit)}, {len(split.validation)} and {len(test)} rows to fit, validate "
            "and test; each needs one: collect more rows, or change test_fraction or folds."
        )
    return split


def _hold_out(source: Source, name: str, fraction: float, seed: int, wanted: str | None) -> tuple[Rows, Rows]:
    """Training and test rows, each sorted."""
    count = len(source.labels)
    if name == "iid":
        return split_iid(count, fraction, seed)
    if name == "lineage":
        return split_by_lineage(source.families, fraction, seed)
    if name == "high":
        train, test = _highest(source.labels, fraction)
        if not len(train):
            raise DatasetError(
                f"all but the best returns are {source.labels.min():g}, so that a split by them leaves no rows to "
                "train on; choose another split."
            )
        if np.ptp(source.labels[test]) == 0:
            raise DatasetError(
                f"the {len(test)} highest returns are all {source.labels[test[0]]:g}, so that a split by them has "
                "nothing to rank; choose another split."
            )
        return train, test
    if name == "source":
        what, names = "sources of policies", sorted({*source.kinds})
        number = {
            name: place for place, name in enumerate(names)
        }  # an array of names would have the longest one's size
        labels = np.array([number[name] for name in source.kinds])
    else:
        what, labels = "architectures", source.places(np.arange(count))
        names = [spec.id for spec in source.specs]
    if len(names) < 2:
        raise DatasetError(f"a split by {name} needs two {what} at least; these rows have one.")
    chosen = int(np.argmin(np.bincount(labels)))
    if wanted is not None:
        fitting = [
            place for place, one in enumerate(names) if one == wanted or (name != "source" and one.startswith(wanted))
        ]
        if len(fitting) != 1:
            known = ", ".join(printable(one, 16) for one in names[:20])
            raise DatasetError(f"held_out is {shown(wanted)}, and these {what} are {known}.")
        chosen = fitting[0]
    test = labels == chosen
    return np.flatnonzero(~test), np.flatnonzero(test)


def _hold_out_again(
    source: Source, name: str, train: Rows, fraction: float, seed: int
) -> tuple[Int[np.ndarray, "f"], Int[np.ndarray, "v"]]:
    """Places in `train` to fit and to validate."""
    families = source.families[train]
    if name == "high":
        return _highest(source.labels[train], fraction)
    if name != "iid" and np.ptp(families) > 0:
        return split_by_lineage(families, fraction, seed)
    return split_iid(len(train), fraction, seed)


def _highest(labels: np.ndarray, fraction: float) -> tuple[Rows, Rows]:
    """The rows below and above the quantile; rows as good as the worst of the highest go up with it."""
    if not len(labels):
        return np.arange(0), np.arange(0)
    limit = np.quantile(labels, 1 - fraction, method="higher")
    return np.flatnonzero(labels < limit), np.flatnonzero(labels >= limit)
