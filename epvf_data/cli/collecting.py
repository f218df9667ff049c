"""collect: in one process, as one shard of many, or as all of them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from epvf_data.cli.app import (
    Config,
    Debug,
    Json,
    Quiet,
    Seed,
    Set,
    app,
    plural,
    print_json,
    say,
)
from epvf_data.cli.choices import Backend, Policy, choice, environment
from epvf_data.cli.launching import (
    SHARD,
    configured,
    executor_option,
    interrupted,
    print_job,
    recipe_of,
    shard_of,
    spread,
)
from epvf_data.errors import ConfigError, StoppedError

if TYPE_CHECKING:
    from epvf_data.collectors.collect import CollectReport
    from epvf_data.collectors.shards import Shard

RECIPE = choice(
    "recipe", ("diverse",), "A mixture of many sources.", others="FILE.toml DATASET", check=lambda name: None
)


@app.command(
    rich_help_panel="Make and learn from rows",
    epilog="Examples: `epvf-data collect --env ant --envs 4096` · "
    "`epvf-data collect --env cartpole --policies 1000 --out poles.zarr` · "
    "`epvf-data collect --base walker.safetensors --set perturbed.scales=[0.01,0.05]` · "
    "`epvf-data collect --recipe diverse --env hopper --policies 4096`",
)
def collect(
    env: Annotated[str | None, typer.Option(**environment("Environment.  [default: ant]"))] = None,
    envs: Annotated[
        int | None,
        typer.Option(
            help="Policies rolled out at once, each in a world of its own: the rows of a commit.  [default: 4096]"
        ),
    ] = None,
    policies: Annotated[int | None, typer.Option(help="Policies in all.  [default: as many as --envs]")] = None,
    out: Annotated[Path | None, typer.Option(help="The data set's folder.  [default: ENV.zarr]")] = None,
    recipe: Annotated[str | None, typer.Option(**RECIPE)] = None,
    base: Annotated[
        list[str] | None,
        typer.Option(help="Perturb around this policy file, or what FILE.py:FUNCTION gives; repeat for more."),
    ] = None,
    policy: Policy = None,
    episodes: Annotated[int | None, typer.Option(help="Episodes a policy.  [default: 1; 8 where returns vary]")] = None,
    horizon: Annotated[int | None, typer.Option(help="Control steps an episode.  [default: the environment's]")] = None,
    seed: Seed = None,
    backend: Backend = None,
    config: Config = None,
    set_: Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue or extend a collection in --out.")] = False,
    mixed: Annotated[bool, typer.Option("--mixed", help="Allow another architecture beside those in --out.")] = False,
    shard: Annotated[str | None, typer.Option(**SHARD)] = None,
    shards: Annotated[
        int | None, typer.Option(help="How many shards --executor or --print-sbatch makes.  [default: 16]", min=1)
    ] = None,
    executor: Annotated[str | None, typer.Option(**executor_option("Make all shards"))] = None,
    print_sbatch: Annotated[
        bool, typer.Option("--print-sbatch", help="Only print a job script for SLURM: an array of --shards.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Roll out many policies and commit their parameters, probing actions and returns to a data set.

    With `--recipe`, policies of several architectures come from many sources, training runs among them. Else they are
    random initialisations and perturbations around base policies. Every commit is durable:
    Ctrl-C or a crash loses at most the batch in flight, and `--resume` continues.
    """
    flags = {
        "env": env,
        "envs": envs,
        "policies": policies,
        "episodes": episodes,
        "horizon": horizon,
        "seed": seed,
        "backend": backend,
    }
    flags = {key: value for key, value in flags.items() if value is not None}
    flags |= {} if policy is None else {"policy": {"architecture": policy}}
    mine = shard_of(shard, shards, executor, print_sbatch)
    if print_sbatch:
        print_job(recipe, flags, config, set_ or [], base or [], out, shards)
        return
    for flag, given in (("--base", base), ("--config", config), ("--mixed", mixed)):
        if recipe is not None and given:
            raise ConfigError(f"{flag} goes with a collection without --recipe; put what you mean into the recipe.")
    if recipe is not None and policy is not None:
        raise ConfigError("recipes make MLPs alone; leave --policy out, or --recipe.")
    if executor is not None:
        report = spread(executor, shards, recipe, flags, config, set_ or [], base or [], out, mixed, quiet)
    elif recipe is not None:
        report = _follow(recipe, flags, set_ or [], out, resume, mine, quiet)
    else:
        report = _collect(flags, config, set_ or [], base or [], out, resume, mixed, mine, quiet)
    values = asdict(report)
    if json:
        print_json(values)
        return
    if not report.rows:
        total = f"{report.rows_total:,}"
        held = f"the rows of shard {mine}, and {total} in all," if mine else f"all {total} rows"
        say(f"{report.dataset} holds {held} already; nothing to do.")
        return
    commits = plural(report.commits, "commit")
    say(
        f"{report.dataset}: {report.rows:,} rows in {commits} ({report.rows_total:,} in all), "
        f"{report.env_steps:,} env steps in {report.seconds:.1f} s ({report.env_steps_per_second:,.0f} a second)"
    )
    say(f"return: {report.return_mean:.2f} on average, {report.return_max:.2f} at most")
    if report.rows_not_finite:
        say(f"{report.rows_not_finite} policies gave NaN or infinity; their episodes ended there and are flagged.")


def _collect(
    flags: dict[str, Any],
    config: str | None,
    changes: list[str],
    bases: list[str],
    out: Path | None,
    resume: bool,
    mixed: bool,
    shard: Shard | None,
    quiet: bool,
) -> CollectReport:
    from epvf_data.collectors.setting import existing
    from epvf_data.progress import COMPILING, Bar

    settings, target = configured(flags, config, changes, bases, out)
    existing(target, resume or (None if shard else False))  # before anything heavy is imported

    from epvf_data.collectors.collect import collect as run
    from epvf_data.runtime import prepare

    prepare()
    try:
        with Bar("collect", "episodes", quiet, waiting=COMPILING) as bar:
            return run(
                settings,
                target,
                resume=resume,
                mixed=mixed,
                shard=shard,
                progress=lambda done, total, steps: bar.update(done, total, steps, "env steps"),
            )
    except KeyboardInterrupt:
        raise interrupted(target) from None


def _follow(
    recipe: str,
    flags: dict[str, Any],
    changes: list[str],
    out: Path | None,
    resume: bool,
    shard: Shard | None,
    quiet: bool,
) -> CollectReport:
    """Collects what a recipe says: a bar for each teacher, then one for the rows."""
    from epvf_data.collectors.setting import existing
    from epvf_data.progress import COMPILING, Bar

    settings, target = recipe_of(recipe, flags, changes, out)
    either = resume or (None if shard else False)
    existing(target, either)

    from epvf_data.collectors.collect import gather
    from epvf_data.recipes.collect import lots_of, runs_of
    from epvf_data.runtime import prepare

    prepare()
    bars: dict[str, Bar] = {}

    def trained(name: str, event: Mapping[str, Any]) -> None:
        if name not in bars:  # one teacher after the other
            stack.close()
            bars[name] = stack.enter_context(Bar(name, "env steps", quiet, waiting=COMPILING))
        if event:
            bars[name].run(event)

    with contextlib.ExitStack() as stack:
        try:
            lots = lots_of(settings, target, resume=either, trained=trained)
        except KeyboardInterrupt:
            raise StoppedError(
                f"interrupted while teachers were trained: what they have learned is kept in {runs_of(target)}, and "
                "the same command goes on from there."
            ) from None
    try:
        with Bar("collect", "episodes", quiet, waiting=COMPILING) as bar:
            return gather(
                lots,
                target,
                resume=resume,
                shard=shard,
                progress=lambda done, total, steps: bar.update(done, total, steps, "env steps"),
            )
    except KeyboardInterrupt:
        raise interrupted(target) from None
