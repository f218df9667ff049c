"""reproduce."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from epvf_data.cli.app import Backend, Debug, Json, Quiet, Seed, Set, app, plural, print_json, say
from epvf_data.errors import RunError


@app.command(
    "reproduce",
    rich_help_panel="Make and learn from rows",
    epilog="Examples: `epvf-data reproduce fig1 --scale smoke` · `epvf-data reproduce fig2-ablations --scale cpu "
    "--only best --only es` · `epvf-data reproduce fig1 --scale cpu --draw`",
)
def reproduce(
    figure: Annotated[str, typer.Argument(help="fig1, fig2-scaling, fig2-ablations or fig2-architectures.")],
    scale: Annotated[str, typer.Option(help="smoke (minutes, learns nothing), cpu or paper.")] = "smoke",
    out: Annotated[Path | None, typer.Option(help="The folder of runs and results.  [default: FIGURE-SCALE]")] = None,
    settings: Annotated[str, typer.Option(help="Whose hyper-parameters on Ant: paper, ours or both.")] = "paper",
    only: Annotated[
        list[str] | None, typer.Option(metavar="VARIANT", help="Run (with --draw, draw) this variant; repeat for more.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Seeds of every run.  [default: by figure and scale]")] = None,
    draw: Annotated[bool, typer.Option("--draw", help="Run nothing; draw what there is.")] = False,
    seed: Seed = None,
    backend: Backend = None,
    set_: Set = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Run a figure of the paper and say what agrees with it: data.json, figure.png and report.md.

    The same command goes on where it was stopped: finished runs are kept, an interrupted one continues from its
    checkpoint.
    """
    from epvf_data import config as configuration
    from epvf_data.reproduction import reproduce as run
    from epvf_data.runtime import prepare

    prepare()
    flags = {name: value for name, value in (("seed", seed), ("backend", backend)) if value is not None}
    overrides = configuration.merge(configuration.parse_overrides(set_ or []), flags)
    try:
        result = run(
            figure,
            scale,
            out,
            settings=settings,
            only=only or (),
            seeds=seeds,
            overrides=overrides,
            redraw=draw,
            quiet=quiet,
            debug=debug,
        )
    except KeyboardInterrupt:
        raise RunError("interrupted; give the same command to go on, or add --draw to see what there is.") from None
    if json:
        print_json(result.to_dict())
    else:
        finished = sum(status == "finished" for status in result.runs.values())
        say(f"{figure}: {finished} of {plural(len(result.runs), 'variant')} finished")
        say(f"picture: {result.image}   report: {result.report}   data: {result.data}")
    if result.failed:
        names = ", ".join(result.failed)
        reason = next(iter(result.failed.values()))
        raise RunError(f"{plural(len(result.failed), 'run')} failed ({names}), the first because: {reason}")
