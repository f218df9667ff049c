"""Does a critic know how wrong it is? Seeds and ensemble members are taken as one ensemble."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from epvf_data.trainers.metrics import spearman

_TWO_SIDED = {0.5: 0.6745, 0.95: 1.96}  # half-width of a normal's interval in deviations


def calibrate(members: Float[np.ndarray, "M n"], true: Float[np.ndarray, "n"]) -> dict[str, Any] | None:
    """Coverage of mean ± k deviations over members, and whether errors are larger where members disagree.

    None for a single member, which has no spread.
    """
    if len(members) < 2:
        return None
    mean, spread = members.mean(0), members.std(0, ddof=1)
    error = np.abs(mean - true)
    return {
        "members": len(members),
        "coverage": {f"{share:g}": float(np.mean(error <= width * spread)) for share, width in _TWO_SIDED.items()},
        "spread_mean": float(spread.mean()),
        "error_mean": float(error.mean()),
        "error_spread_spearman": spearman(spread, error),
        "bias": float((mean - true).mean()),
    }
