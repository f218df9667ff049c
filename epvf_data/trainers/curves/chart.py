"""Curves in letters, for a terminal of any encoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

MARKS = "*o+x#@%&"  # of curves, one after the other
MARGIN = 11  # columns left of the chart


class Line(NamedTuple):
    """One curve: `place` ascends; a point stands for a curve of one place."""

    mark: str
    place: Float[np.ndarray, "n"]
    value: Float[np.ndarray, "n"]


def chart(lines: Sequence[Line], width: int, height: int, below: str) -> list[str]:
    """A chart of `width` × `height` letters with its axes, `below` being what is counted along the lower one.

    Later curves lie on top of earlier ones. Empty where no curve has a point.
    """
    lines = [line for line in lines if len(line.place)]
    if not lines:
        return []
    left, right = min(line.place[0] for line in lines), max(line.place[-1] for line in lines)
    values = np.concatenate([line.value for line in lines])
    low, high = float(values.min()), float(values.max())
    paper = [[" "] * width for _ in range(height)]
    places = np.linspace(left, right, width) if right > left else np.array([right])
    for line in lines:
        for column, place in enumerate(places):
            if line.place[0] <= place <= line.place[-1]:
                share = (float(np.interp(place, line.place, line.value)) - low) / (high - low) if high > low else 0.5
                paper[height - 1 - round(share * (height - 1))][column] = line.mark
    drawn = []
    for number, row in enumerate(paper):
        tick = {0: high, height - 1: low}.get(number) if high > low else (high if number == height // 2 else None)
        label = "" if tick is None else f"{tick:,.2f}"
        drawn.append(f"{label:>{MARGIN - 2}} |{''.join(row)}".rstrip())
    ends = f"{left:,.0f}", f"{right:,.0f} {below}"
    return [
        *drawn,
        f"{'':{MARGIN - 2}} +{'-' * width}",
        f"{'':{MARGIN}}{ends[0]}{ends[1]:>{max(1, width - len(ends[0]))}}",
    ]
