"""How well predicted returns match true ones. NumPy and SciPy only; every function returns finite numbers or None.

scipy.stats is imported where it is called: half a second that a run which asks for no rank should not wait for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

Vector = Float[np.ndarray, "n"]
MIN_MEMBERS = 10  # of a family whose order among themselves says anything
MIN_FAMILIES = 5  # fewer families say nothing about their spread; then rows are resampled


def _constant(values: np.ndarray) -> bool:
    return len(values) < 2 or not np.ptp(values) > 0


def spearman(predicted: Vector, true: Vector) -> float:
    """Pearson correlation of average ranks, in [−1, 1]; 0.0 where either side is constant."""
    if _constant(predicted) or _constant(true):
        return 0.0
    from scipy.stats import rankdata

    a, b = rankdata(predicted), rankdata(true)
    a, b = a - a.mean(), b - b.mean()
    return float(np.clip((a @ b) / math.sqrt((a @ a) * (b @ b)), -1.0, 1.0))


def kendall(predicted: Vector, true: Vector) -> float:
    """Kendall's τ-b, which corrects for ties, in [−1, 1]; 0.0 where either side is constant."""
    if _constant(predicted) or _constant(true):
        return 0.0
    from scipy.stats import kendalltau

    method = "asymptotic" if len(true) > 2 else "exact"  # the quick one divides by zero for two rows
    found: Any = kendalltau(predicted, true, method=method)
    return float(found.statistic)


def r2(predicted: Vector, true: Vector) -> float:
    """1 − Σ(true − predicted)² / Σ(true − mean true)²; at most 1, 0.0 for constant true returns.

    The mean is that of the rows at hand, so a predictor that answers the training mean scores at most 0.
    """
    spread = np.square(true - true.mean()).sum()
    return float(1.0 - np.square(true - predicted).sum() / spread) if spread > 0 else 0.0


def mean_absolute_error(predicted: Vector, true: Vector) -> float:
    """Mean of |predicted − true|, in units of the return."""
    return float(np.abs(predicted - true).mean())


def top_tenth(true: Vector) -> np.ndarray:
    """Mask of the rows whose true return is among the highest tenth, at least one row; ties with the last one enter."""
    count = max(1, math.ceil(len(true) / 10))
    return true >= np.partition(true, len(true) - count)[len(true) - count]


def top_tenth_error(predicted: Vector, true: Vector) -> float:
    """Mean absolute error on the highest tenth by true return, in units of the return."""
    best = top_tenth(true)
    return mean_absolute_error(predicted[best], true[best])


def regret(predicted: Vector, true: Vector, k: int) -> float:
    """Best true return of all minus the best among the k rows predicted best, in units of the return, at least 0.

    Ties in the prediction are broken at random; this is the exact expectation over that choice.
    """
    k = min(k, len(true))
    last = np.sort(predicted)[len(predicted) - k]
    above, tied = true[predicted > last], np.sort(true[predicted == last])[::-1]
    draws, floor = k - len(above), above.max() if len(above) else -np.inf
    expected, missed = 0.0, 1.0  # `missed`: chance that none of the better tied rows was drawn
    for rank, best in enumerate(tied):
        hit = missed * min(1.0, draws / (len(tied) - rank))
        expected += hit * max(best, floor)
        missed -= hit
        if missed <= 1e-12:
            break
    return float(max(0.0, true.max() - expected))


def label_variances(returns: Float[np.ndarray, "n E"]) -> Vector:
    """Variance of each policy's mean return: the unbiased variance between its E episodes over E; NaN where E is 1."""
    episodes = returns.shape[1]
    if episodes == 1:
        return np.full(len(returns), np.nan)
    return returns.var(axis=1, ddof=1) / episodes


def noise_ceiling(labels: Vector, variances: Vector, random_start: bool | None) -> tuple[float | None, str]:
    """The highest R² that any critic can reach on labels that are means of E episodes, and what it rests on.

    1 − σ²_within / (E σ²_total): `variances` (from `label_variances`) estimate σ²_within / E, and σ²_total is the
    variance between the labels. Where nothing is random (`random_start` False: a fixed start, and no policy samples its
    actions) it is 1; with one episode a policy and a random or unknown start it cannot be known (None).
    """
    if random_start is False:
        return (
            1.0,
            "The start is fixed: one episode is a row's exact return; how far rounding made it, `evaluate` tells.",
        )
    known = variances[~np.isnan(variances)]
    if not len(known):
        return None, "One episode a policy does not tell noise from skill; collect with several episodes."
    total = labels.var(ddof=1) if len(labels) > 1 else 0.0
    if not total > 0:
        return None, "All returns are equal, so there is nothing to explain."
    ceiling = 1.0 - known.mean() / total
    return float(np.clip(ceiling, 0.0, 1.0)), "What the episodes of one policy differ by, no critic can know."


POINTS: Mapping[str, Callable[[Vector, Vector], float]] = {
    "spearman": spearman,
    "kendall": kendall,
    "r2": r2,
    "mean_absolute_error": mean_absolute_error,
    "top_tenth_error": top_tenth_error,
}


def measure(predicted: Float[np.ndarray, "S n"], true: Vector) -> dict[str, Any]:
    """All metrics of S predictors of the same rows, each the mean over predictors, and notes on what is undefined.

    `iqm` is the interquartile mean over predictors (Agarwal et al. 2021).
    """
    from scipy.stats import trim_mean

    best = top_tenth(true)
    result: dict[str, Any] = {
        name: float(np.mean([metric(row, true) for row in predicted])) for name, metric in POINTS.items()
    }
    result["per_seed"] = {name: [POINTS[name](row, true) for row in predicted] for name in ("spearman", "r2")}
    result["iqm"] = {name: float(trim_mean(values, 0.25)) for name, values in result["per_seed"].items()}
    result["top_tenth"] = {
        "rows": int(best.sum()),
        "mean_absolute_error": result.pop("top_tenth_error"),
        "bias": float(np.mean([(row[best] - true[best]).mean() for row in predicted])),
        "spearman": float(np.mean([spearman(row[best], true[best]) for row in predicted])),
    }
    result["regret"] = {str(k): float(np.mean([regret(row, true, k) for row in predicted])) for k in (1, 5, 10)}
    result["notes"] = []
    if any(_constant(row) for row in predicted):
        result["notes"].append("The prediction is constant: correlations are undefined and reported as 0.")
    if _constant(true):
        result["notes"].append("All true returns are equal: correlations and R² are undefined and reported as 0.")
    return result


def within(predicted: Float[np.ndarray, "S n"], true: Vector, families: Int[np.ndarray, "n"]) -> dict[str, Any] | None:
    """Rank correlation among the rows of each family of at least `MIN_MEMBERS`, means over predictors and families.

    What differs between families, which is most of what there is to know, counts for nothing here. None without such
    families; those whose true returns are all equal are none.
    """
    each = [
        float(np.mean([spearman(own[rows], true[rows]) for own in predicted]))
        for rows in (np.flatnonzero(families == name) for name in _names(families))
        if not _constant(true[rows])
    ]
    return {"spearman": float(np.mean(each)), "families": len(each), "each": each} if each else None


def _names(families: Int[np.ndarray, "n"]) -> list[int]:
    """Families of enough rows to be ranked among themselves."""
    names, counts = np.unique(families, return_counts=True)
    return names[counts >= MIN_MEMBERS].tolist()


def interval_of_mean(values: Sequence[float], seed: int, times: int = 1000) -> list[float]:
    """95 % percentile bootstrap interval of a mean over independent values."""
    found = np.asarray(values)
    return interval(found[np.random.default_rng(seed).integers(0, len(found), (times, len(found)))].mean(1))


def resample(count: int, families: Int[np.ndarray, "n"] | None, times: int, seed: int) -> list[np.ndarray]:
    """Bootstrap resamples of row numbers: whole families where there are enough of them, single rows otherwise.

    Rows of one family resemble each other, so resampling rows would claim more certainty than there is.
    """
    random = np.random.default_rng(seed)
    names = np.unique(families) if families is not None else np.empty(0)
    if families is None or len(names) < MIN_FAMILIES:
        return [random.integers(0, count, count) for _ in range(times)]
    members = [np.flatnonzero(families == name) for name in names]
    picks = random.integers(0, len(members), (times, len(members)))
    return [np.concatenate([members[family] for family in pick]) for pick in picks]


def bootstrap(
    predicted: Float[np.ndarray, "S n"], true: Vector, samples: list[np.ndarray], seed: int
) -> dict[str, Float[np.ndarray, "T"]]:
    """Each metric of `POINTS` on each resample of the rows, averaged over predictors that are resampled as well.

    The same `samples` for two critics give paired values, whose difference can be judged (Efron and Tibshirani 1993).
    """
    draws = np.random.default_rng(seed).integers(0, len(predicted), (len(samples), len(predicted)))
    values = {name: np.empty(len(samples)) for name in POINTS}
    for place, (rows, seeds) in enumerate(zip(samples, draws, strict=True)):
        chosen, counts = np.unique(seeds, return_counts=True)
        for name, metric in POINTS.items():
            each = [metric(predicted[one][rows], true[rows]) for one in chosen]
            values[name][place] = np.average(each, weights=counts)
    return values


def interval(values: Float[np.ndarray, "T"]) -> list[float]:
    """The middle 95 % of bootstrap values: [2.5th, 97.5th percentile]."""
    low, high = np.percentile(values, [2.5, 97.5])
    return [float(low), float(high)]
