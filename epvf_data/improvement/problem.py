"""What a method of offline improvement is given, and the door to methods that are not this package's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from epvf_data import code
from epvf_data.errors import ConfigError
from epvf_data.improvement.methods import Method
from epvf_data.policies.kinds import Spec
from epvf_data.untrusted import printable


@dataclass(frozen=True)
class Problem:
    """Rows of a data set, and nothing that could be rolled out. Distances are in units of `spread`."""

    spec: Spec
    theta: Float[np.ndarray, "N P"]
    returns: Float[np.ndarray, "N"]  # mean undiscounted return that the data set says
    spread: Float[np.ndarray, "P"]  # of each parameter over the rows
    starts: Float[np.ndarray, "n P"]  # the rows to begin from, the best first
    count: int  # proposals at most
    seed: int
    env: str
    horizon: int  # control steps
    probe_states: Float[np.ndarray, "K O"] | None = None


def ask(method: Method, problem: Problem) -> Float[np.ndarray, "n P"]:
    """What the user's function proposes: `function(problem)` gives policies [n, P], the surest first.

    More than `problem.count` are cut. Raises ConfigError where the function fails or gives something else.
    """
    where = method.name
    if method.function is None:
        found = code.call(where, "proposals", problem)
    else:
        with code.blamed(where, "proposals"):
            found = method.function(problem)
    size = problem.spec.size
    try:
        theta = np.asarray(found, np.float32)
    except (TypeError, ValueError):
        raise ConfigError(f"{where} gives {printable(type(found).__name__)}; expected numbers [n, {size}].") from None
    if theta.ndim != 2 or theta.shape[1] != size or not len(theta):
        raise ConfigError(f"{where} gives proposals of the shape {list(theta.shape)}; expected [n, {size}], n ≥ 1.")
    theta = theta[: problem.count]
    if not np.isfinite(theta).all():
        raise ConfigError(f"{where} gives {np.count_nonzero(~np.isfinite(theta))} numbers that are not finite.")
    return theta
