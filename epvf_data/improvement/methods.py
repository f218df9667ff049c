"""The methods of offline improvement by name: what each climbs, what it asks of the critics; nothing heavy is imported.

V_1 … V_M are critics from different initialisations. The first half of them climbs, the others judge: how far a climb
goes and which candidates are worth a rollout is said by critics that the climb has not exploited.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from epvf_data import code
from epvf_data.config import Part
from epvf_data.errors import ConfigError
from epvf_data.untrusted import shown

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float

    from epvf_data.improvement.problem import Problem

BLIND = ("none", "random", "spend", "own")  # averages, random steps, real rollouts, and a function of the user's


@dataclass(frozen=True)
class Method(Part):
    """One line about a method, and the settings of `train-offline` that its critics need."""

    about: str
    source: str
    climbs: str  # "one" critic each, an ensemble's "mean", "min" or "lower" bound; "search" V; BLIND have no critic
    critic: Mapping[str, Any] = field(default_factory=dict)
    plain: bool = False  # steps follow ∇V itself; else they have a fixed length
    function: Callable[[Problem], Float[np.ndarray, "n P"]] | None = None  # of the user's, passed from Python
    name: str = ""  # of that

    @classmethod
    def of(cls, given: Any) -> Method:
        """See `own_method`."""
        return given if isinstance(given, Method) else own_method(given)

    @property
    def learns(self) -> bool:
        """Whether it needs critics."""
        return self.climbs not in BLIND


METHODS: dict[str, Method] = {
    "ascent": Method("every start climbs one critic", "textbook", "one"),
    "mean": Method("climbs the mean of the ensemble", "Trabucco et al. 2022", "mean"),
    "min": Method("climbs the least of the ensemble", "Trabucco et al. 2022", "min"),
    "lower": Method("climbs the ensemble's mean less one deviation", "textbook", "lower"),
    "coms": Method(
        "critics that were taught not to promise more along the climb",
        "Trabucco et al. 2021",
        "one",
        {"conservative": 0.5},
        plain=True,
    ),
    "rank": Method("climbs critics of the order, not of the return", "Burges et al. 2005", "mean", {"loss": "rank"}),
    "listnet": Method(
        "the same on critics of which row is best", "Cao et al. 2007; Tan et al. 2025", "mean", {"loss": "listnet"}
    ),
    "rank-top": Method(
        "the same on critics of the order among the best and between them and the rest",
        "Lyu et al. 2026",
        "mean",
        {"loss": "rank-top"},
    ),
    "random": Method("steps in random directions: a control without a critic", "textbook", "random"),
    "average": Method("averages of the best rows: a control without a critic", "Wortsman et al. 2022", "none"),
    "cma-es": Method(
        "separable CMA-ES on the ensemble's mean: a control without gradients", "Ros and Hansen 2008", "search"
    ),
    "es": Method(
        "an evolution strategy that spends the data set's own number of episodes: a control without a critic",
        "Salimans et al. 2017",
        "spend",
    ),
}


def method_of(method: str | Method) -> Method:
    """The method of that name; FILE.py:FUNCTION stands for one of the user's own."""
    if isinstance(method, Method):
        return method
    return METHODS[method] if method in METHODS else Method("yours", method, "own", name=method)


def own_method(function: Callable[[Problem], Float[np.ndarray, "n P"]]) -> Method:
    """A function of the user's as a method: it is given a `Problem` and gives policies, the surest first.

    Raises ConfigError for what is no function.
    """
    if not callable(function):
        raise ConfigError(f"the method is {shown(function)}; expected a name, FILE.py:FUNCTION or a function.")
    return Method("yours", "you", "own", function=function, name=code.name_of(function))


def name_of(method: str | Method) -> str:
    """As reports have it."""
    return method if isinstance(method, str) else method.name
