"""train-online."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from epvf_data.baselines.settings import PRESETS as BASELINES
from epvf_data.baselines.settings import BaselineConfig, baseline_config
from epvf_data.cli.app import Debug, Json, Quiet, Seed, Set, app, print_json, resume_command, say
from epvf_data.cli.choices import Backend, Policy, Track, choice, environment
from epvf_data.cli.launching import check_executor, executor_option
from epvf_data.cli.learning import tell_runs
from epvf_data.errors import ConfigError, StoppedError
from epvf_data.trainers import trackers
from epvf_data.trainers.online.settings import ALGORITHMS, TEMPORAL, presets

if TYPE_CHECKING:
    from epvf_data.trainers.online.run import OnlineReport
    from epvf_data.trainers.online.settings import OnlineConfig

# Environment → preset without --config: of critics that use time where that was measured (docs/time.md), else V(θ)'s.
TIMED = {name: f"{name}-pavf" for name in ("ant", "halfcheetah", "swimmer")}
TIMED |= dict.fromkeys(("hopper", "walker2d", "ant-gym", "humanoid"), "body-pavf")
TIMED |= dict.fromkeys(("playground-CheetahRun", "playground-WalkerWalk"), "halfcheetah-pavf")
DEFAULTS = {"ant": "ant-cpu", "cartpole": "cartpole-paper"}
PRESET = choice(
    "preset",
    (*presets(), *BASELINES),
    "Settings; --presets tells about those that ship.  [default: the one for --env and --algorithm]",
    others="FILE.toml",
    check=lambda name: None,  # `configure` looks
)


@app.command(
    "train-online",
    rich_help_panel="Make and learn from rows",
    epilog="Examples: `epvf-data train-online --env cartpole` · "
    "`epvf-data train-online --config ant-cpu --seeds 5 --record ant-online.zarr` · "
    "`epvf-data train-online --config ant-paper --out paper --max-minutes 10`, and then the same with `--resume`",
)
def train_online(
    env: Annotated[str | None, typer.Option(**environment("Environment.  [default: the preset's]"))] = None,
    config: Annotated[str | None, typer.Option("--config", **PRESET)] = None,
    policy: Policy = None,
    algorithm: Annotated[
        str | None, typer.Option(**choice("algorithm", ALGORITHMS, "How θ is improved.  [default: the preset's]"))
    ] = None,
    envs: Annotated[
        int | None, typer.Option(help="Policies rolled out at once, each in a world of its own: those of an iteration.")
    ] = None,
    iterations: Annotated[int | None, typer.Option(help="Iterations of each seed.")] = None,
    env_steps: Annotated[int | None, typer.Option(help="Environment steps of each seed.")] = None,
    horizon: Annotated[int | None, typer.Option(help="Control steps an episode.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Runs side by side, with seeds SEED, SEED + 1, …")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The run directory.  [default: PRESET-run, with the environment where PRESET says body]"),
    ] = None,
    record: Annotated[Path | None, typer.Option(help="Commit every rollout to this data set.")] = None,
    warm_start: Annotated[Path | None, typer.Option(help="Fit the critic on this data set first.")] = None,
    track: Track = None,
    max_minutes: Annotated[
        float | None, typer.Option(min=0, help="Stop at a log entry within so long; --resume goes on.")
    ] = None,
    executor: Annotated[
        str | None, typer.Option(**executor_option("Train each seed by itself, in --out/seed-K,"))
    ] = None,
    seed: Seed = None,
    backend: Backend = None,
    set_: Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run in --out.")] = False,
    list_presets: Annotated[bool, typer.Option("--presets", help="List the presets.")] = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Perturb a policy, roll the perturbations out, fit a critic that reads policies, climb it, and again.

    On the paper's Ant, Gymnasium's bodies and Playground's WalkerWalk and CheetahRun that is Q(s, a, θ), learned from
    single steps, unless `--config` or `--algorithm` say otherwise; elsewhere it is V(θ), learned from returns:
    Algorithm 1 of the paper, `epvf`.

    The run directory holds metrics.jsonl, TensorBoard files, checkpoints, and the last policy, the best unperturbed and
    the best perturbed one as files that `collect --base` and `render` take. Evolution strategies and random search run
    on the same rollouts, as controls.
    """
    from epvf_data import config as configuration
    from epvf_data.trainers.online.inputs import check_apart, check_inputs
    from epvf_data.trainers.online.settings import configure

    if list_presets:
        _list_presets(json)
        return
    check_executor(executor)
    flags: dict[str, Any] = {
        "env": env,
        "algorithm": algorithm,
        "envs": envs,
        "iterations": iterations,
        "env_steps": env_steps,
        "horizon": horizon,
        "seeds": seeds,
        "seed": seed,
        "backend": backend,
    }
    name = config or preset_of(env or "ant", algorithm)
    given = {key: value for key, value in flags.items() if value is not None}
    given |= {} if policy is None else {"policy": {"architecture": policy}}
    changes = configuration.parse_overrides(set_ or [])
    if name in BASELINES:
        if resume or record or warm_start or max_minutes or executor:
            raise ConfigError(f"{name} takes no --resume, --record, --warm-start, --max-minutes or --executor.")
        how = {} if track is None else {"track": trackers.parse(track)}
        baseline = baseline_config(name, **configuration.merge(changes, given))
        _baseline(baseline, out or default_out(name, baseline.env), how, json, quiet)
        return
    settings = configure(name, changes, given)
    target = out or default_out(name, settings.env)
    seconds = None if max_minutes is None else 60 * max_minutes
    if executor is None:
        check_inputs(target, resume, record, warm_start)
    else:
        check_apart(settings, target, resume, record, warm_start)
    how = {"resume": resume, "record": record, "warm_start": warm_start, "max_seconds": seconds}
    if track and executor:
        raise ConfigError("--track follows seeds that are trained side by side; leave --executor or --track out.")
    how |= {} if track is None else {"track": trackers.parse(track)}
    run = partial(_run, settings) if executor is None else partial(_run_apart, executor, settings)
    _tell(run(target, how, quiet), target if executor is None else target / "seed-*", json)


def preset_of(env: str, algorithm: str | None) -> str:
    """The preset without --config: by the environment, unless an algorithm is named that is not one of its preset's."""
    timed = TIMED.get(env.replace(":", "-"))
    return timed if timed and algorithm in (None, *TEMPORAL) else DEFAULTS.get(env, "body")


def default_out(preset: str, env: str) -> Path:
    """Where a run goes without --out: called by its file, or its preset with `env` for the preset's own environment."""
    from epvf_data.envs import ENVS, full_name

    first, *rest = preset.split("-")
    ours = not preset.endswith(".toml") and first in ("body", *ENVS)
    return Path("-".join([full_name(env), *rest, "run"]) if ours else f"{Path(preset).stem}-run")


def _list_presets(json: bool) -> None:
    if json:
        print_json({"presets": presets(), "baselines": list(BASELINES)})
        return
    for name, sentence in presets().items():
        say(f"{name:18}{sentence}")
    say(f"{', '.join(BASELINES)}: PPO and SAC of brax, which the extra `baselines` installs.")


def _run(settings: OnlineConfig, target: Path, how: dict[str, Any], quiet: bool) -> OnlineReport:
    """Trains with a progress bar; Ctrl-C tells how the run goes on."""
    from epvf_data.progress import COMPILING, Bar
    from epvf_data.runtime import prepare
    from epvf_data.trainers.online.run import train_online as run

    prepare()
    try:
        with Bar("train", "env steps", quiet, patient=True, waiting=COMPILING) as bar:
            return run(settings, target, progress=bar.run, **how)
    except KeyboardInterrupt:
        raise StoppedError(_interrupted(target)) from None


def _run_apart(executor: str, settings: OnlineConfig, target: Path, how: dict[str, Any], quiet: bool) -> OnlineReport:
    """Trains each seed on an executor; a bar over the seeds that have ended."""
    from epvf_data.launch.executors import opened, parse
    from epvf_data.launch.seeds import train_seeds
    from epvf_data.progress import Bar

    try:
        with Bar("train", "seeds", quiet, waiting="starting workers") as bar, opened(parse(executor), target) as found:
            return train_seeds(settings, target, found, progress=lambda done: bar.update(done, settings.seeds), **how)
    except KeyboardInterrupt:
        raise StoppedError(
            f"interrupted; what the seeds had learned is kept in {target}, continue with: {resume_command()}"
        ) from None


def _interrupted(target: Path) -> str:
    """What is left of a run that was stopped, and how it goes on."""
    from epvf_data.trainers import checkpoint
    from epvf_data.trainers.online.run import CHECKPOINTS

    if checkpoint.latest(target / CHECKPOINTS) is not None:
        return f"interrupted; continue from the last checkpoint with: {resume_command()}"
    if (target / "config.json").exists():
        return f"interrupted before the first checkpoint; begin the run anew with: {resume_command()}"
    return "interrupted before the run began; the same command begins it anew."


def _tell(report: OnlineReport, target: Path, json: bool) -> None:
    """The result of a run, and how an unfinished one goes on."""
    if json:
        print_json(report.to_dict())
        return
    say(
        f"{report.run}: {report.iterations:,} iterations, {report.env_steps:,} env steps in {report.seconds:.0f} s "
        f"({report.env_steps / max(report.seconds, 1e-9):,.0f} a second)"
    )
    tell_runs(target)
    if report.return_disturbed is not None:
        say(
            f"θ under 16 tiny disturbances, by which best-SEED is chosen: {report.return_disturbed:.2f} on average at "
            f"the end, {report.return_best:.2f} at best"
        )
    if report.return_best_perturbed is not None:
        say(
            f"best perturbed {report.return_best_perturbed:.2f} (best-perturbed-SEED), the highest of many returns in "
            "few episodes: some of it is chance"
        )
    if not report.finished:
        say(f"not finished; continue with: {resume_command()}")
    say(f"policies: {target / 'policies'}, for `epvf-data render` and `collect --base`")
    say(f"curves: `epvf-data plot {target}`, {target / 'metrics.jsonl'}{_viewer(target)}")


def _viewer(target: Path) -> str:
    """How to see TensorBoard files, where there are some and that program is installed."""
    from importlib.util import find_spec

    there = (target / "tensorboard").is_dir() and find_spec("tensorboard")
    return f", `tensorboard --logdir {target}`" if there else ""


def _baseline(settings: BaselineConfig, target: Path, how: dict[str, Any], json: bool, quiet: bool) -> None:
    """PPO or SAC in place of a policy-conditioned critic."""
    from epvf_data.baselines.directory import check

    check(target)

    from epvf_data.baselines.train import train_baseline
    from epvf_data.progress import COMPILING, Bar
    from epvf_data.runtime import prepare

    prepare()
    try:
        with Bar("train", "env steps", quiet, waiting=COMPILING) as bar:
            report = train_baseline(settings, target, **how, progress=bar.run)
    except KeyboardInterrupt:
        name = settings.algorithm.upper()
        raise StoppedError(f"interrupted; {name} cannot go on, and the same command begins it anew.") from None
    if json:
        print_json(report.to_dict())
        return
    say(f"{report.run}: {report.env_steps:,} env steps in {report.seconds:.0f} s")
    say(f"return of the deterministic policy: {report.return_unperturbed:.2f}; curves: {target / 'metrics.jsonl'}")
