"""What several seeds say together: the interquartile mean and bootstrap intervals over seeds.

The seeds of one variant are resampled with replacement, those of different variants independently, as Agarwal et al.,
"Deep Reinforcement Learning at the Edge of the Statistical Precipice" (2021) recommend for few runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

RESAMPLES = 2000
LEVEL = 0.95
_NUMBERS = 1 << 22  # resampled at a time
LEAST_SEEDS = 3  # with fewer, an interval says nothing

Statistic = Callable[[np.ndarray, int], np.ndarray]  # (values, axis of the seeds) → values without that axis


class Estimate(NamedTuple):
    """A number and its 95 % interval, each of the shape that the seeds' values have; infinite where never reached."""

    value: Float[np.ndarray, "..."]
    low: Float[np.ndarray, "..."]
    high: Float[np.ndarray, "..."]

    def below(self, limit: float) -> bool:
        return bool(self.high < limit)

    def above(self, limit: float) -> bool:
        return bool(self.low > limit)


def iqm(values: Float[np.ndarray, "..."], axis: int = 0) -> Float[np.ndarray, "..."]:
    """Interquartile mean along `axis`: the lowest and the highest quarter of the values (rounded down) are left out."""
    ordered = np.sort(np.asarray(values), axis=axis)
    count = ordered.shape[axis]
    return np.take(ordered, range(count // 4, count - count // 4), axis=axis).mean(axis=axis)


def median(values: Float[np.ndarray, "..."], axis: int = 0) -> Float[np.ndarray, "..."]:
    """The lower median, which is one of the values: it stays defined where some seeds never arrived (infinity)."""
    return np.quantile(values, 0.5, axis=axis, method="lower")


def estimate(
    values: Float[np.ndarray, "seeds ..."], statistic: Statistic = iqm, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """The statistic over the first axis and its percentile bootstrap interval, at every point of a curve at once."""
    low, high = _percentiles(_resampled(np.asarray(values), statistic, resamples, np.random.default_rng(seed)))
    return Estimate(statistic(np.asarray(values), 0), low, high)


def difference(
    first: Float[np.ndarray, "seeds"],
    second: Float[np.ndarray, "others"],
    statistic: Statistic = iqm,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """`first` minus `second`, each by its statistic, with the interval from independent resamples of both."""
    random = np.random.default_rng(seed)
    draws = [_resampled(np.asarray(values), statistic, resamples, random) for values in (first, second)]
    value = statistic(np.asarray(first), 0) - statistic(np.asarray(second), 0)
    return Estimate(np.asarray(value), *_percentiles(draws[0] - draws[1]))


def quotient(
    first: Float[np.ndarray, "seeds"], second: Float[np.ndarray, "others"], resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """Median of `first` over median of `second`, both positive; infinity over infinity counts as 1."""
    random = np.random.default_rng(seed)
    above, below = (_resampled(np.asarray(values), median, resamples, random) for values in (first, second))
    value = _divide(median(np.asarray(first), 0), median(np.asarray(second), 0))
    return Estimate(value, *_percentiles(_divide(above, below)))


def _divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    both = np.isinf(above) & np.isinf(below)
    return np.where(both, 1.0, np.where(both, 1.0, above) / np.where(both, 1.0, below))


def _resampled(values: np.ndarray, statistic: Statistic, resamples: int, random: np.random.Generator) -> np.ndarray:
    """[resamples, ...]: the statistic of as many resamples of the seeds; one resample holds for a whole curve."""
    chosen = random.integers(0, len(values), (resamples, len(values)))
    step = max(1, _NUMBERS // max(values.size, 1))
    return np.concatenate([statistic(values[some], 1) for some in np.split(chosen, range(step, resamples, step))])


def _percentiles(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    tail = (1.0 - LEVEL) / 2
    # Order statistics in place of interpolation, so that infinity does not turn into NaN.
    return (
        np.quantile(draws, tail, axis=0, method="lower"),
        np.quantile(draws, 1.0 - tail, axis=0, method="higher"),
    )
