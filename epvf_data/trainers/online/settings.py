"""The settings of online training: a preset or a file, changes on top, checked when they are made."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from epvf_data import code
from epvf_data import config as configuration
from epvf_data.config import (
    MAX_EPISODES,
    MAX_FLOAT,
    MAX_HORIZON,
    MAX_SEED,
    MAX_STEPS,
    MAX_WORLDS,
    check_one_of,
    check_range,
)
from epvf_data.critics.families import CRITICS, Family, name_of, resolve
from epvf_data.critics.settings import CriticSettings
from epvf_data.envs import check_name
from epvf_data.errors import ConfigError
from epvf_data.policies.config import LAWS, PolicyConfig, typed_architecture
from epvf_data.trainers.online.time_settings import TimeConfig
from epvf_data.untrusted import printable

TEMPORAL = ("pavf", "psvf")  # learn from single steps
ALGORITHMS = ("epvf", "es", "random", *TEMPORAL)
OPTIMISERS = ("adam", "momentum")  # of improve.make_improver
CLOSED = "probing-ridge"  # solved anew in every iteration
LEARNERS = (*(name for name, family in CRITICS.items() if family.online), CLOSED)
UNSCALED = ("statistics", "probing", "unf", CLOSED)
INPUTS = ("raw", "centred")
TARGETS = ("raw", "scaled", "standardised", "ranks")
PRESETS = Path(str(resources.files("epvf_data.trainers"))) / "online" / "presets"
MAX_COUNT = 10**6  # of steps within an iteration, of iterations to a log entry


@dataclass(frozen=True)
class ExplorationConfig:
    """How the M policies of an iteration are made from θ."""

    law: str = "uniform_scaled"  # the paper's: θ · (1 + U(−scale, scale))
    scale: float = 0.3
    floor: float = 0.0  # least magnitude that the scaled laws take a parameter to have
    antithetic: bool = False  # policies i and i + M/2 get opposite noise
    clip_noise: float | None = None  # clips the perturbation itself
    clip_weights: bool = False  # clips perturbed weights into ±improvement.weight_clip
    policies: int = 1  # how many θ are improved side by side under one V; each gets M / policies perturbations

    def __post_init__(self) -> None:
        check_one_of("perturbation law", self.law, LAWS)
        check_range(self, "exploration.", 0, MAX_FLOAT, "scale", "clip_noise", above=True)
        check_range(self, "exploration.", 0, MAX_FLOAT, "floor")
        check_range(self, "exploration.", 1, MAX_WORLDS, "policies")


@dataclass(frozen=True)
class ReplayConfig:
    """Which rows the critic sees."""

    capacity: int | None = None  # rows kept; None: as many as envs, that is, fresh rows only
    batch_size: int | None = None  # rows of a critic step, drawn without replacement; None: as many as envs

    def __post_init__(self) -> None:
        check_range(self, "replay.", 1, 1000 * MAX_WORLDS, "capacity")
        check_range(self, "replay.", 1, MAX_WORLDS, "batch_size")


@dataclass(frozen=True, kw_only=True)
class CriticConfig(CriticSettings):
    """V(θ) and how it is fitted in each iteration."""

    name: str | Family = "mlp"  # or FILE.py:FUNCTION, where the algorithm is epvf
    inputs: str = "raw"  # "centred": critics that read scaled parameters get θ' − θ in units of the noise
    target: str = "scaled"  # "scaled": return / best possible; "standardised", "ranks": over the buffer; "raw"
    steps: int = 10  # K
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    clip: float | None = None  # limit on the norm of a gradient
    penalty: float = 10.0  # of probing-ridge, see critics.probing.ridge_on_actions
    warm_steps: int = 1000  # critic steps on stored rows before the first iteration, where a data set is given

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.name, str):
            object.__setattr__(self, "name", resolve(self.name))
        elif not code.names_code(self.name):
            check_one_of("critic", self.name, LEARNERS)
        check_one_of("critic.inputs", self.inputs, INPUTS)
        check_one_of("critic.target", self.target, TARGETS)
        check_range(self, "critic.", 1, MAX_COUNT, "steps")
        check_range(self, "critic.", 1, 1000 * MAX_COUNT, "warm_steps")
        check_range(self, "critic.", 0, MAX_FLOAT, "weight_decay")
        check_range(self, "critic.", 0, MAX_FLOAT, "learning_rate", "clip", "penalty", above=True)
        if self.inputs == "centred" and self.name in UNSCALED:
            raise ConfigError(f"critic {self.name} reads policies as they are; leave critic.inputs at raw.")
        if self.name == CLOSED and (self.loss, self.ensemble) != ("mse", 1):
            raise ConfigError(f"{CLOSED} is solved in closed form; leave critic.loss and critic.ensemble alone.")


@dataclass(frozen=True)
class ImprovementConfig:
    """How θ climbs."""

    steps: int = 10  # L; evolution strategies take one
    optimiser: str = "adam"  # or "momentum": steps of the length learning_rate
    learning_rate: float = 1e-3
    final_learning_rate: float | None = None  # reached exponentially; None: constant
    final_at: float = 1.0  # share of the budget at which it is reached; constant from there on
    weight_decay: float = 0.0  # decoupled (AdamW)
    weight_clip: float | None = None  # θ stays within ±weight_clip, from before the first rollout
    trust: float | None = None  # V may rise by at most so many standard deviations of V over the perturbed policies
    beta1: float = 0.9
    beta2: float = 0.999

    def __post_init__(self) -> None:
        check_one_of("optimiser", self.optimiser, OPTIMISERS)
        check_range(self, "improvement.", 1, MAX_COUNT, "steps")
        check_range(self, "improvement.", 0, MAX_FLOAT, "weight_decay", "beta1", "beta2")
        rates = ("learning_rate", "final_learning_rate", "weight_clip", "trust")
        check_range(self, "improvement.", 0, MAX_FLOAT, *rates, above=True)
        check_range(self, "improvement.", 0, 1, "final_at", above=True)  # a share of the budget


@dataclass(frozen=True)
class OnlineConfig:
    """Everything that decides what a run computes. Raises ConfigError for values that make no sense."""

    env: str = "ant"
    algorithm: str = "epvf"  # "es": OpenAI-ES; "random": random search; on the same rollouts. "pavf", "psvf": use time
    envs: int = 4096  # M, perturbed policies an iteration
    episodes: int = 1  # a policy, in each iteration
    horizon: int | None = None  # control steps; None: the environment's
    iterations: int | None = None  # the budget of each seed, whichever ends first
    env_steps: int | None = None
    seed: int = 0
    seeds: int = 1  # runs side by side with seeds seed, seed + 1, …
    backend: str = "auto"
    log_every: int = 1  # iterations between two log entries and evaluations of θ
    evaluation_episodes: int | None = None  # of θ; None: 1 where nothing is random, else 8
    normalise_observations: bool = False  # running mean and deviation, folded into the first layer
    init_scale: float = 1.0  # fresh θ: U(±init_scale/√fan_in)
    start: str | None = None  # a policy file to start from in place of a fresh θ
    devices: int | None = None  # at most so many share rollouts and the fit of V; None: all that are here
    checkpoint_seconds: float = 60.0  # between checkpoints; results are the same
    snapshots: int = 0  # policies kept along the run, evenly over its budget; results are the same
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    exploration: ExplorationConfig = field(default_factory=ExplorationConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    critic: CriticConfig = field(default_factory=CriticConfig)
    improvement: ImprovementConfig = field(default_factory=ImprovementConfig)
    time: TimeConfig = field(default_factory=TimeConfig)  # of pavf and psvf

    def __post_init__(self) -> None:
        check_name(self.env)
        check_one_of("algorithm", self.algorithm, ALGORITHMS)
        check_range(self, "", 1, MAX_WORLDS, "envs")
        check_range(self, "", 1, MAX_EPISODES, "episodes", "evaluation_episodes")
        check_range(self, "", 1, MAX_HORIZON, "horizon")
        check_range(self, "", 1, MAX_STEPS, "iterations", "env_steps")
        check_range(self, "", 1, 1_000, "seeds")
        check_range(self, "", 1, MAX_COUNT, "log_every")
        check_range(self, "", 0, MAX_SEED + 1 - self.seeds, "seed")
        check_range(self, "", 0, 100_000, "snapshots")
        check_range(self, "", 1, 10_000, "devices")
        check_range(self, "", 0, MAX_FLOAT, "checkpoint_seconds")
        check_range(self, "", 0, MAX_FLOAT, "init_scale", above=True)
        self._check_together()

    def _check_together(self) -> None:
        """Settings that contradict each other."""
        explore, replay, count = self.exploration, self.replay, self.envs
        if self.iterations is None and self.env_steps is None:
            raise ConfigError("neither iterations nor env_steps is set; a run needs an end.")
        if self.normalise_observations and not self.policy.bias and self.policy.architecture is None:
            raise ConfigError("normalise_observations folds the mean into the first bias; set policy.bias=true.")
        if explore.clip_weights and self.improvement.weight_clip is None:
            raise ConfigError("exploration.clip_weights needs improvement.weight_clip.")
        if self.algorithm != "epvf" and (name := name_of(self.critic.name)) not in LEARNERS:
            raise ConfigError(f"critic.name is {printable(name)}, and {self.algorithm} takes no critic of your own.")
        if self.algorithm in TEMPORAL:
            check_temporal(self)
            return
        if count % (explore.policies * (2 if explore.antithetic else 1)):
            pairs = " in antithetic pairs" if explore.antithetic else ""
            raise ConfigError(f"envs is {count}; it must be a multiple of the {explore.policies} policies{pairs}.")
        if replay.capacity is not None and replay.capacity < count:
            raise ConfigError(
                f"replay.capacity is {replay.capacity:,}; one iteration has {count:,} policies (envs), "
                "and at least these must fit."
            )
        if (replay.capacity or count) > count and explore.policies > 1:
            raise ConfigError("several policies under one V learn from fresh rows only; leave replay.capacity out.")
        if self.batch_size > self.capacity:
            raise ConfigError(
                f"replay.batch_size is {self.batch_size}; the buffer of {self.capacity} rows cannot fill it."
            )
        if self.algorithm == "es" and explore.law != "gaussian":
            raise ConfigError(f"evolution strategies draw Gaussian noise; got exploration.law={explore.law}.")
        if self.algorithm != "epvf" and explore.policies > 1:
            raise ConfigError(f"algorithm {self.algorithm} improves one policy; leave exploration.policies at 1.")
        if self.critic.name == "probing-ridge" and (self.capacity > count or explore.policies > 1):
            raise ConfigError("probing-ridge is solved for one policy on fresh rows; leave capacity and policies out.")

    @property
    def capacity(self) -> int:
        """Rows that the buffer holds: whole iterations, as many as fit into what is set."""
        return (self.replay.capacity or self.envs) // self.envs * self.envs

    @property
    def batch_size(self) -> int:
        """Rows of a critic step."""
        return self.replay.batch_size or self.envs


def check_temporal(config: OnlineConfig) -> None:
    """Raises ConfigError for settings that contradict each other where a critic uses time."""
    name, time, batch, rows = config.algorithm, config.time, config.batch_size, config.envs * config.time.segment
    if config.exploration.antithetic or config.exploration.policies > 1:
        raise ConfigError(f"{name} draws each perturbation of one θ by itself; leave antithetic and policies out.")
    policy = config.policy
    if policy.architecture is None and (policy.gaussian is not None or policy.output == "identity"):
        raise ConfigError(f"{name} adds noise to actions in ±1 itself; leave policy.gaussian and policy.output out.")
    if config.critic.loss not in ("mse", "hl-gauss") or (
        config.critic.loss == "hl-gauss" and time.reward_range is None
    ):
        raise ConfigError(f"{name} learns values: critic.loss is mse, or hl-gauss with a time.reward_range.")
    if config.capacity < max(batch, rows):
        raise ConfigError(
            f"replay.capacity is {config.capacity:,} transitions; it must hold an iteration of {config.envs:,} worlds "
            f"times {time.segment} steps, and a batch of {batch:,}."
        )
    if config.critic.steps % time.delay:
        raise ConfigError(f"critic.steps is {config.critic.steps}; it must be a multiple of time.delay ({time.delay}).")
    if config.horizon is not None and config.horizon < time.segment:
        raise ConfigError(
            f"horizon is {config.horizon}; a segment of {time.segment} control steps is longer, set time.segment."
        )
    if name == "psvf" and (time.representation == "none" or not time.z_gradient or time.own < 1):
        raise ConfigError("psvf knows θ through z alone: time.own is 1, and it needs a representation and z_gradient.")


def presets() -> dict[str, str]:
    """The presets that ship with the package: name → what it is, from its first line."""
    files = sorted(PRESETS.glob("*.toml"))
    return {path.stem: path.read_text("utf-8").splitlines()[0].removeprefix("# ") for path in files}


def read_preset(name: str) -> dict[str, Any]:
    """The settings of a preset or of a TOML file, which may start from a preset with `preset = "name"`."""
    shipped = presets()
    if name not in shipped and not Path(name).suffix and not os.path.isfile(name):  # noqa: PTH113 (any name)
        check_one_of("preset", name, shipped)
    stated = configuration.read_toml(PRESETS / f"{name}.toml" if name in shipped else name)
    parent = stated.pop("preset", None)
    if parent is None:
        return stated
    check_one_of("preset", parent, shipped)  # not a file: one that names itself would have no end
    return configuration.merge(read_preset(parent), stated)


def configure(preset: str | None, *layers: Mapping[str, Any]) -> OnlineConfig:
    """The preset (or file), then each layer of changes. Raises ConfigError for settings that cannot be, code that the
    file names among them."""
    stated = read_preset(preset) if preset else {}
    typed = configuration.merge(*layers)
    code.check_stated(stated, typed, str(preset))
    if typed_architecture(typed):  # it has no first layer to fold them into
        stated = {**stated, "normalise_observations": False}
    config = configuration.build(OnlineConfig, stated, typed)
    bounds, own = config.time.reward_range, typed.get("time", {})
    if bounds is not None and "reward_range" not in own and config.env != stated.get("env", config.env):
        raise ConfigError(
            f"{preset} is for {stated['env']}: its time.reward_range {list(bounds)} says what a step can bring there, "
            f"and env is {config.env}; take body-pavf, or set time.reward_range to its own."
        )
    return config


def online_config(preset: str, **changes: Any) -> OnlineConfig:
    """A preset or a file with some settings changed: `online_config("ant-cpu", seeds=5, **{"critic.steps": 3})`."""
    return configure(preset, configuration.nested(changes))
