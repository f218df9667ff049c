"""What an improvement found: numbers, and one honest sentence."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from epvf_data.scoring.estimate import Estimate, span, told
from epvf_data.trainers.improving.propose import Look


@dataclass(frozen=True)
class Tried:
    """One policy: where it came from, what critics say of it, and what real episodes say (None without them)."""

    start: int  # row of the data set from which it was made
    distance: float  # from there, in units of the parameters' spread
    promised: float | None
    judged: float | None
    screened: Estimate | None
    steps: int | None = None  # of the climb


@dataclass(frozen=True)
class Final:
    """Fresh episodes, from the same starts, of the three that were best when screened."""

    improved: Estimate
    best_row: Estimate
    random: Estimate
    over_row: Estimate  # pairs of episodes
    over_random: Estimate


@dataclass(frozen=True)
class Improvement:
    """Everything that improvement.json holds. `policies` are files, the one that is proposed first."""

    source: str
    method: str
    critic: str | None
    env: str
    horizon: int
    starts: str | None  # where episodes began
    start_noise: float | None
    budget: int  # episodes that were allowed
    episodes: int  # and that were spent
    rows: list[Tried]  # of the data, rolled out again
    stored: list[float]  # what the data says of them
    looks: list[Look]
    stop: int | None  # steps
    candidates: list[Tried]
    random: list[Tried]
    final: Final | None
    recorded: int  # rows that went into a data set
    policies: list[str]
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "looks": [one._asdict() for one in self.looks]}


def verdict(method: str, best: Tried, final: Final | None, stored: float, count: int, means: tuple) -> str:
    """One or two sentences that do not flatter. `means` are those of starts, candidates and random steps."""
    if final is None:
        promise = "" if best.promised is None else f"; the critics promise {best.promised:.2f}"
        return (
            f"Nothing was rolled out, so that nothing is known of the proposals{promise}. The best row is stored as "
            f"{stored:.2f}, which is not to be believed either."
        )
    row, random = final.over_row, final.over_random
    text = (
        f"The best of {count} proposals by '{method}' returns {told(final.improved)} in {final.improved.episodes} "
        f"fresh episodes, the best row of the data {told(final.best_row)} there (it is stored as {stored:.2f}): "
        f"{_compared(row)}. Against the best of as many random steps of the same length, {told(final.random)}, it is "
        f"{_compared(random)}."
    )
    starts, candidates, away = means
    return f"{text} On average starts return {starts:.2f}, proposals {candidates:.2f}, random steps {away:.2f}."


def _compared(gain: Estimate) -> str:
    """`better by 18.50 [2.01, 35.02]`, or that it is not."""
    if gain.interval is None:
        word = "better" if gain.mean > 0 else "worse" if gain.mean < 0 else "no better"
        return f"{word} by {abs(gain.mean):.2f}, one episode against one"
    numbers = f"{gain.mean:+.2f} {span(gain.interval, '+')}"
    if gain.interval[0] > 0:
        return f"better by {gain.mean:.2f} {span(gain.interval)}"
    return f"worse, {numbers}" if gain.interval[1] < 0 else f"no better as far as can be told, {numbers}"
