"""What every picture has in common: kinds of files, colours, and how a figure becomes a file. matplotlib comes late."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from epvf_data import outputs
from epvf_data.errors import ConfigError, extra, require
from epvf_data.untrusted import printable

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

KINDS = ("png", "pdf", "svg")
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")  # safe for the colour-blind


def check(out: Path, force: bool = False) -> None:
    """Raises ConfigError unless the name ends as one of `KINDS`, DatasetError where `outputs.check_free` does,
    MissingPackageError where nothing can draw."""
    if out.suffix[1:].lower() not in KINDS:
        ends = ", ".join(f".{kind}" for kind in KINDS)
        raise ConfigError(f"the picture would be {printable(out, 300)}; expected a name that ends in one of {ends}.")
    outputs.check_free(out, force)
    require("matplotlib")


def blank(width: float, height: float, dpi: int = 120) -> Figure:
    """An empty figure of that size in inches."""
    with extra():
        from matplotlib.figure import Figure
    return Figure(figsize=(width, height), dpi=dpi, layout="constrained")


def plain_ticks(axis: Axis) -> None:
    """1, 2, 5, 10, … on a logarithmic axis in place of powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def encode(figure: Figure, kind: str = "png") -> bytes:
    """The figure as a file of that kind; characters that the font lacks are drawn as boxes."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(buffer, format=kind)
    return buffer.getvalue()


def save(figure: Figure, *places: Path, force: bool = False) -> None:
    """Writes the figure to each place, in the kind that its name ends in. Raises as `check` does, and StorageError."""
    for out in places:
        check(out, force)
        outputs.write_bytes(out, encode(figure, out.suffix[1:].lower()), force)
