"""Which rows are held out: relatives of the training rows, whole families, the best, a source, an architecture."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from epvf_data.errors import DatasetError
from epvf_data.store.splits import split_by_lineage, split_iid
from epvf_data.trainers.offline.source import Rows, Source

# Name → what the test rows are, as a sentence about the critic begins.
SPLITS = {
    "iid": "On held-out policies whose relatives it has seen",
    "lineage": "On families of policies that it never saw",
    "high": "On the policies of the highest returns, none of which it saw",
    "source": "On policies made in a way that it never saw",
    "architecture": "On policies of an architecture that it never saw",
}
PAIR = ("iid", "lineage")


class Split(NamedTuple):
    """Row numbers, ascending. Training uses `fit`, chooses by `validation`, and never looks at `test`."""

    fit: Rows
    validation: Rows
    test: Rows

    @property
    def train(self) -> Rows:
        return np.sort(np.concatenate([self.fit, self.validation]))


def parse_splits(text: str) -> tuple[str, ...]:
    """ "both" (iid and lineage), "all", or names with commas between them. Raises ValueError naming an unknown one."""
    if text in ("both", "all"):
        return PAIR if text == "both" else tuple(SPLITS)
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in SPLITS:
            raise ValueError(name)
    return tuple(dict.fromkeys(names))


def make_split(source: Source, name: str, test_fraction: float, validation_fraction: float, seed: int) -> Split:
    """Test rows held out by `name`, and validation rows held out of the rest.

    By lineage whole families are validation rows as well, and of the highest returns the highest that are left, so that
    choosing by them is choosing for the test; where the training rows are one family, validation rows are drawn singly.
    The smallest source or architecture is held out. Raises DatasetError where there is nothing to hold out.
    """
    train, test = _hold_out(source, name, test_fraction, seed)
    fit, validation = _hold_out_again(source, name, train, validation_fraction, seed + 1)
    split = Split(np.sort(train[fit]), np.sort(train[validation]), np.sort(test))
    if not all(len(part) for part in split):
        raise DatasetError(
            f"the {name} split left {len(split.fit)}, {len(split.validation)} and {len(test)} rows to fit, validate "
            "and test; each needs one: collect more rows or change test_fraction."
        )
    return split


def _hold_out(source: Source, name: str, fraction: float, seed: int) -> tuple[Rows, Rows]:
    """Training and test rows, each sorted."""
    count = len(source.labels)
    if name == "iid":
        return split_iid(count, fraction, seed)
    if name == "lineage":
        return split_by_lineage(source.families, fraction, seed)
    if name == "high":
        return _highest(source.labels, fraction)
    labels = np.unique(source.kinds, return_inverse=True)[1] if name == "source" else source.places(np.arange(count))
    sizes = np.bincount(labels)
    if len(sizes) < 2:
        what = "sources of policies" if name == "source" else "architectures"
        raise DatasetError(f"a split by {name} needs two {what} at least; these rows have one.")
    test = labels == int(np.argmin(sizes))
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
    limit = np.quantile(labels, 1 - fraction, method="higher")
    return np.flatnonzero(labels < limit), np.flatnonzero(labels >= limit)
