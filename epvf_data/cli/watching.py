"""watch."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from epvf_data.cli.app import Debug, Force, Json, Quiet, app, check_plot, print_json, say


@app.command(
    rich_help_panel="Make and learn from rows",
    epilog="Examples: `epvf-data watch cartpole-paper-run` · `epvf-data watch es epvf --once --out curves.png`",
)
def watch(
    runs: Annotated[list[Path], typer.Argument(help="Runs of `train-online`.", show_default=False, metavar="RUN…")],
    once: Annotated[bool, typer.Option("--once", help="Draw once and end, as where stdout is no terminal.")] = False,
    every: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 2.0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Also write the picture, when watching ends.", metavar="FILE.png|pdf|svg", show_default=False
        ),
    ] = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Draw learning curves in the terminal while runs go on. Ends with the runs, or with Ctrl-C, which they outlive."""
    from epvf_data.trainers.curves.watch import follow, look

    check_plot(out, force)
    view = look(runs)
    if json:
        from epvf_data.trainers.curves.summary import compare_runs

        print_json({"going": view.going, **compare_runs(runs)})
    elif once or not sys.stdout.isatty():
        for line in view.lines:
            say(line)
    else:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        console = Console()
        width, height = min(console.width, 120) - 1, min(max(5, console.height - len(runs) - 6), 20)
        with contextlib.suppress(KeyboardInterrupt), Live(console=console, auto_refresh=False) as live:
            for view in follow(runs, every, width, height):
                live.update(Text("\n".join(view.lines)), refresh=True)
    if out is not None:
        from epvf_data.trainers.curves.plot import plot_runs

        plot_runs(runs, out, force=force)
        if not json:
            say(f"picture: {out}")
