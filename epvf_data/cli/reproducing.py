"""reproduce."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from epvf_data.cli.app import Debug, Force, Json, Plot, Quiet, Seed, Set, app, check_plot, plural, print_json, say
from epvf_data.cli.choices import Backend, choice
from epvf_data.cli.launching import check_executor, executor_option, workers
from epvf_data.errors import RunError, StoppedError
from epvf_data.reproduction.figures import FIGURES, SCALES, SETTINGS, variants


@app.command(
    "reproduce",
    rich_help_panel="Make and learn from rows",
    epilog="Examples: `epvf-data reproduce fig1 --scale smoke` · `epvf-data reproduce fig2-ablations --scale cpu "
    "--only best --only es` · `epvf-data reproduce fig1 --scale cpu --draw`",
)
def reproduce(
    figure: Annotated[str, typer.Argument(show_default=False, **choice("figure", FIGURES, "A figure of the paper."))],
    scale: Annotated[
        str, typer.Option(**choice("scale", SCALES, "How large; smoke takes minutes and learns nothing."))
    ] = "smoke",
    out: Annotated[Path | None, typer.Option(help="The folder of runs and results.  [default: FIGURE-SCALE]")] = None,
    settings: Annotated[
        str, typer.Option(**choice("set of settings", SETTINGS, "Whose hyper-parameters on Ant."))
    ] = "paper",
    only: Annotated[
        list[str] | None, typer.Option(metavar="VARIANT", help="Run (with --draw, draw) this variant; repeat for more.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Seeds of every run.  [default: by figure and scale]")] = None,
    draw: Annotated[bool, typer.Option("--draw", help="Run nothing; draw what there is.")] = False,
    beside: Annotated[
        list[Path] | None,
        typer.Option(metavar="FOLDER", help="Draw the variants of this folder's data.json, too; repeat for more."),
    ] = None,
    seed: Seed = None,
    backend: Backend = None,
    set_: Set = None,
    executor: Annotated[str | None, typer.Option(**executor_option("Make the runs"))] = None,
    plot: Plot = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Run a figure of the paper and say what agrees with it: data.json, figure.png and report.md.

    The same command goes on where it was stopped: finished runs are kept, an interrupted one continues from its
    checkpoint.
    """
    from epvf_data import config as configuration
    from epvf_data.reproduction.plan import configure, references

    check_executor(executor)
    flags = {name: value for name, value in (("seed", seed), ("backend", backend)) if value is not None}
    overrides = configuration.merge(configuration.parse_overrides(set_ or []), flags)
    chosen = variants(figure, scale, settings, only or ())
    if not draw:
        configure(figure, scale, chosen, references(variants(figure, scale, settings)), overrides, seeds)
    check_plot(plot, force)

    from epvf_data.reproduction.reproduce import reproduce as run
    from epvf_data.runtime import prepare

    prepare()
    try:
        with workers(executor, out or Path(f"{figure}-{scale}")) as found:
            result = run(
                figure,
                scale,
                out,
                settings=settings,
                only=only or (),
                seeds=seeds,
                overrides=overrides,
                redraw=draw,
                beside=beside or (),
                plot=plot,
                force=force,
                quiet=quiet,
                debug=debug,
                executor=found,
            )
    except KeyboardInterrupt:
        raise StoppedError("interrupted; give the same command to go on, or add --draw to see what there is.") from None
    if json:
        print_json(result.to_dict())
    else:
        finished = sum(status == "finished" for status in result.runs.values())
        say(f"{figure}: {finished} of {plural(len(result.runs), 'variant')} finished")
        say(f"picture: {plot or result.image}   report: {result.report}   data: {result.data}")
    if result.failed:
        names = ", ".join(result.failed)
        reason = next(iter(result.failed.values()))
        raise RunError(f"{plural(len(result.failed), 'run')} failed ({names}), the first because: {reason}")
