"""The picture of an evaluation: errors against disagreement, gradients against ES, returns along gradient ascent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from epvf_data.trainers.offline.plot import COLOURS, save
from epvf_data.untrusted import picture_text


def draw(
    found: Mapping[str, Any],
    true: Float[np.ndarray, "n"],
    mean: Float[np.ndarray, "n"],
    spread: Float[np.ndarray, "n"],
    path: Path,
) -> None:
    """Writes a PNG of what evaluation.json holds, and of the test rows behind its calibration."""
    parts = [name for name in ("calibration", "gradient", "improvement") if found[name] is not None]
    figure = Figure(figsize=(5.2 * max(1, len(parts)), 4.6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    title = f"{found['critic']} ({found['loss']}), split {found['split']}: {picture_text(found['run'], 120)}"
    figure.suptitle(title, fontsize=11)
    axes = iter(np.atleast_1d(figure.subplots(1, max(1, len(parts)))))
    if found["calibration"] is not None:
        _calibration(next(axes), found["calibration"], np.abs(mean - true), spread)
    if found["gradient"] is not None:
        _gradient(next(axes), found["gradient"])
    if found["improvement"] is not None:
        _improvement(next(axes), found["improvement"])
    save(figure, path)


def _calibration(axes: Axes, found: Mapping[str, Any], error: np.ndarray, spread: np.ndarray) -> None:
    axes.scatter(spread, error, s=8, alpha=0.5, linewidths=0, color=COLOURS[0])
    limit = float(max(spread.max(), 1e-9))
    axes.plot([0, limit], [0, 1.96 * limit], color="black", linestyle="--", linewidth=1, label="1.96 deviations")
    axes.set_xlabel(f"deviation between {found['members']} critics")
    axes.set_ylabel("|error| of their mean")
    axes.set_title(f"{100 * found['coverage']['0.95']:.0f} % of errors within 1.96 deviations", fontsize=10)
    axes.legend(fontsize=8, frameon=False)


def _gradient(axes: Axes, found: Mapping[str, Any]) -> None:
    order = range(len(found["per_policy"]))
    axes.bar(order, found["per_policy"], color=COLOURS[0])
    if found["ceiling"] is not None:
        axes.axhline(found["ceiling"], color=COLOURS[1], linewidth=1.2, label="what the true gradient would reach")
    for sign in (-1, 1):
        axes.axhline(
            sign * found["chance"], color="grey", linewidth=1, linestyle=":", label="chance" if sign > 0 else None
        )
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xticks(list(order), [str(number + 1) for number in order])
    axes.set_xlabel("policy, the best first")
    axes.set_ylabel("cosine of ∇V and the ES gradient")
    axes.set_title(f"mean {found['cosine']:.3f} [{found['interval'][0]:.3f}, {found['interval'][1]:.3f}]", fontsize=10)
    axes.legend(fontsize=8, frameon=False)


def _improvement(axes: Axes, found: Mapping[str, Any]) -> None:
    steps = [one["steps"] for one in found["climb"]]
    for name, key, colour, line in (
        ("gradient ascent on V: best", "best", COLOURS[0], "-"),
        ("mean", "mean", COLOURS[0], "--"),
    ):
        axes.plot(
            steps, [one[key] for one in found["climb"]], color=colour, linestyle=line, marker="o", ms=3, label=name
        )
    axes.plot(
        steps, [one["predicted"] for one in found["climb"]], color=COLOURS[1], marker="s", ms=3, label="predicted mean"
    )
    control = [one["steps"] for one in found["random"]]
    axes.plot(
        control, [one["mean"] for one in found["random"]], color="grey", marker="o", ms=3, label="random steps: mean"
    )
    axes.axhline(found["best_in_data"], color="black", linewidth=1, linestyle=":", label="best starting policy")
    axes.axhline(found["start_mean"], color="black", linewidth=1, linestyle="-.", label="starting policies: mean")
    axes.set_xscale("log")
    axes.set_xticks(steps, [str(step) for step in steps])
    axes.minorticks_off()
    axes.set_xlabel(f"steps of {found['step_length']:.2g} deviations")
    axes.set_ylabel("return")
    low = min([0.0, *(one["mean"] for one in found["climb"])])
    high = max([found["best_in_data"], *(one["best"] for one in found["climb"])])
    axes.set_ylim(low - 0.05 * (high - low), high + 0.6 * (high - low))  # wild predictions leave the picture
    axes.set_title(f"from the best {found['starts']} training policies", fontsize=10)
    axes.legend(fontsize=8, frameon=False)
