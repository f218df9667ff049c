"""improve."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from epvf_data import code
from epvf_data.cli.app import (
    Config,
    Debug,
    Json,
    Quiet,
    Seed,
    Set,
    app,
    print_json,
    print_table,
    resume_command,
    say,
)
from epvf_data.cli.choices import Backend, OwnEnv, OwnPolicy, check_critic_there, choice
from epvf_data.cli.scoring import StartNoise
from epvf_data.critics.families import CRITICS
from epvf_data.errors import StoppedError
from epvf_data.improvement.methods import METHODS, name_of
from epvf_data.trainers.improving.settings import check_method


@app.command(
    rich_help_panel="Make and learn from rows",
    epilog="Examples: `epvf-data improve ant.zarr` · `epvf-data improve ant-mlp --method mean --budget 500` · "
    "`epvf-data improve ant.zarr --method coms --record ant.zarr` · "
    "`epvf-data improve ant.zarr --method mine.py:propose`",
)
def improve(
    source: Annotated[Path, typer.Argument(help="A data set, or a run of train-offline.", show_default=False)],
    method: Annotated[
        str | None,
        typer.Option(
            **choice(
                "method",
                METHODS,
                "How policies are proposed.  [default: lower]",
                others="FILE.py:FUNCTION",
                check=check_method,
            )
        ),
    ] = None,
    critic: Annotated[
        str | None,
        typer.Option(
            **choice(
                "critic",
                CRITICS,
                "What is fitted.  [default: stored-probing]",
                others="FILE.py:FUNCTION",
                check=check_critic_there,
            )
        ),
    ] = None,
    budget: Annotated[int | None, typer.Option(help="Real episodes in all.  [default: 2000]")] = None,
    rollouts: Annotated[
        bool, typer.Option("--rollouts/--no-rollouts", help="Without them nothing is known of what is proposed.")
    ] = True,
    record: Annotated[
        Path | None, typer.Option(help="A data set that proposals go to, with their returns.", show_default=False)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The new folder.  [default: SOURCE-METHOD]")] = None,
    trained_on: Annotated[
        Path | None, typer.Option(help="The run's own data set, if it has moved.", show_default=False)
    ] = None,
    start_noise: StartNoise = None,
    seed: Seed = None,
    backend: Backend = None,
    env: OwnEnv = None,
    policy: OwnPolicy = None,
    config: Config = None,
    set_: Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the critics that --out holds.")] = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Propose policies that are better than any row, and say how much better they are: real episodes, with intervals.

    The best rows are rolled out again, since their stored returns owe part to luck; critics are climbed from the better
    half; other critics say where to stop and what to try. Proposals and as many random steps of the same length are
    rolled out, and the best of each and of the rows are compared in fresh episodes.
    """
    from epvf_data import config as configuration
    from epvf_data.trainers.improving.inputs import check_inputs
    from epvf_data.trainers.improving.settings import FIT, ImproveConfig

    flags = {"method": method, "budget": budget, "seed": seed, "backend": backend, "env": env}
    flags |= {"start_noise": start_noise}
    typed = {key: value for key, value in flags.items() if value is not None}
    typed |= {"fit": {"critic": critic}} if critic is not None else {}
    changes = configuration.parse_overrides(set_ or [])
    stated = configuration.read_toml(config) if config else {}
    code.check_stated(stated, configuration.merge(changes, typed), str(config))
    default = {"fit": FIT}
    settings = configuration.build(ImproveConfig, default, stated, changes, typed)
    target = out or Path(f"{source.resolve().stem}-{code.title(name_of(settings.method))}")
    check_inputs(source, target, settings, rollouts, trained_on, resume)  # before anything heavy is imported

    from epvf_data.progress import COMPILING, Bar
    from epvf_data.runtime import prepare
    from epvf_data.trainers.improving.improve import improve as run

    prepare()
    try:
        with Bar("improve", "epochs", quiet, waiting=COMPILING) as bar:

            def told(done: int, total: int) -> None:
                if bar.unit != "episodes":  # rates and the time left count anew after the critics
                    bar.unit, bar.first = "episodes", None
                bar.update(done, total, done, "episodes")

            found = run(
                source,
                target,
                settings,
                rollouts=rollouts,
                into=record,
                trained_on=trained_on,
                policy=policy,
                resume=resume,
                fitting=bar.epoch,
                progress=told,
            )
    except KeyboardInterrupt:
        raise StoppedError(f"interrupted; the critics so far are kept, continue with: {resume_command()}") from None
    if json:
        print_json(found.to_dict())
        return
    if found.looks:
        say("what critics say along the climb, mean of candidates; believed where that is no more than of any row:")
        proposals = Counter(one.steps for one in found.candidates)
        marks = ["believed up to here" if one.steps == found.stop else "" for one in found.looks]
        rows = [
            [f"  {one.steps}", f"{one.promised:.2f}", f"{one.judged:.2f}", str(proposals[one.steps]), mark]
            for one, mark in zip(found.looks, marks, strict=True)
        ]
        heads = ["  steps", "critics climbed", "other critics, less deviation", "proposals", ""]
        print_table(heads, rows, numbers=True)
    say(found.verdict)
    if found.starts is not None:
        say(f"{found.episodes:,} episodes were spent. {found.starts}")
    if found.recorded:
        say(f"{found.recorded} rows were added to {record}.")
    say(f"policies: {found.policies[0]} and {len(found.policies) - 1} more   picture: {target / 'improvement.png'}")
