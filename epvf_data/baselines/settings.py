"""The settings of a baseline run, checked when they are made; hyper-parameters carry brax's names."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epvf_data import code, envs
from epvf_data import config as configuration
from epvf_data.config import BACKENDS, MAX_HORIZON, MAX_SEED, MAX_STEPS, MAX_WORLDS, check_range
from epvf_data.errors import ConfigError
from epvf_data.untrusted import shown

if TYPE_CHECKING:
    from epvf_data.envs import Env

ALGORITHMS = ("ppo", "sac")
ACTIVATIONS = ("tanh", "relu", "elu", "swish")  # those that a policy file can name
PRESETS = ("ant-ppo-paper", "ant-ppo-cpu", "ant-sac-paper", "ant-sac-cpu", "hopper-ppo-cpu", "body-sac")


@dataclass(frozen=True)
class PPOSettings:
    """Schulman et al. (2017), as brax has it: minibatches are `batch_size` segments of `unroll_length` steps."""

    learning_rate: float = 3e-4
    final_learning_rate: float | None = None  # reached along a line at the last update; None: constant
    discounting: float = 0.97
    gae_lambda: float = 0.95
    clipping_epsilon: float = 0.2
    entropy_cost: float = 1e-3
    max_grad_norm: float | None = 1.0
    vf_loss_coefficient: float = 0.5
    unroll_length: int = 32
    batch_size: int = 64
    num_minibatches: int = 8
    num_updates_per_batch: int = 4
    reward_scaling: float = 1.0
    normalize_observations: bool = True
    normalize_advantage: bool = True
    policy_hidden_layer_sizes: tuple[int, ...] = (64, 64)
    value_hidden_layer_sizes: tuple[int, ...] = (128, 128)
    activation: str = "elu"
    free_std: bool = False  # a normal distribution whose width is a parameter of its own, log_std, in place of tanh


@dataclass(frozen=True)
class SACSettings:
    """Haarnoja et al. (2018), as brax has it, with a target entropy of −A/2."""

    learning_rate: float = 3e-4
    discounting: float = 0.99
    tau: float = 0.005
    batch_size: int = 256
    min_replay_size: int = 10_000
    max_replay_size: int = 1_000_000
    grad_updates_per_step: int = 1  # a step is one control step of all worlds
    reward_scaling: float = 1.0
    normalize_observations: bool = True
    hidden_layer_sizes: tuple[int, ...] = (256, 256)
    activation: str = "relu"


@dataclass(frozen=True)
class BaselineConfig:
    """What is trained, on which task, and how long. Raises ConfigError for values that make no sense."""

    algorithm: str = "ppo"
    env: str = "ant"
    horizon: int | None = None  # control steps an episode; None: the environment's
    envs: int = 256
    env_steps: int = 5_000_000  # rounded up to whole iterations of every stretch between two evaluations
    evaluations: int = 20  # lines of metrics.jsonl
    episodes: int = 16  # of an evaluation, where starts are random
    seed: int = 0
    backend: str = "auto"
    ppo: PPOSettings = field(default_factory=PPOSettings)
    sac: SACSettings = field(default_factory=SACSettings)

    def __post_init__(self) -> None:
        envs.check_name(self.env)
        _choose("algorithm", self.algorithm, ALGORITHMS)
        _choose("backend", self.backend, BACKENDS)
        for table in ("ppo", "sac"):
            _choose(f"{table}.activation", getattr(self, table).activation, ACTIVATIONS)
        check_range(self, "", 1, MAX_HORIZON, "horizon")
        check_range(self, "", 1, MAX_WORLDS, "envs")
        check_range(self, "", 1, MAX_STEPS, "env_steps")
        check_range(self, "", 1, 100_000, "evaluations")
        check_range(self, "", 1, MAX_WORLDS, "episodes")
        check_range(self, "", 0, MAX_SEED, "seed")
        amounts = ("batch_size", "unroll_length", "num_minibatches", "num_updates_per_batch")
        check_range(self.ppo, "ppo.", 1, MAX_WORLDS, *amounts)
        check_range(self.ppo, "ppo.", 1, 1 << 16, "policy_hidden_layer_sizes", "value_hidden_layer_sizes")
        check_range(self.sac, "sac.", 1, MAX_WORLDS, "batch_size", "grad_updates_per_step")
        check_range(self.sac, "sac.", 1, 10**9, "min_replay_size", "max_replay_size")
        check_range(self.sac, "sac.", 1, 1 << 16, "hidden_layer_sizes")
        segments = self.ppo.batch_size * self.ppo.num_minibatches
        if self.algorithm == "ppo" and segments % self.envs:
            raise ConfigError(
                f"ppo.batch_size × ppo.num_minibatches is {segments}; make it a multiple of envs = {self.envs}."
            )
        prefill = -(-self.sac.min_replay_size // self.envs) * self.envs
        if self.algorithm == "sac" and not (prefill < self.env_steps and prefill <= self.sac.max_replay_size):
            raise ConfigError(
                f"sac.min_replay_size is {self.sac.min_replay_size}, {prefill} in steps of all worlds; it must be "
                f"below env_steps = {self.env_steps} and not above sac.max_replay_size = {self.sac.max_replay_size}."
            )

    def build_env(self) -> Env:
        """The task with the horizon of the run."""
        env = envs.make(self.env)
        return env if self.horizon is None else env.with_horizon(self.horizon)

    def ppo_updates(self) -> int:
        """Gradient steps of a whole PPO run."""
        ppo = self.ppo
        steps = ppo.batch_size * ppo.num_minibatches * ppo.unroll_length
        iterations = self.evaluations * -(-self.env_steps // (self.evaluations * steps))
        return iterations * ppo.num_minibatches * ppo.num_updates_per_batch


def baseline_config(preset_or_file: str | Path = "ant-ppo-cpu", **changes: Any) -> BaselineConfig:
    """A preset or a TOML file with some settings changed: `baseline_config("ant-ppo-cpu", **{"ppo.batch_size": 64})`.

    Raises ConfigError for an unknown preset, file or setting, and for a file that names code.
    """
    name = str(preset_or_file)
    if name in PRESETS:
        stated = configuration.read_toml(Path(str(resources.files("epvf_data.baselines"))) / "presets" / f"{name}.toml")
    elif Path(name).suffix == ".toml":
        stated = configuration.read_toml(name)
    else:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(PRESETS)}, or a .toml file."
        raise ConfigError(f"there is no preset {shown(name)}; {hint}")
    typed = configuration.nested(changes)
    code.check_stated(stated, typed, name)
    return configuration.build(BaselineConfig, stated, typed)


def _choose(name: str, got: str, known: tuple[str, ...]) -> None:
    if got not in known:
        raise ConfigError(f"{name} is {shown(got)}; choose one of {', '.join(known)}.")
