"""The picture of a figure: learning curves as in the paper, and beside them each variant's result with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from epvf_data.pictures import blank

# Safe for the colour-blind (Okabe and Ito, with wine for an eighth). The reference is black; what is no EPVF is dashed,
# and grey where there are more variants than colours.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#B2A000")
CONTROL_STYLES = ((0, (5, 2)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)), (0, (3, 1, 1, 1, 1, 1)))
GREY = "#555555"
DASHES = ("- -", "···", "-·-", "-··")  # the same, in text
FEW = 5  # variants: with more, curves of the unperturbed policy would hide those of the perturbed ones
PANELS = {"paper": "the paper's settings", "ours": "our settings"}

Style = dict[str, Any]


def draw(data: Mapping[str, Any]) -> Figure:
    """The picture of the values of data.json. Variants that are not finished are marked."""
    panels: dict[str, list[dict[str, Any]]] = {}
    for variant in data["variants"]:
        panels.setdefault(variant["panel"], []).append(variant)
    rows = max(len(panel) for panel in panels.values())
    height = max(4.4, 1.6 + 0.34 * rows)
    figure = blank(12, height * len(panels) + 0.7)
    figure.suptitle(f"{data['title']} ({data['paper']})\n{_subtitle(data)}", fontsize=12)
    first = data["figure"] == "fig1"
    grid = figure.subplots(
        len(panels), 3 if first else 2, squeeze=False, width_ratios=(1, 1, 0.8) if first else (1.5, 1)
    )
    for axes, (panel, variants) in zip(grid, panels.items(), strict=True):
        styles = _styles(variants, data["ordered"])
        if first:
            _curves(axes[0], variants, styles, "iteration")
            axes[0].set_title("against iterations (time, if environments run in parallel)", fontsize=10)
            axes[1].set_title("against environment steps", fontsize=10)
            _passes(axes[2], variants, styles, data["solved"])
        else:
            axes[0].set_title(PANELS[panel], fontsize=10)
            _finals(axes[1], variants, styles)
        _curves(axes[-2], variants, styles, "env_steps", log=first)
    return figure


def _subtitle(data: Mapping[str, Any]) -> str:
    seeds = sorted({len(variant["seeds"]) for variant in data["variants"] if variant["seeds"]})
    count = f"{seeds[0]}–{seeds[-1]}" if len(seeds) > 1 else str(seeds[0]) if seeds else "no"
    plural = "" if seeds == [1] else "s"
    drawn = "single runs, so without intervals"
    if seeds and seeds[-1] > 1:
        drawn = "interquartile mean and 95 % bootstrap interval over seeds"
    return f"scale {data['scale']} · {count} seed{plural} · {drawn} · curves are means over cells of their axis"


def _styles(variants: Sequence[Mapping[str, Any]], ordered: bool) -> list[Style]:
    """Colour and line of every variant: shades of one map where they are ordered, else told apart as far as can be."""
    if ordered:
        shades = colormaps["viridis"](np.linspace(0.0, 0.8, len(variants)))[::-1]
        return [{"color": shade, "linewidth": 1.8} for shade in shades]
    styles: list[Style] = []
    colours = iter([(colour, line) for line in ("-", *CONTROL_STYLES) for colour in COLOURS])
    dashes = iter(CONTROL_STYLES * len(variants))
    enough = len(variants) <= 1 + len(COLOURS)
    for variant in variants:
        if variant["kind"] != "epvf":
            colour = next(colours)[0] if enough else GREY
            styles.append({"color": colour, "linewidth": 1.6, "linestyle": next(dashes)})
        elif not styles:
            styles.append({"color": "black", "linewidth": 2.4})
        else:
            colour, line = next(colours)  # dashed once the colours are used up
            styles.append({"color": colour, "linewidth": 1.6, "linestyle": line})
    return styles


def _curves(
    axes: Axes, variants: Sequence[Mapping[str, Any]], styles: list[Style], axis: str, log: bool = False
) -> None:
    """Perturbed returns with their intervals, and thin dotted lines of the unperturbed policy where few are shown."""
    few, lowest = len(variants) <= FEW, 0.0
    if log:
        axes.set_xscale("log")
    for variant, style in zip(variants, styles, strict=True):
        curves = variant.get("curves", {}).get(axis)
        if curves is None:
            continue
        found = curves["return_perturbed"]
        lowest = min([lowest, *found["low"]])
        axes.fill_between(found["grid"], found["low"], found["high"], color=style["color"], alpha=0.15, linewidth=0)
        axes.plot(found["grid"], found["iqm"], **style)
        if few:
            found = curves["return_unperturbed"]
            axes.plot(found["grid"], found["iqm"], color=style["color"], linewidth=0.9, linestyle=":")
    name = {"iteration": "iterations", "env_steps": "environment steps of one seed"}[axis]
    axes.set_xlabel(name)
    axes.set_ylabel("return of perturbed policies" + (" (dotted: unperturbed)" if few else ""))
    axes.xaxis.set_major_formatter(EngFormatter(sep="\N{THIN SPACE}"))
    if not log:
        axes.set_xlim(left=0)
    if lowest >= 0:
        axes.set_ylim(bottom=0)
    _clean(axes)


def _finals(axes: Axes, variants: Sequence[Mapping[str, Any]], styles: list[Style]) -> None:
    """Returns over the last tenth of the steps; the names beside them are the legend of the curves."""
    for row, (variant, style) in enumerate(zip(variants, styles, strict=True)):
        final = variant.get("final", {})
        for key, offset, fill in (("return_unperturbed", 0.16, "white"), ("return_perturbed", -0.16, style["color"])):
            if final.get(key):
                _whisker(axes, final[key], "iqm", row + offset, style, fill)
    for fill, label in ((GREY, "perturbed"), ("white", "unperturbed")):
        axes.plot([], [], "o", color=GREY, markerfacecolor=fill, markersize=6, label=label)
    axes.legend(fontsize=9, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
    axes.set_title("final return (last tenth of the steps)", fontsize=10)
    axes.set_xlabel("return")
    most = max((variant["max_return"] for variant in variants if "max_return" in variant), default=1.0)
    axes.set_xlim(left=min(0.0, axes.get_xlim()[0]), right=min(1.02 * most, 1.05 * axes.get_xlim()[1]))
    _rows(axes, variants, styles)


def _passes(axes: Axes, variants: Sequence[Mapping[str, Any]], styles: list[Style], solved: float) -> None:
    """The first iteration at which the smoothed perturbed return is at the threshold."""
    ends = [variant["iterations"] for variant in variants if variant.get("first_pass")]
    end = max(ends, default=1.0)
    for row, (variant, style) in enumerate(zip(variants, styles, strict=True)):
        found = (variant.get("first_pass") or {}).get("iteration")
        if found and found["median"] is not None:
            _whisker(axes, {**found, "high": found["high"] or end}, "median", row, style, style["color"])
        elif found:
            axes.text(0.02 * end, row, f"not within {variant['iterations']:,.0f}", va="center", fontsize=9)
        else:
            axes.text(0.02 * end, row, "nothing logged yet", va="center", fontsize=9, color="0.5")
    axes.set_title(f"iterations until {solved:.0f} (median)", fontsize=10)
    axes.set_xlabel("iterations")
    axes.set_xlim(left=0, right=None if axes.has_data() and axes.lines else end)
    axes.xaxis.set_major_formatter(EngFormatter(sep="\N{THIN SPACE}"))
    _rows(axes, variants, styles)


def _whisker(axes: Axes, found: Mapping[str, Any], middle: str, row: float, style: Style, fill: Any) -> None:
    axes.plot([found["low"], found["high"]], [row, row], color=style["color"], linewidth=2.2, solid_capstyle="butt")
    axes.plot(found[middle], row, "o", color=style["color"], markerfacecolor=fill, markersize=6.5)


def _rows(axes: Axes, variants: Sequence[Mapping[str, Any]], styles: list[Style]) -> None:
    """One row a variant, named in its colour, with a mark where it is not finished."""
    names = []
    for variant, style in zip(variants, styles, strict=True):
        dash = DASHES[CONTROL_STYLES.index(style["linestyle"])] if style.get("linestyle", "-") != "-" else "—"
        so_far = f" in iteration {variant['iterations']:,.0f}" if variant["seeds"] else ""
        mark = "" if variant["status"] == "finished" else f"\n({variant['status']}{so_far})"
        names.append(f"{dash} {variant['label']}{mark}")
    axes.set_yticks(range(len(variants)), names, fontsize=10)
    axes.yaxis.tick_right()
    axes.tick_params(axis="y", length=0)
    for text, style in zip(axes.get_yticklabels(), styles, strict=True):
        text.set_color(style["color"])
    axes.set_ylim(len(variants) - 0.5, -0.5)
    _clean(axes)
    axes.grid(axis="y", visible=False)


def _clean(axes: Axes) -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
