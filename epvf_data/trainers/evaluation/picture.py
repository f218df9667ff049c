"""The picture of an evaluation: errors against disagreement, gradients against ES, returns along gradient ascent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from epvf_data.pictures import COLOURS, blank
from epvf_data.trainers.evaluation.compare import label
from epvf_data.untrusted import picture_text

BELOW = {"fontsize": 8, "frameon": False, "loc": "upper center", "bbox_to_anchor": (0.5, -0.14), "ncols": 2}


def draw(
    found: Mapping[str, Any],
    true: Float[np.ndarray, "n"],
    mean: Float[np.ndarray, "n"],
    spread: Float[np.ndarray, "n"],
) -> Figure:
    """The picture of what evaluation.json holds, and of the test rows behind its calibration."""
    parts = [name for name in ("calibration", "gradient", "improvement") if found[name] is not None]
    figure = blank(5.2 * max(1, len(parts)), 5.0)
    title = f"{found['critic']} ({found['loss']}), split {found['split']}: {picture_text(found['run'], 120)}"
    figure.suptitle(title, fontsize=11)
    axes = iter(np.atleast_1d(figure.subplots(1, max(1, len(parts)))))
    if found["calibration"] is not None:
        _calibration(next(axes), found["calibration"], np.abs(mean - true), spread)
    if found["gradient"] is not None:
        _gradient(next(axes), found["gradient"])
    if found["improvement"] is not None:
        _improvement(next(axes), found["improvement"])
    return figure


def _calibration(axes: Axes, found: Mapping[str, Any], error: np.ndarray, spread: np.ndarray) -> None:
    within = f"{100 * found['coverage']['0.95']:.0f} %"
    axes.scatter(spread, error, s=8, alpha=0.5, linewidths=0, color=COLOURS[0], label="a held-out policy")
    limit = float(max(spread.max(), 1e-9))
    axes.plot([0, limit], [0, 1.96 * limit], color="black", linestyle="--", linewidth=1, label="1.96 deviations")
    axes.set_xlabel(f"standard deviation over {found['members']} critics")
    axes.set_ylabel("|error| of their mean")
    axes.set_title(f"calibration: {within} of the errors below the line (95 % if calibrated)", fontsize=10)
    axes.legend(**BELOW)


def _gradient(axes: Axes, found: Mapping[str, Any]) -> None:
    order = range(len(found["per_policy"]))
    axes.axhspan(-found["chance"], found["chance"], color="grey", alpha=0.2, linewidth=0, label="chance")
    axes.vlines(order, 0, found["per_policy"], color=COLOURS[0], linewidth=2)
    axes.plot(order, found["per_policy"], "o", color=COLOURS[0], label="one policy")
    if found["ceiling"] is not None:
        axes.axhline(found["ceiling"], color=COLOURS[1], linewidth=1.2, label="what the true gradient would reach")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xticks(list(order), [str(number + 1) for number in order])
    axes.set_xlabel("policy, the best first")
    axes.set_ylabel("cosine of ∇V and the ES gradient")
    mean = f"{found['cosine']:.3f} [{found['interval'][0]:.3f}, {found['interval'][1]:.3f}]"
    axes.set_title(f"gradient: mean cosine and 95 % interval {mean}", fontsize=10)
    axes.legend(**BELOW)


def _improvement(axes: Axes, found: Mapping[str, Any]) -> None:
    steps, predicted = [one["steps"] for one in found["climb"]], [one["predicted"] for one in found["climb"]]
    low = min([0.0, found["start_mean"], *(one["mean"] for one in (*found["climb"], *found["random"]))])
    high = max([found["best_in_data"], *(one["best"] for one in found["climb"])])
    top = high + 0.25 * (high - low or 1.0)  # wild predictions leave the picture, and the legend says so
    for name, key, line in (("gradient ascent: best", "best", "-"), ("gradient ascent: mean", "mean", "--")):
        axes.plot(steps, [one[key] for one in found["climb"]], line, color=COLOURS[0], marker="o", ms=3, label=name)
    name = "mean predicted by V" + (f" (up to {max(predicted):.0f})" if max(predicted, default=low) > top else "")
    axes.plot(steps, np.minimum(predicted, top), color=COLOURS[1], marker="s", ms=3, label=name)
    control = [one["steps"] for one in found["random"]]
    axes.plot(
        control, [one["mean"] for one in found["random"]], color="grey", marker="o", ms=3, label="random steps: mean"
    )
    axes.axhline(found["best_in_data"], color="black", linewidth=1, linestyle=":", label="start: best")
    axes.axhline(found["start_mean"], color="black", linewidth=1, linestyle="-.", label="start: mean")
    axes.set_xscale("log")
    axes.set_xticks(steps, [str(step) for step in steps])
    axes.minorticks_off()
    axes.set_xlabel(f"steps of {found['step_length']:.2g} deviations (log scale)")
    axes.set_ylabel("return")
    axes.set_ylim(low - 0.05 * (top - low), top + 0.03 * (top - low))
    axes.set_title(f"gradient ascent on V from the best {found['starts']} training policies", fontsize=10)
    axes.legend(**BELOW)


def draw_comparison(splits: Mapping[str, list[dict[str, Any]]]) -> Figure:
    """Spearman of several runs with its interval, a panel a split: one order of rows and one scale in all of them."""
    names = list(
        dict.fromkeys(label(line) for lines in splits.values() for line in lines)
    )  # the first split's best on top
    places = {name: len(names) - 1 - number for number, name in enumerate(names)}
    figure = blank(3.2 + 3.0 * len(splits), 1.5 + 0.32 * len(names))
    figure.suptitle(
        "Spearman correlation of predicted and true return on held-out policies, 95 % intervals", fontsize=10
    )
    panels = np.atleast_1d(figure.subplots(1, len(splits), sharex=True, sharey=True))
    for axes, (split, lines) in zip(panels, splits.items(), strict=True):
        for line in lines:
            colour, place = "grey" if line["run"] is None else COLOURS[0], places[label(line)]
            axes.plot(line["interval"], [place, place], color=colour, linewidth=2, solid_capstyle="round")
            axes.plot([line["spearman"]], [place], "o", color=colour, markersize=5)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.grid(alpha=0.2)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set_title(split, fontsize=10)
    panels[0].set_yticks(list(places.values()), [picture_text(name, 60) for name in places], fontsize=8)
    panels[0].set_ylim(-0.6, len(names) - 0.4)
    return figure
