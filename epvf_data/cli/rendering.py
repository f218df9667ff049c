"""render."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from epvf_data.cli.app import Debug, Force, Json, Quiet, app, plural, print_json, say, working
from epvf_data.cli.choices import OwnPolicy, Row, environment
from epvf_data.cli.places import readable
from epvf_data.errors import ConfigError


@app.command(
    rich_help_panel="Make and learn from rows",
    epilog="Examples: `epvf-data render runs/ant/policies/best-0.safetensors` · "
    "`epvf-data render walker.safetensors --env ant --horizon 300 --out walk.mp4` · "
    "`epvf-data render ant.zarr --row best` · `epvf-data render cartpole-paper-run`",
)
def render(
    policy: Annotated[
        Path,
        typer.Argument(
            help="A policy file (safetensors with its specification), a data set, or a run of `train-online`.",
            parser=readable,
            metavar="POLICY",
        ),
    ],
    env: Annotated[str | None, typer.Option(**environment("Environment.  [default: the file's or data set's]"))] = None,
    code: OwnPolicy = None,
    row: Row = "best",
    architecture: Annotated[str | None, typer.Option(help="Of a data set: the policies' id, if several.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The video; the strip lies beside it.  [default: POLICY.mp4, DATASET-ROW.mp4]")
    ] = None,
    horizon: Annotated[int | None, typer.Option(help="Control steps at most.  [default: the environment's]")] = None,
    episode: Annotated[int, typer.Option(help="Which episode of the seed, where starts are random.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the start.")] = 0,
    fps: Annotated[int, typer.Option(help="Frames a second, in real time.")] = 50,
    width: Annotated[int, typer.Option(help="Pixels, an even number.")] = 640,
    height: Annotated[int, typer.Option(help="Pixels, an even number.")] = 360,
    frames: Annotated[int, typer.Option(help="Frames of the strip.")] = 8,
    webp: Annotated[bool, typer.Option("--webp", help="An animated WebP too, for pages that play no video.")] = False,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Play one episode of a policy, and write a video (.mp4) and a strip of frames (.png). No display is needed."""
    from epvf_data.render.film import Film
    from epvf_data.render.inputs import check_policy, check_row
    from epvf_data.trainers.curves.policy import best_policy
    from epvf_data.trainers.rundir import is_run

    if is_run(policy):
        run, policy = policy, best_policy(policy)
        out = out or Path(f"{run.resolve().name}-{policy.stem}.mp4")
    film, stored = Film(fps, (width, height), frames, webp), os.path.isdir(policy)  # noqa: PTH112 (any length)
    if stored and (horizon is not None or seed):
        raise ConfigError("a row is shown as it was rolled out; leave --horizon and --seed out.")
    if stored:
        check_row(policy, row, out, architecture, film, force)
    else:
        check_policy(policy, out, env, film, force)

    from epvf_data.render.render import render_policy
    from epvf_data.render.rows import render_row
    from epvf_data.runtime import prepare

    prepare()
    with working("render", quiet, "no file was changed", unit="frames") as progress:
        if stored:
            report = render_row(
                policy,
                row,
                out,
                env=env,
                code=code,
                architecture=architecture,
                episode=episode,
                film=film,
                force=force,
                progress=progress,
            )
        else:
            report = render_policy(
                policy,
                out,
                env=env,
                code=code,
                horizon=horizon,
                seed=seed,
                episode=episode,
                film=film,
                force=force,
                progress=progress,
            )
    if json:
        print_json({"policy": str(policy), **report.to_dict()})
        return
    steps = plural(report.length, "step")
    result = f"return {report.episode_return:.1f} in {steps} ({report.seconds:.2f} s, {report.ended})"
    if report.row is not None:
        result = f"row {report.row}, stored return {report.stored_return:.1f}; {result}"
    webp_too = f"   webp: {report.webp}" if report.webp else ""
    say(f"{report.env}: {result}   video: {report.video}   strip: {report.strip}{webp_too}")
