"""A run of online training in a directory of its own: settings, metrics, checkpoints, policies, report."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from epvf_data import envs
from epvf_data.code import Function, Origin
from epvf_data.config import build
from epvf_data.envs import Env
from epvf_data.errors import ConfigError, EnvironmentMismatchError
from epvf_data.policies.files import save_policy
from epvf_data.policies.kinds import Spec, mlp_of
from epvf_data.policies.loading import PolicyCode
from epvf_data.policies.loading import origin_of as policy_origin
from epvf_data.rollout import resolve_backend
from epvf_data.trainers import checkpoint, rundir, startedwith, trackers
from epvf_data.trainers.online.identity import REPORT, hold, identity, settings_of, stored_run
from epvf_data.trainers.online.iteration import seeds_of
from epvf_data.trainers.online.journal import Journal, seed_series
from epvf_data.trainers.online.learners import Own, origin_of, with_critic
from epvf_data.trainers.online.loop import Chunk, make_loop
from epvf_data.trainers.online.record import Recorder
from epvf_data.trainers.online.settings import TEMPORAL, OnlineConfig
from epvf_data.trainers.online.standing import Standing, account, active, begin, restored
from epvf_data.trainers.online.step_loop import make_step_loop
from epvf_data.trainers.online.top import BestPerturbed
from epvf_data.trainers.online.warm import warm_up
from epvf_data.untrusted import printable

Progress = Callable[[dict[str, Any]], None]
CHECKPOINTS, POLICIES = "checkpoints", "policies"


@dataclass(frozen=True)
class OnlineReport:
    """How a run stands. Returns are means over seeds: of the last log entry, of the best unperturbed policy seen, and
    of the best perturbed one in the few episodes that chose it, so that some of that is chance. Where θ learns from
    single steps, `return_disturbed` is the mean of sixteen tiny disturbances, and `return_best` the best such mean."""

    run: str
    algorithm: str
    iterations: int
    env_steps: int  # of the perturbed policies, all seeds
    return_perturbed: float
    return_unperturbed: float
    return_disturbed: float | None
    return_best: float
    return_best_perturbed: float | None
    seconds: float
    seeds: int
    finished: bool

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def train_online(
    config: OnlineConfig,
    run_dir: str | Path,
    *,
    resume: bool = False,
    record: str | Path | None = None,
    warm_start: str | Path | None = None,
    max_seconds: float | None = None,
    progress: Progress | None = None,
    critic: Own | None = None,
    policy: PolicyCode | None = None,
    track: Sequence[str] = ("tensorboard",),
) -> OnlineReport:
    """Trains `config.seeds` policies side by side until the budget is spent, or one more entry oversteps `max_seconds`.

    `run_dir` then holds config.json, versions.json, metrics.jsonl, checkpoints/, policies/ (last-, best-,
    best-perturbed-, at-ITERATION-K of seed K) and, at the end, report.json. `resume` goes on with a stopped run, to the
    bits of an uninterrupted one on the same machine, or with more budget, unless a rate falls over it. `record` names
    a data set for all rollouts, `warm_start` one to fit the critic on first; `critic` is as in `train_offline`, and
    `policy` an architecture of your own. `progress` and the trackers in `track` ("tensorboard", "wandb", "trackio") get
    log entries. Raises RunError for a directory that is taken, holds no run, or has other settings.
    """
    trackers.check(track)
    began, directory, config = time.perf_counter(), Path(run_dir), with_policy(with_critic(config, critic), policy)
    env, spec, backend = resolve(config)
    settings = settings_of(config, env, backend, record, warm_start)
    settings["run"] = identity(directory, settings, resume)
    loop = (make_step_loop if config.algorithm in TEMPORAL else make_loop)(config, env, spec, backend)
    standing, stored = begin(loop.init(), config, spec), directory / CHECKPOINTS
    if resume and checkpoint.latest(stored) is not None:
        standing = restored(checkpoint.restore(stored, standing.template()), standing)
    elif warm_start is not None:
        standing.state = warm_up(config, env, spec, standing.state, Path(warm_start))
    recorder = Recorder(config, env, spec, backend, settings["run"], Path(record)) if record else None
    if not resume:
        rundir.create_run(directory, settings, origin_of(config), policy_origin_of(config))
    held, journal = hold(directory, config, standing), _journal(directory, settings, standing, track)
    keeper = _Keeper(directory, config, env, spec, recorder, standing, began)
    try:
        while (going := active(config, standing)).any():
            chunk = loop.advance(standing.state, going, recorder is not None)
            account(standing, chunk)
            keeper.perturbed.see(chunk.top)
            if recorder is not None:
                recorder.add(chunk.rollouts)
            _log(journal, progress, config, standing, chunk, keeper.elapsed())
            keeper.keep(standing)
            if keeper.over(max_seconds):
                break
        keeper.save(standing)
    except KeyboardInterrupt:
        if standing.alive:
            keeper.save(standing)
        raise
    finally:
        journal.close()
        if recorder is not None:
            recorder.close()
        held.close()
    return _report(directory, config, standing, keeper.perturbed.mean())


def with_policy(config: OnlineConfig, policy: PolicyCode | None) -> OnlineConfig:
    """The settings with this architecture in place of theirs, or with theirs, once the code that it names is loaded."""
    chosen = config.policy if policy is None else replace(config.policy, architecture=policy)
    return replace(config, policy=chosen.loaded())


def policy_origin_of(config: OnlineConfig) -> Origin | None:
    """The file that the settings' architecture comes from; None for the package's MLP."""
    given = config.policy.architecture
    return None if given is None else policy_origin(Function.of(given))


def resolve(config: OnlineConfig) -> tuple[Env, Spec, str]:
    """The environment with its horizon, the architecture and the backend of a run."""
    env = envs.make(config.env)
    env = env.with_horizon(config.horizon or env.horizon)
    spec = config.policy.spec(env)
    if config.normalise_observations:
        mlp_of(spec, "normalise_observations", "set normalise_observations=false")
    if config.algorithm in TEMPORAL and not spec.bounded:
        raise ConfigError(f"{config.algorithm} adds noise to actions in ±1 itself; policies {spec} are not bounded.")
    return env, spec, resolve_backend(env, config.backend)


def read_config(
    run_dir: str | Path, env: str | None = None, critic: str | None = None, policy: str | None = None
) -> OnlineConfig:
    """The settings of a run. Where its environment, critic or policy is the user's own, that one is named again.

    Raises RunError where there is no run of online training, and EnvironmentMismatchError or RunError where only the
    run's file names code: it may be a stranger's.
    """
    found = stored_run(Path(run_dir))
    stored = found["config"]
    startedwith.check_code(Path(run_dir), found, stored["critic"]["name"], critic)
    if env is None and not envs.known(stored["env"]):
        raise EnvironmentMismatchError(
            f"{run_dir} is of {printable(stored['env'])}, which is none of this package's environments; name your own "
            'one, as in env="my_env.py:make".'
        )
    startedwith.check_code(Path(run_dir), found, stored["policy"]["architecture"], policy, "policy")
    own = {} if critic is None else {"critic": {"name": critic}}
    own |= {} if policy is None else {"policy": {"architecture": policy}}
    return build(OnlineConfig, stored, {} if env is None else {"env": env}, own)


def _journal(directory: Path, settings: dict[str, Any], standing: Standing, track: Sequence[str]) -> Journal:
    tracked = trackers.Tracked(directory, settings["run"], settings["config"], standing.iteration)
    seeds = range(settings["config"]["seed"], settings["config"]["seed"] + settings["config"]["seeds"])
    return Journal(directory, standing.iteration, trackers.open_trackers(track, tracked, map(seed_series, seeds)))


def _log(
    journal: Journal, progress: Progress | None, config: OnlineConfig, standing: Standing, chunk: Chunk, elapsed: float
) -> None:
    journal.write(_lines(config, standing, chunk, elapsed))
    if progress is not None:
        progress(_event(config, standing, chunk, elapsed))


def _lines(config: OnlineConfig, standing: Standing, chunk: Chunk, elapsed: float) -> list[dict[str, Any]]:
    """One line of metrics.jsonl for each seed that took part."""
    return [
        {
            "iteration": standing.iteration,
            "seed": int(seed),
            "env_steps": int(standing.env_steps[index]),
            "return_unperturbed": float(standing.returns[1, index]),
            "seconds": round(elapsed, 3),
            **{name: float(value[index]) for name, value in chunk.metrics.items()},
            **{f"{name}_seconds": round(value, 4) for name, value in chunk.seconds.items()},
        }
        for index, seed in enumerate(seeds_of(config))
        if chunk.active[index]
    ]


def _event(config: OnlineConfig, standing: Standing, chunk: Chunk, elapsed: float) -> dict[str, Any]:
    """What `progress` gets. `shares` tells where this chunk's time went."""
    total = sum(chunk.seconds.values()) or 1.0
    return {
        "iteration": standing.iteration,
        "iterations": config.iterations,
        "env_steps": int(standing.env_steps.sum()),
        "env_steps_total": None if config.env_steps is None else config.env_steps * config.seeds,
        "fraction": min(1.0, float(np.asarray(standing.state.fraction).min())),
        "return_perturbed": float(standing.returns[0].mean()),
        "return_unperturbed": float(standing.returns[1].mean()),
        "return_best": float(standing.best_score.mean()),
        "seconds": elapsed,
        "shares": {name: value / total for name, value in chunk.seconds.items()},
    }


class _Keeper:
    """Saves now and then: first the recorded rows, then the policies, then the checkpoint that stands for both."""

    def __init__(
        self,
        directory: Path,
        config: OnlineConfig,
        env: Env,
        spec: Spec,
        recorder: Recorder | None,
        standing: Standing,
        began: float,
    ):
        self.directory, self.config, self.env, self.spec = directory, config, env, spec
        self.recorder, self.spent, self.began = recorder, float(standing.seconds), began
        self.perturbed = BestPerturbed(directory / POLICIES, seeds_of(config), env, spec)
        self.saved = self.logged = time.perf_counter()
        self.kept = int(np.asarray(standing.state.fraction).min() * config.snapshots)

    def elapsed(self) -> float:  # seconds that the run has taken, those before a resume included
        return self.spent + time.perf_counter() - self.began

    def over(self, max_seconds: float | None) -> bool:
        """Whether another log entry, as long as this one, would end more than so many seconds after this call began."""
        before, self.logged = self.logged, time.perf_counter()
        return max_seconds is not None and 2 * self.logged - before - self.began > max_seconds

    def keep(self, standing: Standing) -> None:
        """A snapshot where one is due, and a checkpoint now and then."""
        self._snapshot(standing)
        if time.perf_counter() - self.saved >= self.config.checkpoint_seconds:
            self.save(standing)

    def _snapshot(self, standing: Standing) -> None:
        """Keeps the policies of this moment where the next snapshot is due. A resumed run writes the same ones."""
        due = int(np.asarray(standing.state.fraction).min() * self.config.snapshots)
        if due > self.kept:
            self.kept = due
            self._policies(f"at-{standing.iteration:06d}", standing.last)

    def _policies(self, name: str, params: np.ndarray) -> None:
        for index, seed in enumerate(seeds_of(self.config)):
            if np.isfinite(params[index]).all():
                path = self.directory / POLICIES / f"{name}-{seed}.safetensors"
                save_policy(path, self.spec, params[index], env=self.env.name, horizon=str(self.env.horizon))

    def save(self, standing: Standing) -> None:
        if self.recorder is not None:
            self.recorder.flush()
        standing.seconds = np.asarray(self.elapsed())
        for name, params in (("last", standing.last), ("best", standing.best)):
            self._policies(name, params)
        self.perturbed.save()
        if checkpoint.latest(folder := self.directory / CHECKPOINTS) != standing.iteration:  # it would be the same one
            checkpoint.save(folder, standing.iteration, standing.tree())
        self.saved = time.perf_counter()


def _report(directory: Path, config: OnlineConfig, standing: Standing, perturbed: float | None) -> OnlineReport:
    """The report, which a finished run keeps as a file."""
    report = OnlineReport(
        run=str(directory),
        algorithm=config.algorithm,
        iterations=standing.iteration,
        env_steps=int(standing.env_steps.sum()),
        return_perturbed=float(standing.returns[0].mean()),
        return_unperturbed=float(standing.returns[1].mean()),
        return_disturbed=float(standing.returns[2].mean()) if config.algorithm in TEMPORAL else None,
        return_best=float(standing.best_score.mean()),
        return_best_perturbed=perturbed,
        seconds=round(float(standing.seconds), 3),
        seeds=config.seeds,
        finished=not active(config, standing).any(),
    )
    if report.finished:
        rundir.write_json(directory / REPORT, report.to_dict())
    return report
