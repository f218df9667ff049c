"""Learning curves over seeds: their numbers on common axes, as a picture and as a table."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from epvf_data import outputs, pictures
from epvf_data.errors import ConfigError, RunError
from epvf_data.trainers.curves.history import Group, read_groups
from epvf_data.trainers.curves.read import CELLS, Curve, align
from epvf_data.trainers.curves.statistics import LEAST_SEEDS, estimate
from epvf_data.trainers.curves.summary import ENV_SETTINGS, median
from epvf_data.untrusted import picture_text, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AXES = {
    "env_steps": "environment steps of one seed",
    "minutes": "minutes of the run, compiling included, its seeds side by side",
}
NOTE = "each point is the mean over a cell of the axis, as far as every seed has come"
POLICIES = {"return_unperturbed": "unperturbed", "return_perturbed": "perturbed"}
COLUMNS: tuple[str, ...] = ("experiment", "axis", "place", "policies", "seed", "return", "low", "high")
FEW = 4  # experiments: with more, curves of perturbed policies would hide the others


class Band(NamedTuple):
    """What seeds of one experiment say together along an axis; empty where they share no part of it."""

    place: Float[np.ndarray, "n"]
    seeds: Float[np.ndarray, "S n"]
    median: Float[np.ndarray, "n"]
    low: Float[np.ndarray, "n"] | None  # None with fewer than three seeds
    high: Float[np.ndarray, "n"] | None


def band(curves: list[Curve], key: str, axis: str) -> Band:
    """Median over seeds and its 95 % bootstrap interval where all seeds have been, in at most `CELLS` cells.

    `axis` is one of `AXES`.
    """
    curves = [curve for curve in curves if len(curve.points(key, axis)[0])]
    longest = max((len(curve.points(key, axis)[0]) for curve in curves), default=0)
    if longest < 2:  # one log entry is a point
        points = [curve.points(key, axis) for curve in curves]
        place = np.array([np.max([x[0] for x, _ in points])]) if points else np.zeros(0)
        values = np.array([[y[0]] for _, y in points]).reshape(len(points), len(place))
    else:
        place, values = align(curves, key, axis, min(CELLS, longest))
    if not values.size:
        return Band(place, values, np.zeros(0), None, None)
    found = estimate(values, median)
    if len(values) < LEAST_SEEDS:
        return Band(place, values, found.value, None, None)
    return Band(place, values, found.value, found.low, found.high)


def plot_runs(
    runs: str | Path | Sequence[str | Path],
    path: str | Path | None = None,
    *,
    table: str | Path | None = None,
    force: bool = False,
) -> list[dict[str, Any]]:
    """Draws learning curves of online runs as PNG, PDF or SVG, and writes their numbers as CSV to `table`.

    Runs of equal settings and other seeds are one experiment: the median over its seeds, with a 95 % bootstrap interval
    from three seeds on. Solid: the unperturbed policy θ; dotted: the mean of its perturbations. Returns are
    undiscounted.

    Gives one record a point, keys as in the table: of the median, `seed` is None and `low` and `high` are its interval.
    Raises RunError for what is no online run or has logged nothing, ConfigError for another kind of file, DatasetError
    where there is a file already, unless `force` replaces it, StorageError if the disk refuses.
    """
    chosen = [runs] if isinstance(runs, (str, Path)) else list(runs)
    check(path, table, force)
    groups = read_groups(chosen)
    numbers = [line for group in groups for line in _numbers(group)]
    if not any(line["return"] is not None for line in numbers):
        raise RunError(f"no run of {', '.join(group.name for group in groups)} has logged a return yet; wait for one.")
    if table is not None:
        outputs.write_bytes(Path(table), to_csv(numbers), force)
    if path is not None:
        pictures.save(draw(groups), Path(path), force=force)
    return numbers


def check(path: str | Path | None, table: str | Path | None, force: bool) -> None:
    """Raises as `plot_runs` does for files that cannot be written."""
    if path is not None:
        pictures.check(Path(path), force)
    if table is not None:
        if Path(table).suffix.lower() != ".csv":
            raise ConfigError(f"the table would be {printable(table, 300)}; expected a name that ends in .csv.")
        outputs.check_free(Path(table), force)


def to_csv(numbers: list[dict[str, Any]]) -> bytes:
    """The records as CSV; what is not there is empty. A name that a spreadsheet would take for a formula is quoted."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for line in numbers:
        name = printable(line["experiment"], 200)
        writer.writerow({**line, "experiment": f"'{name}" if name.startswith(("=", "+", "-", "@")) else name})
    return text.getvalue().encode()


def _numbers(group: Group) -> list[dict[str, Any]]:
    found = []
    for axis in AXES:
        for key, policies in POLICIES.items():
            drawn = band(group.curves, key, axis)
            fixed = {"experiment": group.name, "axis": axis, "policies": policies}
            for column, place in enumerate(drawn.place):
                both = (drawn.low, drawn.high)
                low, high = (None if side is None else _number(side[column]) for side in both)
                values: list[tuple[int | None, float, Any, Any]] = [(None, drawn.median[column], low, high)]
                values += [(curve.seed, row[column], None, None) for curve, row in _rows(group, drawn, key, axis)]
                for seed, value, least, most in values:
                    numbers = {"place": _number(place), "return": _number(value), "low": least, "high": most}
                    found.append({**fixed, "seed": seed, **numbers})
    return found


def _rows(group: Group, drawn: Band, key: str, axis: str) -> list[tuple[Curve, np.ndarray]]:
    curves = [curve for curve in group.curves if len(curve.points(key, axis)[0])]
    return list(zip(curves, drawn.seeds, strict=True))


def _number(value: Any) -> float | None:
    return float(f"{value:.7g}") if math.isfinite(value) else None


def draw(groups: list[Group]) -> Figure:
    """The picture: by environment steps and by minutes, each experiment in its colour."""
    figure = pictures.blank(11, 4.6 + 0.22 * len(groups))
    few = len(groups) <= FEW
    for axes, axis in zip(figure.subplots(1, 2, sharey=True), AXES, strict=True):
        for number, group in enumerate(groups):
            _curve(axes, group, axis, _style(number), few)
        axes.set_xlabel(AXES[axis])
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlim(left=0)
        _readable(axes)
    left = figure.axes[0]
    left.set_ylabel("undiscounted return")
    figure.suptitle(_title(groups), fontsize=11)
    _legend(figure, groups, few)
    return figure


def _style(number: int) -> dict[str, Any]:
    """Colour and line of an experiment: dashed once the colours are used up."""
    again, colour = divmod(number, len(pictures.COLOURS))
    return {"color": pictures.COLOURS[colour], "linestyle": ("-", "--", "-.", (0, (1, 1)))[again % 4]}


def _readable(axes: Axes) -> None:
    from matplotlib.ticker import EngFormatter

    if axes.get_xlim()[1] >= 1000:
        axes.xaxis.set_major_formatter(EngFormatter(sep="\N{THIN SPACE}"))


def _curve(axes: Axes, group: Group, axis: str, style: dict[str, Any], few: bool) -> None:
    colour = style["color"]
    drawn = band(group.curves, "return_unperturbed", axis)
    point = "o" if len(drawn.place) == 1 else None
    if drawn.low is not None and drawn.high is not None:
        axes.fill_between(drawn.place, drawn.low, drawn.high, color=colour, alpha=0.18, linewidth=0)
    elif len(drawn.seeds) > 1:
        for row in drawn.seeds:
            axes.plot(drawn.place, row, color=colour, linewidth=0.8, alpha=0.5)
    axes.plot(drawn.place, drawn.median, **style, linewidth=2, marker=point)
    if few:
        other = band(group.curves, "return_perturbed", axis)
        axes.plot(other.place, other.median, color=colour, linewidth=1.3, linestyle=":", marker=point)


def _title(groups: list[Group]) -> str:
    tasks = {tuple(group.settings.get(name) for name in ENV_SETTINGS) for group in groups}
    if len(tasks) > 1:
        return f"Learning curves of different tasks: their returns are not to be compared\n{NOTE}"
    ((env, horizon),) = tasks
    steps = f", episodes of at most {horizon:,} steps" if horizon else ""
    return f"Learning curves on {picture_text(env, 40)}{steps}\n{NOTE}"


def _legend(figure: Figure, groups: list[Group], few: bool) -> None:
    """One entry an experiment, and what solid, dotted and shaded mean."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    entries, names = [], []
    for number, group in enumerate(groups):
        count = len(group.curves)
        told = f"{picture_text(group.name, 40)} ({picture_text(group.settings['algorithm'], 12)}, "
        told += f"{count} seed{'' if count == 1 else 's'}{'' if group.finished else ', not finished'})"
        names.append(Line2D([], [], **_style(number), linewidth=2, label=told))
    several, counts = "", [len(group.curves) for group in groups]
    if max(counts) > 1:
        several = ", median over seeds"
    entries.append(Line2D([], [], color="0.3", linewidth=2, label=f"unperturbed policy θ{several}"))
    if few:
        label = f"perturbed policies, mean of an iteration{several}"
        entries.append(Line2D([], [], color="0.3", linewidth=1.3, linestyle=":", label=label))
    if max(counts) >= LEAST_SEEDS:
        entries.append(Patch(color="0.3", alpha=0.18, linewidth=0, label="95 % bootstrap interval of the median (θ)"))
    if any(1 < count < LEAST_SEEDS for count in counts):
        entries.append(Line2D([], [], color="0.3", linewidth=0.8, alpha=0.5, label="single seeds (θ)"))
    figure.legend(handles=names, loc="outside lower left", fontsize=9, frameon=False)
    figure.legend(handles=entries, loc="outside lower right", fontsize=9, frameon=False)
