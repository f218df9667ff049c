"""report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from epvf_data.cli.app import Debug, Force, Json, Quiet, app, plural, print_json, say, working
from epvf_data.cli.choices import OwnCritics, OwnEnv, OwnPolicy
from epvf_data.cli.places import readable


@app.command(
    rich_help_panel="Look at data sets",
    epilog="Examples: `epvf-data report ant.zarr` · `epvf-data report ant.zarr ant-mlp ant-probing` · "
    "`epvf-data report lab-a.zarr lab-b.zarr --out both.html`",
)
def report(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            help="One data set or two, and runs of `train-offline` on them.",
            show_default=False,
            parser=readable,
            metavar="DATASET [RUN]…",
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="The page.  [default: DATASET.html]", metavar="FILE.html")] = None,
    pictures: Annotated[
        bool, typer.Option("--frames/--no-frames", help="Play and draw the best, median and worst of each source.")
    ] = True,
    env: OwnEnv = None,
    critic: OwnCritics = None,
    policy: OwnPolicy = None,
    seed: Annotated[int, typer.Option(help="Of the draw, where there are more rows than are drawn.")] = 0,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write one HTML file to look into data sets and critics: it loads nothing, and can be mailed."""
    from importlib.util import find_spec

    from epvf_data.report.page import check, write_report

    runs = [one for one in inputs if (one / "config.json").is_file() and not (one / "zarr.json").is_file()]
    datasets = [one for one in inputs if one not in runs]
    target = out or Path(f"{datasets[0].resolve().stem if datasets else 'report'}.html")
    check(datasets, runs, target, force)
    if find_spec("jax") is not None and (pictures or runs):
        from epvf_data.runtime import prepare

        prepare()
    with working("report", quiet, "no file was changed", unit="strips") as progress:
        made = write_report(
            datasets,
            target,
            runs,
            env=env,
            critics=critic or (),
            policy=policy,
            pictures=pictures,
            seed=seed,
            force=force,
            progress=progress,
        )
    if json:
        print_json(made)
        return
    for note in made["notes"]:
        say(f"note: {note}")
    strips = f", {plural(made['frames'], 'strip')} of frames" if made["frames"] else ""
    say(f"{target}: {plural(made['points'], 'point')}{strips}, {made['bytes'] / 1e6:.1f} MB; open it in any browser.")
