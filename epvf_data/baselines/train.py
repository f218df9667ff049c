"""One run of brax's PPO or SAC, written like a run of online training, so that both can stand in one figure."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from epvf_data import config as configuration
from epvf_data import runtime
from epvf_data.baselines import library
from epvf_data.baselines.directory import STEP, STEPS, begin, named, remove_steps
from epvf_data.baselines.export import to_policy
from epvf_data.baselines.settings import BaselineConfig
from epvf_data.baselines.worlds import Worlds
from epvf_data.envs import Env
from epvf_data.policies import mlp
from epvf_data.policies.files import save_policy
from epvf_data.policies.spec import PolicySpec
from epvf_data.rollout import resolve_backend, rollout
from epvf_data.trainers import rundir, trackers
from epvf_data.trainers.online.journal import Journal, seed_series

Progress = Callable[[dict[str, Any]], None]
_NO_LOSS = ("training/sps", "training/walltime", "training/learning_rate", "training/buffer_current_size")
_FREE_STD = {"distribution_type": "normal", "noise_std_type": "log", "state_dependent_std": False}
EXACT = 1e-4  # a policy file is written only if its actions are brax's within this


@dataclass(frozen=True)
class BaselineReport:
    """How a run ended; returns are those of the last evaluation."""

    run: str
    algorithm: str
    iterations: int  # evaluations, that is, lines of metrics.jsonl
    env_steps: int
    return_perturbed: float | None  # mean of the training episodes finished since the evaluation before
    return_unperturbed: float  # of the deterministic policy, in the environment that brax trained in
    return_rollout: float | None  # of the policy file through `rollout`; None where none could be written
    policy: str | None  # the policy file
    seconds: float
    finished: bool

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def train_baseline(
    config: BaselineConfig,
    run_dir: str | Path,
    *,
    track: Sequence[str] = ("tensorboard",),
    progress: Progress | None = None,
) -> BaselineReport:
    """Trains PPO or SAC and writes config.json, versions.json, metrics.jsonl, report.json and the last policy.

    A run cannot be resumed: one that was killed is started again from the beginning in the same directory.
    `progress` is called after each evaluation with env_steps, env_steps_total and return_perturbed, and the trackers in
    `track` ("tensorboard", "wandb", "trackio") get each line of the metrics.

    policies/ also keeps the policy of each evaluation, as at-EVALUATION-SEED.safetensors.

    Raises RunError when the directory holds a finished run or anything else, and ConfigError where brax is missing
    or a tracker is unknown, MissingPackageError where its package is.
    """
    runtime.check()
    trackers.check(track)
    library.load("training")
    directory, env = Path(run_dir), config.build_env()
    backend = resolve_backend(env, config.backend)
    begin(directory, config, env)
    tracked = trackers.Tracked(directory, secrets.token_hex(16), configuration.to_dict(config), 0)
    journal = Journal(directory, 0, trackers.open_trackers(track, tracked, [seed_series(config.seed)]))
    log = _Log(directory, config, env, progress, journal)
    with contextlib.closing(journal), library.ready():
        module, arguments = (_ppo if config.algorithm == "ppo" else _sac)(config, log)
        make_policy, params, _ = module.train(
            environment=Worlds(env, log.ended, backend),
            eval_env=Worlds(env, backend=backend),
            wrap_env_fn=lambda worlds, **_: worlds,  # they are a batch and start again by themselves
            num_timesteps=config.env_steps,
            episode_length=env.horizon,
            num_envs=config.envs,
            num_evals=config.evaluations + 1,  # the first is of the untrained policy
            num_eval_envs=config.episodes if env.random_start else 1,
            deterministic_eval=True,
            max_devices_per_host=1,
            seed=config.seed,
            progress_fn=log.evaluated,
            **arguments,
        )
        path = log.save(make_policy, params)
        _keep_sac(log, make_policy)
    report = log.report(path, _roll_out(env, config, params) if path else None)
    rundir.write_json(directory / "report.json", report.to_dict())
    return report


class _Log:
    """What a run has told so far: episodes that ended in training, and a line of metrics at each evaluation."""

    def __init__(self, directory: Path, config: BaselineConfig, env: Env, progress: Progress | None, journal: Journal):
        self.directory, self.config, self.env, self.progress, self.journal = directory, config, env, progress, journal
        self.began = time.perf_counter()
        self.episodes, self.total = 0, 0.0
        self.lines: list[dict[str, Any]] = []

    def ended(self, over: np.ndarray, returns: np.ndarray) -> None:
        """Called from inside the compiled loop."""
        over = np.asarray(over)
        self.episodes += int(over.sum())
        self.total += float(np.asarray(returns)[over].sum(dtype=np.float64))

    def evaluated(self, env_steps: int, metrics: dict[str, Any]) -> None:
        """Called by brax after each evaluation; the first, of the untrained policy, is left out."""
        jax.effects_barrier()
        if env_steps == 0:
            return
        losses = {
            name.removeprefix("training/"): float(value)
            for name, value in metrics.items()
            if name.startswith("training/") and name not in _NO_LOSS
        }
        line = {
            "iteration": len(self.lines) + 1,
            "seed": self.config.seed,
            "env_steps": int(env_steps),
            "return_perturbed": self.total / self.episodes if self.episodes else None,
            "return_unperturbed": float(metrics["eval/episode_reward"]),
            "episodes": self.episodes,
            "seconds": time.perf_counter() - self.began,
            "training_seconds": float(metrics["training/walltime"]),
            **losses,
        }
        self.episodes, self.total = 0, 0.0
        self.lines.append(line)
        self.journal.write([line])
        if self.progress is not None:
            self.progress(
                {
                    "env_steps": line["env_steps"],
                    "env_steps_total": self.config.env_steps,
                    "return_perturbed": line["return_perturbed"],
                }
            )

    def save(self, make_policy: Callable, params: Any, name: str = "last") -> Path | None:
        """Writes the deterministic policy, unless rounding keeps our form of it from giving brax's actions."""
        spec, flat = _policy(self.env, self.config, params)
        noise = np.random.default_rng(0).normal(size=(256, self.env.observation_size))
        seen = jnp.asarray(np.asarray(params[0].mean) + noise * np.asarray(params[0].std), jnp.float32)
        with jax.default_matmul_precision("highest"):
            theirs, _ = make_policy(params, deterministic=True)(seen, jax.random.PRNGKey(0))
            ours = jax.vmap(partial(mlp.apply, spec, mlp.unflatten(spec, jnp.asarray(flat))))(seen)
        if not np.abs(np.asarray(theirs - ours)).max() < EXACT:
            return None
        path = self.directory / "policies" / f"{name}-{self.config.seed}.safetensors"
        notes = {"algorithm": self.config.algorithm, "horizon": str(self.env.horizon)}
        save_policy(path, spec, flat, env=self.env.name, **notes)
        return path

    def report(self, path: Path | None, return_rollout: float | None) -> BaselineReport:
        last = self.lines[-1]
        return BaselineReport(
            run=str(self.directory),
            algorithm=self.config.algorithm,
            iterations=len(self.lines),
            env_steps=last["env_steps"],
            return_perturbed=last["return_perturbed"],
            return_unperturbed=last["return_unperturbed"],
            return_rollout=return_rollout,
            policy=None if path is None else str(path),
            seconds=time.perf_counter() - self.began,
            finished=True,
        )


def _policy(env: Env, config: BaselineConfig, params: Any) -> tuple[PolicySpec, np.ndarray]:
    own = getattr(config, config.algorithm)
    if not own.normalize_observations:  # brax counts them nevertheless
        zeros = np.zeros(env.observation_size)
        params = (SimpleNamespace(mean=zeros, std=zeros + 1), *params[1:])
    return to_policy(env, params, own.activation, getattr(own, "free_std", False))


def _roll_out(env: Env, config: BaselineConfig, params: Any) -> float:
    """The mean return of the policy through the same door as every other policy's."""
    spec, flat = _policy(env, config, params)
    episodes = config.episodes if env.random_start else 1
    return float(rollout(env, spec, flat[None], episodes=episodes, backend=config.backend).returns.mean())


class _Line:
    """A learning rate that falls along a line: a schedule for optax, a number for brax, which only records it."""

    def __init__(self, start: float, end: float, steps: int):
        self.start, self.end, self.steps = start, end, steps

    def __call__(self, count: Any) -> Any:
        return self.start + (self.end - self.start) * jnp.minimum(count / self.steps, 1.0)

    def __jax_array__(self) -> jax.Array:
        return jnp.float32(self.start)


def _ppo(config: BaselineConfig, log: _Log) -> tuple[Any, dict[str, Any]]:
    """brax's module and its arguments."""
    arguments = asdict(config.ppo)
    networks = library.load("training.agents.ppo.networks")
    final, start = arguments.pop("final_learning_rate"), arguments["learning_rate"]
    if final is not None:
        arguments["learning_rate"] = _Line(start, final, config.ppo_updates())
    factory = partial(
        networks.make_ppo_networks,
        policy_hidden_layer_sizes=arguments.pop("policy_hidden_layer_sizes"),
        value_hidden_layer_sizes=arguments.pop("value_hidden_layer_sizes"),
        activation=mlp.ACTIVATIONS[arguments.pop("activation")],
        **(_FREE_STD if arguments.pop("free_std") else {}),
    )

    def keep(env_steps: int, make_policy: Callable, params: Any) -> None:
        if env_steps:
            path = log.save(make_policy, params, f"at-{len(log.lines) + 1:06d}")
            if path is not None:
                shutil.copyfile(path, path.with_name(f"last-{config.seed}.safetensors"))

    return library.load("training.agents.ppo.train"), {
        **arguments,
        "network_factory": factory,
        "policy_params_fn": keep,  # so that an interrupted run leaves a policy; SAC has no such call
    }


def _sac(config: BaselineConfig, log: _Log) -> tuple[Any, dict[str, Any]]:
    """brax's module and its arguments."""
    arguments = asdict(config.sac)
    networks = library.load("training.agents.sac.networks")
    factory = partial(
        networks.make_sac_networks,
        hidden_layer_sizes=arguments.pop("hidden_layer_sizes"),
        activation=mlp.ACTIVATIONS[arguments.pop("activation")],
    )
    arguments["checkpoint_logdir"] = str(_steps_of(log.directory))
    return library.load("training.agents.sac.train"), {**arguments, "network_factory": factory}


def _keep_sac(log: _Log, make_policy: Callable) -> None:
    """SAC's policies of each evaluation, from the checkpoints that brax has written, which go."""
    folder = _steps_of(log.directory)
    for number, path in enumerate((path for path in named(folder, STEP) if path.name.isdecimal()), 1):
        params = library.load("training.checkpoint").load(path)
        log.save(make_policy, params, f"at-{number:06d}")
    remove_steps(folder)


def _steps_of(directory: Path) -> Path:
    """Where brax keeps checkpoints; the library behind them takes absolute paths only."""
    return (directory / STEPS).absolute()
