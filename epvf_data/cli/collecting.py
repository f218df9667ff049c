"""doctor, collect."""

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
    resume_command,
    say,
)
from epvf_data.cli.choices import Backend, choice, environment
from epvf_data.errors import ConfigError, DatasetError, EpvfError

if TYPE_CHECKING:
    from epvf_data.collectors.collect import CollectReport
    from epvf_data.collectors.shards import Shard

RECIPE = choice(
    "recipe", ("diverse",), "A mixture of many sources.", others="FILE.toml DATASET", check=lambda name: None
)
SHARD = {
    "help": "Make shard I (from 0) of N of the rows; auto: as SLURM_ARRAY_TASK_ID and _COUNT, JOB_COMPLETION_INDEX and "
    "JOB_COMPLETIONS, or RANK and WORLD_SIZE say.",
    "metavar": "I/N|auto",
}


@app.command(rich_help_panel="This machine", epilog="Example: `epvf-data doctor --json`")
def doctor(json: Json = False, quiet: Quiet = False, debug: Debug = False) -> None:
    """Versions, devices, backends that work here, and known-bad combinations. Exits with 1 when there is a problem."""
    from epvf_data.doctor import examine
    from epvf_data.runtime import prepare

    prepare()
    found = examine()
    if json:
        print_json({key: found[key] for key in ("versions", "devices", "backends", "problems")})
    else:
        say("versions  " + ", ".join(f"{name} {version}" for name, version in found["versions"].items() if version))
        say("devices   " + ", ".join(f"{device['platform']} ({device['kind']})" for device in found["devices"]))
        say(f"processor {found['processor']}, {found['cores']} cores")
        say(f"backends  {', '.join(found['backends']) or 'none'}")
        say(f"cache     {found['cache']}")
        say(f"you       {', '.join(found['who'].values()) or 'EPVF_AUTHOR and EPVF_LAB would say who makes the rows'}")
        for problem in found["problems"]:
            say(f"problem   {problem}")
        if not found["problems"]:
            say("No problem found.")
    if found["problems"]:
        raise typer.Exit(1)


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
    base: Annotated[list[str] | None, typer.Option(help="Perturb around this policy file; repeat for more.")] = None,
    episodes: Annotated[int | None, typer.Option(help="Episodes a policy.  [default: 1; 8 where returns vary]")] = None,
    horizon: Annotated[int | None, typer.Option(help="Control steps an episode.  [default: the environment's]")] = None,
    seed: Seed = None,
    backend: Backend = None,
    config: Config = None,
    set_: Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue or extend a collection in --out.")] = False,
    mixed: Annotated[bool, typer.Option("--mixed", help="Allow another architecture beside those in --out.")] = False,
    shard: Annotated[str | None, typer.Option(**SHARD)] = None,
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
    mine = None
    if shard is not None:
        from epvf_data.collectors.shards import parse

        mine = parse(shard)
    if recipe is not None:
        for flag, given in (("--base", base), ("--config", config), ("--mixed", mixed)):
            if given:
                raise ConfigError(f"{flag} goes with a collection without --recipe; put what you mean into the recipe.")
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
    from epvf_data.collectors.setting import configure, existing
    from epvf_data.envs import full_name
    from epvf_data.progress import COMPILING, Bar

    settings = configure(config, changes, flags, bases)
    target = out or Path(f"{full_name(settings.env)}.zarr")
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
        raise _interrupted(target) from None


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
    from epvf_data.config import merge, parse_overrides
    from epvf_data.envs import full_name
    from epvf_data.progress import COMPILING, Bar
    from epvf_data.recipes.tables import build, read

    typed = merge(parse_overrides(changes), flags)
    settings = build(read(recipe, typed.get("env"), typed), typed)
    target = out or Path(f"{full_name(settings.env)}-{Path(recipe).stem}.zarr")
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
            raise DatasetError(
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
        raise _interrupted(target) from None


def _interrupted(target: Path) -> EpvfError:
    from epvf_data.store import reader

    try:
        kept = f"{reader.open(target).rows:,} rows are committed in {target}"
    except DatasetError:
        return DatasetError("interrupted before the first commit; nothing was written.")
    return DatasetError(f"interrupted: {kept}; continue with: {resume_command()}")
