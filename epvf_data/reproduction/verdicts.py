"""How the runs of a figure judge a claim: by intervals over seeds, never by single values."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from epvf_data.reproduction.summary import SOLVED, Measured
from epvf_data.trainers.curves.read import RANK
from epvf_data.trainers.curves.statistics import Estimate, difference, estimate, median, quotient

AGREES, DISAGREES, CANNOT_TELL = "agrees", "disagrees", "cannot tell at this scale"
ALIKE = 0.1  # of the maximum return: less than this apart counts as the same performance
LEARNED = 0.05  # of the maximum return: where both stay below, nothing was learned that could differ
QUARTER, STRONG = 0.25, 0.9  # of the maximum return: "a quarter of the maximum", "solve the task"
ENOUGH_ENVS = 2048
NO_RANKS = "Their logs have no rank correlations."

Panel = Mapping[str, Measured]  # the variants of one set of settings, names without its prefix


class Verdict(NamedTuple):
    verdict: str
    evidence: str  # numbers with intervals, or why there are none


def show(found: Estimate, digits: int = 1) -> str:
    """`12.3 [11.0, 13.5]`, of one seed `12.3`; what was never reached is `never`."""
    value, low, high = (f"{float(x):,.{digits}f}" if np.isfinite(x) else "never" for x in found)
    return value if value == low == high else f"{value} [{low}, {high}]"  # one seed, or never in any


def _named(found: Measured, value: Estimate, digits: int = 1) -> str:
    return f"{found.variant.label} {show(value, digits)}"


def _by(value: Estimate, low: float = 0.0, high: float = 0.0) -> str:
    """Agrees above `high`, disagrees below `low`."""
    return AGREES if value.above(high) else DISAGREES if value.below(low) else CANNOT_TELL


def _side(value: Estimate, limit: float) -> int:
    """1: the interval lies above the limit; −1: below; 0: on both sides."""
    return int(value.above(limit)) - int(value.below(limit))


def _pair(panel: Panel, first: str, second: str) -> tuple[Estimate, str, float, bool]:
    """First minus second in final return at equal environment steps, its evidence, the maximum, whether one learned."""
    a, b = panel[first], panel[second]
    steps = min(a.steps, b.steps)
    finals = [found.final(steps=steps) for found in (a, b)]
    gap = difference(finals[0], finals[1])
    shown = [estimate(values) for values in finals]
    both = ", ".join(_named(found, value) for found, value in zip((a, b), shown, strict=True))
    evidence = f"{both} at {steps / 1e6:,.3g} M environment steps; difference {show(gap)}."
    return gap, evidence, a.max_return, any(value.high >= LEARNED * a.max_return for value in shown)


def higher(first: str, second: str, panel: Panel) -> Verdict:
    """`first` ends above `second`."""
    gap, evidence, most, learned = _pair(panel, first, second)
    if not learned:
        return Verdict(CANNOT_TELL, f"{evidence} Neither learns more than {LEARNED:.0%} of the maximum of {most:,.0f}.")
    return Verdict(_by(gap), evidence)


def alike(first: str, second: str, panel: Panel) -> Verdict:
    """Both end within ALIKE of the maximum of each other."""
    gap, evidence, most, learned = _pair(panel, first, second)
    if not learned:
        return Verdict(CANNOT_TELL, f"{evidence} Neither learns more than {LEARNED:.0%} of the maximum of {most:,.0f}.")
    margin = ALIKE * most
    inside, outside = gap.above(-margin) and gap.below(margin), gap.above(margin) or gap.below(-margin)
    return Verdict(AGREES if inside else DISAGREES if outside else CANNOT_TELL, evidence)


def competes(first: str, second: str, panel: Panel) -> Verdict:
    """`first` ends at most ALIKE of the maximum below `second`."""
    gap, evidence, most, _ = _pair(panel, first, second)
    return Verdict(_by(gap, -ALIKE * most, -ALIKE * most), evidence)


def ranks(first: str, second: str, panel: Panel) -> Verdict:
    """The critic of `first` ranks perturbed policies better, over the second half of equal environment steps."""
    pair = panel[first], panel[second]
    steps = min(found.steps for found in pair)
    values = [found.final(RANK, steps, 0.5) for found in pair]
    if not all(len(one) for one in values):
        return Verdict(CANNOT_TELL, NO_RANKS)
    gap = difference(values[0], values[1])
    both = ", ".join(_named(found, estimate(one), 2) for found, one in zip(pair, values, strict=True))
    return Verdict(
        _by(gap), f"Spearman: {both} up to {steps / 1e6:,.3g} M environment steps; difference {show(gap, 2)}."
    )


def faster(panel: Panel) -> Verdict:
    """The most environments pass the threshold in fewer iterations than one environment."""
    shown = [_named(found, estimate(found.passes()[0], median), 0) for found in panel.values()]
    ratio = quotient(panel["envs-1"].passes()[0], panel["envs-16"].passes()[0])
    evidence = f"Iterations: {', '.join(shown)}. From 1 to 16 environments {show(ratio)} times fewer."
    return Verdict(_by(ratio, 1.0, 1.0), evidence)


def diminishing(panel: Panel) -> Verdict:
    """Doubling 8 environments gains less than one of the three doublings before it."""
    passes = {envs: panel[f"envs-{envs}"].passes()[0] for envs in (1, 8, 16)}
    before, after = quotient(passes[1], passes[8]), quotient(passes[8], passes[16])
    before = Estimate(*(np.cbrt(value) for value in before))
    verdict = AGREES if after.high < before.low else DISAGREES if after.low > before.high else CANNOT_TELL
    evidence = f"From 8 to 16 {show(after, 2)} times fewer iterations, a doubling up to 8 on average {show(before, 2)}."
    return Verdict(verdict, evidence)


def reach(key: str, panel: Panel) -> Verdict:
    """All end above CartPole's threshold."""
    finals = [estimate(found.final(key)) for found in panel.values()]
    shown = ", ".join(_named(found, value) for found, value in zip(panel.values(), finals, strict=True))
    if all(value.above(SOLVED) for value in finals):
        return Verdict(AGREES, f"{shown}.")
    return Verdict(DISAGREES if any(value.below(SOLVED) for value in finals) else CANNOT_TELL, f"{shown}.")


def grows(panel: Panel) -> Verdict:
    """The most environments end above the fewest, and no step between them loses."""
    names = sorted(panel, key=lambda name: panel[name].config["envs"])
    gap, evidence, most, learned = _pair(panel, names[-1], names[0])
    finals = ", ".join(_named(panel[name], estimate(panel[name].final())) for name in names)
    if not learned:
        return Verdict(CANNOT_TELL, f"{finals}. None learns more than {LEARNED:.0%} of the maximum of {most:,.0f}.")
    losses = [
        f"{panel[more].variant.label} end below {panel[fewer].variant.label}"
        for fewer, more in pairwise(names)
        if _pair(panel, more, fewer)[0].below(0.0)
    ]
    evidence = f"{finals}. {evidence} {'; '.join(losses)}{'.' * bool(losses)}".strip()
    verdict = _by(gap)
    return Verdict(CANNOT_TELL if verdict == AGREES and losses else verdict, evidence)


def enough(panel: Panel) -> Verdict:
    """From ENOUGH_ENVS the task is solved; below it not a quarter of the maximum is reached."""
    finals = {name: estimate(found.final()) for name, found in panel.items()}
    shown = ", ".join(
        f"{_named(panel[name], value)} of {panel[name].max_return:,.0f}" for name, value in finals.items()
    )
    many = [name for name in panel if panel[name].config["envs"] >= ENOUGH_ENVS]
    few = [name for name in panel if name not in many]
    if not many or not few:
        return Verdict(CANNOT_TELL, f"The runs have environments on one side of {ENOUGH_ENVS:,} only. {shown}.")
    solved = [_side(finals[name], STRONG * panel[name].max_return) for name in many]
    struggle = [-_side(finals[name], QUARTER * panel[name].max_return) for name in few]
    worst = min(*solved, *struggle)
    return Verdict(AGREES if worst > 0 else DISAGREES if worst < 0 else CANNOT_TELL, f"{shown}.")
