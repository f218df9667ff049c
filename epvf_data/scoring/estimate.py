"""Means of episodes, and what can be said of the difference between two policies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import stdtrit


@dataclass(frozen=True)
class Estimate:
    """The mean return of a policy over its episodes; what one episode cannot tell is None."""

    mean: float
    standard_error: float | None  # of the mean
    interval: list[float] | None  # 95 %, Student's t
    least: float
    greatest: float
    episodes: int


def estimate(returns: Float[np.ndarray, "E"], varies: bool = True) -> Estimate:
    """The estimate of one policy's returns. Where nothing varies, repeated episodes are one episode."""
    returns = np.asarray(returns, np.float64)
    mean, count = float(returns.mean()), len(returns)
    error, interval = None, None
    if varies and count > 1:
        error = float(returns.std(ddof=1) / np.sqrt(count))
        interval = around(mean, error, count)
    return Estimate(mean, error, interval, float(returns.min()), float(returns.max()), count)


def around(mean: float, error: float, count: int) -> list[float]:
    """The 95 % interval of a mean of `count` numbers with this standard error (Student 1908)."""
    half = float(stdtrit(count - 1, 0.975)) * error
    return [mean - half, mean + half]


def difference(first: Float[np.ndarray, "E"], second: Float[np.ndarray, "E"]) -> Estimate:
    """How much more the first policy returns than the second: episodes from the same starts are compared in pairs."""
    return estimate(np.asarray(first, np.float64) - np.asarray(second, np.float64))


def told(found: Estimate) -> str:
    """`391.2 ± 5.9`, where there is an error."""
    return f"{found.mean:.2f}" + ("" if found.standard_error is None else f" ± {found.standard_error:.2f}")


def span(interval: list[float] | None, sign: str = "") -> str:
    """`[379.50, 402.90]`; nothing where there is no interval."""
    return "" if interval is None else f"[{interval[0]:{sign}.2f}, {interval[1]:{sign}.2f}]"
