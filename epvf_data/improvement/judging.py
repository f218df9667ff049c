"""What can be said of candidates without rolling them out: where to stop a climb, and which to try."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int


def sure(values: Float[np.ndarray, "J n"]) -> Float[np.ndarray, "n"]:
    """What judges are sure of: the mean of their V less its deviation over them; of one judge, its V."""
    return values.mean(0) - (values.std(0, ddof=1) if len(values) > 1 else 0.0)


def where_to_stop(sureness: Float[np.ndarray, "K n"], start: float = -np.inf, highest: float = np.inf) -> int:
    """The look at which the mean over candidates is highest; ties go to the earlier, shorter one.

    Where judges are less sure than they are of the `start`, a climb has left what they know, and no later look counts,
    however much they promise there; nor where they are surer than of the `highest` row that they were fitted on, for
    nothing has taught them what such returns look like. Where that is so from the first look on, it is the first,
    shortest one.
    """
    means = sureness.mean(1)
    lost = np.flatnonzero((means < start) | (means > highest))
    return int(np.argmax(means[: max(1, lost[0] if len(lost) else len(means))]))


def choose(sureness: Float[np.ndarray, "n"], count: int) -> Int[np.ndarray, "k"]:
    """The `count` candidates that the judges are surest of, the surest first."""
    return np.argsort(-sureness, kind="stable")[:count]
