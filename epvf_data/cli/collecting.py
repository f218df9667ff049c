"""doctor, collect."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from epvf_data.cli.app import (
    Backend,
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
)
from epvf_data.errors import DatasetError, EpvfError


@app.command(rich_help_panel="This machine", epilog="Example: `epvf-data doctor --json`")
def doctor(json: Json = False, debug: Debug = False) -> None:
    """Versions, devices, backends that work here, and known-bad combinations. Exits with 1 when there is a problem."""
    from epvf_data.doctor import examine
    from epvf_data.runtime import prepare

    prepare()
    found = examine()
    if json:
        print_json({key: found[key] for key in ("versions", "devices", "backends", "problems")})
    else:
        print("versions  " + ", ".join(f"{name} {version}" for name, version in found["versions"].items() if version))
        print("devices   " + ", ".join(f"{device['platform']} ({device['kind']})" for device in found["devices"]))
        print(f"processor {found['processor']}, {found['cores']} cores")
        print(f"backends  {', '.join(found['backends']) or 'none'}")
        print(f"cache     {found['cache']}")
        print("\n".join(f"problem   {problem}" for problem in found["problems"]) or "No problem found.")
    if found["problems"]:
        raise typer.Exit(1)


@app.command(
    rich_help_panel="Make and learn from rows",
    epilog="Examples: `epvf-data collect --env ant --envs 4096` · "
    "`epvf-data collect --env cartpole --policies 1000 --out poles.zarr` · "
    "`epvf-data collect --base walker.safetensors --set perturbed.scales=[0.01,0.05]`",
)
def collect(
    env: Annotated[str | None, typer.Option(help="Environment; see `epvf-data envs`.  [default: ant]")] = None,
    envs: Annotated[int | None, typer.Option(help="Worlds at once, and rows a commit.  [default: 4096]")] = None,
    policies: Annotated[int | None, typer.Option(help="Policies in all.  [default: as many as --envs]")] = None,
    out: Annotated[Path | None, typer.Option(help="The data set's folder.  [default: ENV.zarr]")] = None,
    base: Annotated[list[str] | None, typer.Option(help="Perturb around this policy file; repeat for more.")] = None,
    episodes: Annotated[int | None, typer.Option(help="Episodes a policy.  [default: 1; 8 where returns vary]")] = None,
    horizon: Annotated[int | None, typer.Option(help="Control steps an episode.  [default: the environment's]")] = None,
    seed: Seed = None,
    backend: Backend = None,
    config: Config = None,
    set_: Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue or extend a collection in --out.")] = False,
    mixed: Annotated[bool, typer.Option("--mixed", help="Allow another architecture beside those in --out.")] = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Roll out many policies and commit their parameters, probing actions and returns to a data set.

    The rows come from random initialisations and from perturbations around base policies. Every commit is durable:
    Ctrl-C or a crash loses at most the batch in flight, and `--resume` continues.
    """
    from epvf_data.collectors.collect import collect as run
    from epvf_data.collectors.setting import configure
    from epvf_data.envs import make as made
    from epvf_data.progress import Bar
    from epvf_data.runtime import prepare

    prepare()
    flags = {
        "env": env,
        "envs": envs,
        "policies": policies,
        "episodes": episodes,
        "horizon": horizon,
        "seed": seed,
        "backend": backend,
    }
    settings = configure(
        config, set_ or [], {key: value for key, value in flags.items() if value is not None}, base or []
    )
    target = out or Path(f"{made(settings.env).name}.zarr")
    try:
        with Bar("collect", "episodes", quiet) as bar:
            report = run(
                settings,
                target,
                resume=resume,
                mixed=mixed,
                progress=lambda done, total, steps: bar.update(done, total, steps, "env steps"),
            )
    except KeyboardInterrupt:
        raise _interrupted(target) from None
    values = asdict(report)
    if json:
        print_json(values)
        return
    if not report.rows:
        print(f"{report.dataset} holds all {report.rows_total:,} rows already; nothing to do.")
        return
    commits = plural(report.commits, "commit")
    print(
        f"{report.dataset}: {report.rows:,} rows in {commits} ({report.rows_total:,} in all), "
        f"{report.env_steps:,} env steps in {report.seconds:.1f} s ({report.env_steps_per_second:,.0f} a second)"
    )
    print(f"return: {report.return_mean:.2f} on average, {report.return_max:.2f} at most")
    if report.rows_not_finite:
        print(f"{report.rows_not_finite} policies gave NaN or infinity; their episodes ended there and are flagged.")


def _interrupted(target: Path) -> EpvfError:
    from epvf_data.store import reader

    try:
        kept = f"{reader.open(target).rows:,} rows are committed in {target}"
    except DatasetError:
        return DatasetError("interrupted before the first commit; nothing was written.")
    return DatasetError(f"interrupted: {kept}; continue with: {resume_command()}")
