"""Train and test sets: at random, or by whole families of related policies."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, Int64

from epvf_data.errors import DatasetError


def split_iid(
    rows: int, test_fraction: float = 0.1, seed: int = 0
) -> tuple[Int64[np.ndarray, " train"], Int64[np.ndarray, " test"]]:
    """Row numbers of a random train and test set, each sorted. Both have at least one row.

    Perturbed siblings of a test row may lie in the training set; `split_by_lineage` keeps them together.
    """
    _check_fraction(test_fraction)
    if rows < 2:
        raise DatasetError(f"a split needs at least two rows; got {rows}.")
    count = min(rows - 1, max(1, round(rows * test_fraction)))
    order = np.random.default_rng(seed).permutation(rows)
    return np.sort(order[count:]), np.sort(order[:count])


def split_by_lineage(
    groups: Int[np.ndarray, " rows"], test_fraction: float = 0.1, seed: int = 0
) -> tuple[Int64[np.ndarray, " train"], Int64[np.ndarray, " test"]]:
    """Row numbers of a train and a test set that share no family of `groups` (`Table.groups`), each sorted.

    Families come in a random order and join the test set where that brings its share of rows nearer to the fraction;
    if none does, the smallest family is the test set. Raises DatasetError where there is only one family.
    """
    _check_fraction(test_fraction)
    _, labels, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(sizes) < 2:
        raise DatasetError(f"a split by lineage needs at least two families; these rows have {len(sizes)}.")
    wanted = len(labels) * test_fraction
    chosen = np.zeros(len(sizes), bool)
    count = 0
    for family in np.random.default_rng(seed).permutation(len(sizes)).tolist():
        if abs(count + sizes[family] - wanted) < abs(count - wanted):
            chosen[family] = True
            count += int(sizes[family])
    if not chosen.any():
        chosen[np.argmin(sizes)] = True
    if chosen.all():
        chosen[np.argmin(sizes)] = False
    test = chosen[labels]
    return np.flatnonzero(~test), np.flatnonzero(test)


def folds_by_lineage(
    groups: Int[np.ndarray, " rows"], folds: int, seed: int = 0
) -> list[tuple[Int64[np.ndarray, " train"], Int64[np.ndarray, " test"]]]:
    """Row numbers of a train and a test set for each fold, each sorted; a row is in one test set, with its family.

    The largest families come first, those of one size in a random order, each into the fold that has fewest rows. With
    as many folds as families, each family is left out once; with more there are no more folds than families.
    Raises DatasetError where there is only one family.
    """
    _, labels, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(sizes) < 2:
        raise DatasetError(f"a split by lineage needs at least two families; these rows have {len(sizes)}.")
    order = np.random.default_rng(seed).permutation(len(sizes))
    rows, place = np.zeros(min(folds, len(sizes)), np.int64), np.empty(len(sizes), np.int64)
    for family in order[np.argsort(-sizes[order], kind="stable")].tolist():
        place[family] = np.argmin(rows)
        rows[place[family]] += sizes[family]
    of_row = place[labels]
    return [(np.flatnonzero(of_row != fold), np.flatnonzero(of_row == fold)) for fold in range(len(rows))]


def _check_fraction(fraction: float) -> None:
    if not 0 < fraction < 1:
        raise DatasetError(f"test_fraction is {fraction}; it must lie between 0 and 1.")
