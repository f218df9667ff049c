"""What the paper says its figures show, and what we ask of them; our runs judge it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from epvf_data.reproduction.figures import (
    ABLATIONS,
    BASELINES,
    CRITICS,
    OUR_ABLATIONS,
    REFERENCE_CRITICS,
    TIME_ABLATIONS,
)
from epvf_data.reproduction.summary import SOLVED, WINDOW, Measured
from epvf_data.reproduction.verdicts import (
    ALIKE,
    CANNOT_TELL,
    ENOUGH_ENVS,
    NO_RANKS,
    QUARTER,
    STRONG,
    Panel,
    Verdict,
    alike,
    competes,
    diminishing,
    enough,
    faster,
    grows,
    higher,
    ranks,
    reach,
)
from epvf_data.trainers.curves.statistics import LEAST_SEEDS

STATES = {
    "unfinished": "not finished",
    "failed": "not there, because it failed",
    "missing": "not there yet",
    "left out": "not there, because it was left out",
}


class Claim(NamedTuple):
    """A claim in our words, how it is judged, the variants that it needs (none: all), and the judge."""

    text: str
    judged: str
    needs: tuple[str, ...]
    judge: Callable[[Panel], Verdict]
    of: str = "paper"  # who says so; "ours" marks a question of our own


def judge(figure: str, scale: str, measured: Mapping[str, Measured], partly: bool = False) -> list[dict[str, Any]]:
    """Every claim about the figure with its verdict, for each set of settings that was run.

    `partly` leaves out claims about what is not in `measured`.
    """
    panels: dict[str, dict[str, Measured]] = {}
    for name, found in measured.items():
        panels.setdefault(found.variant.panel, {})[name.removeprefix("ours-")] = found
    found = [
        {"panel": name, "of": claim.of, "claim": claim.text, "judged": claim.judged}
        | _judge(claim, scale, panel)._asdict()
        for name, panel in panels.items()
        for claim in claims(figure, name)
        if not partly or (claim.needs and all(need in panel for need in claim.needs))
    ]
    return [one for one in found if not partly or one["evidence"] != NO_RANKS]


def _judge(claim: Claim, scale: str, panel: Panel) -> Verdict:
    """The claim's own verdict, where the runs that it needs are finished and long and many enough."""
    names = claim.needs or tuple(panel)
    for name in names:
        if name not in panel:
            return Verdict(CANNOT_TELL, f"There is no run `{name}`.")
        if panel[name].status != "finished":
            return Verdict(CANNOT_TELL, f"The run `{name}` is {STATES[panel[name].status]}.")
    for name in names:
        if (seeds := len(panel[name].final())) < LEAST_SEEDS:
            many = f"{seeds} seed{'s' * (seeds != 1)}"
            return Verdict(CANNOT_TELL, f"`{name}` has {many}; an interval needs at least {LEAST_SEEDS}.")
    if scale == "smoke":
        return Verdict(CANNOT_TELL, "Smoke runs are too short to learn.")
    return claim.judge(panel)


_PAIR = "final return at equal environment steps: the interval of the difference lies above 0"
_ALIKE = (
    f"final return at equal environment steps: the interval of the difference lies within ±{ALIKE:.0%} of the maximum"
)
_RANKS = (
    "rank correlation of Q with realised discounted returns over perturbed policies, over the second half of equal "
    "environment steps: the interval of the difference lies above 0"
)
_NOT_WORSE = (
    f"final return at equal environment steps: the interval of the difference lies above −{ALIKE:.0%} of the maximum"
)
_PASS = f"first iteration at which the perturbed return, averaged over {WINDOW} iterations, passes {SOLVED:.0f}"
_FINAL = f"final return: every interval lies above {SOLVED:.0f}"


def _above(text: str, first: str, second: str, of: str = "paper") -> Claim:
    return Claim(text, _PAIR, (first, second), partial(higher, first, second), of)


CLAIMS: dict[str, tuple[Claim, ...]] = {
    "fig1": (
        Claim(
            "More parallel environments converge faster.",
            f"{_PASS}: the interval of the ratio of 1 to 16 environments lies above 1",
            (),
            faster,
        ),
        Claim(
            "The perturbed policies reach the maximum of 500 with every number of environments.",
            _FINAL,
            (),
            partial(reach, "return_perturbed"),
        ),
        Claim(
            "More than 8 environments bring diminishing returns.",
            f"{_PASS}: the interval of the gain from 8 to 16 lies below that of a doubling between 1 and 8",
            ("envs-1", "envs-8", "envs-16"),
            diminishing,
        ),
        Claim("The unperturbed policy reaches 500 as well.", _FINAL, (), partial(reach, "return_unperturbed"), "ours"),
    ),
    "fig2-scaling": (
        Claim(
            "More environments with equal batch and buffer end higher.",
            "final return: the interval of most minus fewest lies above 0, and none between neighbours lies below 0",
            (),
            grows,
        ),
        Claim(
            f"At least {ENOUGH_ENVS:,} environments solve the task; fewer do not reach a quarter of the maximum.",
            f"final return: intervals above {STRONG:.0%} of the maximum from {ENOUGH_ENVS:,}, else below {QUARTER:.0%}",
            (),
            enough,
        ),
    ),
    "time": (),
    "fig2-ablations": (
        *(_above(f"The setup ends above its change “{label}”.", "best", name) for name, label, _ in ABLATIONS),
    ),
    "fig2-architectures": (
        _above("Probing actions alone do not reach raw parameters.", "critic-mlp", "critic-probing"),
        _above(
            "Probing actions with raw parameters improve on probing actions.", "critic-probing+raw", "critic-probing"
        ),
        _above("They still do not reach raw parameters alone.", "critic-mlp", "critic-probing+raw"),
        Claim(
            "UNF features with raw parameters reach the same return as raw parameters.",
            _ALIKE,
            ("critic-unf+raw", "critic-mlp"),
            partial(alike, "critic-unf+raw", "critic-mlp"),
        ),
        _above("UNF features alone do not reach raw parameters.", "critic-mlp", "critic-unf"),
        *(
            Claim(
                f"EPVF competes with {label}.", _NOT_WORSE, ("critic-mlp", name), partial(competes, "critic-mlp", name)
            )
            for name, label in BASELINES.items()
        ),
    ),
}


def claims(figure: str, panel: str) -> list[Claim]:
    """What is judged of a figure: the paper's claims on its settings, and our own questions."""
    mine = panel == "ours"
    found = list(CLAIMS[figure]) if not mine or figure == "fig2-scaling" else []
    if figure == "fig2-ablations":
        own = [(name, f"its change “{label}”") for name, label, _ in OUR_ABLATIONS] if mine else []
        own.append(("es", "OpenAI-ES on the same number of rollouts"))
        own += [("es-ours", "OpenAI-ES with our noise and normalised observations")] if mine else []
        found += [_above(f"The setup ends above {text}.", "best", name, "ours") for name, text in own]
    if figure == "time":
        own = [(name, label) for name, label, _ in TIME_ABLATIONS]
        own += [("epvf", "V(θ)"), ("es", "OpenAI-ES"), *BASELINES.items()]
        found += [_above(f"Q(s, a, θ) ends above: {label}.", "best", name, "ours") for name, label in own]
        found += [
            Claim(
                f"Q(s, a, θ) ranks perturbed policies better than: {label}.",
                _RANKS,
                ("best", name),
                partial(ranks, "best", name),
                "ours",
            )
            for name, label, _ in TIME_ABLATIONS[:3]  # those that take z away
        ]
    if figure == "fig2-architectures":
        best = f"critic-{REFERENCE_CRITICS[panel]}"
        others = ("mlp", "linear", "probing") if mine else ("linear", "probing-ridge")
        against = [("es", "OpenAI-ES on the same number of rollouts"), ("random", "random search")]
        against += [(f"critic-{name}", f"the critic “{CRITICS[name]}”") for name in others]
        for name, text in against:
            found.append(
                _above(f"The critic “{CRITICS[REFERENCE_CRITICS[panel]]}” ends above {text}.", best, name, "ours")
            )
    return found
