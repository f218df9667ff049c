"""What a collection is: its configuration, and that configuration resolved against this machine."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from epvf_data import config as configuration
from epvf_data import envs
from epvf_data.collectors.recipe import PerturbedSource, RandomSource, Recipe, load_bases
from epvf_data.envs import Env
from epvf_data.errors import ConfigError
from epvf_data.policies.config import PolicyConfig
from epvf_data.policies.files import load_policy
from epvf_data.policies.spec import PolicySpec
from epvf_data.recording.probes import probing_states
from epvf_data.recording.rows import simulation
from epvf_data.rollout import resolve_backend
from epvf_data.store.schema import policy_id

STOCHASTIC_EPISODES = 8  # default episodes a policy where the start is random


@dataclass(frozen=True)
class CollectConfig:
    """Everything that decides which rows a collection holds."""

    env: str = "ant"
    envs: int = 4096  # worlds at once, which is also the rows of one commit
    policies: int | None = None  # rows in all; None: as many as envs
    episodes: int | None = None  # a policy; None: 1 where the start is fixed, else 8
    horizon: int | None = None  # control steps; None: the environment's
    seed: int = 0
    backend: str = "auto"
    discount: float | None = None  # also store discounted returns
    probes: int = 64  # probing states
    probe_file: str | None = None  # .npy of shape [states, observation size] instead of the shipped ones
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    random: RandomSource = field(default_factory=RandomSource)
    perturbed: PerturbedSource = field(default_factory=PerturbedSource)

    def __post_init__(self) -> None:
        for name in ("envs", "policies", "episodes", "horizon", "probes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; it must be at least 1.")
        if self.discount is not None and not 0.0 < self.discount <= 1.0:
            raise ConfigError(f"discount is {self.discount}; it must be above 0 and at most 1.")

    @property
    def recipe(self) -> Recipe:
        return Recipe(self.random, self.perturbed)


def configure(
    file: str | None, overrides: Sequence[str], flags: Mapping[str, Any], bases: Sequence[str] = ()
) -> CollectConfig:
    """The configuration of a command: the environment's default recipe, the file, `--set`, then the flags.

    Where bases are files, the architecture is the first one's unless it is stated.
    """
    stated = configuration.read_toml(file) if file else {}
    changes = configuration.parse_overrides(overrides)
    name = flags.get("env", changes.get("env", stated.get("env", CollectConfig.env)))
    recipe = Path(str(resources.files("epvf_data.collectors"))) / "recipes" / f"{name}.toml"
    default = configuration.read_toml(recipe) if name in envs.ENVS and recipe.is_file() else {}
    base_layer = {"perturbed": {"bases": list(bases)}} if bases else {}
    layers = (default, stated, changes, flags, base_layer)
    found = _policy_of(configuration.build(CollectConfig, *layers))
    if found is None:
        return configuration.build(CollectConfig, *layers)
    fields = [item.name for item in dataclasses.fields(PolicyConfig)]
    return configuration.build(CollectConfig, {"policy": {name: getattr(found, name) for name in fields}}, *layers)


def _policy_of(config: CollectConfig) -> PolicySpec | None:
    """The specification of the first base that is a file, None where none is."""
    files = [name for name in config.perturbed.bases if name not in ("random", "bundled")]
    return load_policy(files[0])[0] if files else None


def collect_config(env: str, **settings: Any) -> CollectConfig:
    """The environment's default recipe with some settings changed: `collect_config("ant", envs=1024, seed=3)`.

    Settings inside a table are given with their dotted name: `**{"random.share": 0.5}`.
    """
    return configure(None, [], configuration.nested({"env": env, **settings}))


class Setting:
    """A configuration resolved against this machine: environment, architecture, bases, probing states, run id."""

    def __init__(self, config: CollectConfig):
        self.config = config
        env = envs.make(config.env)
        self.env: Env = env.with_horizon(config.horizon or env.horizon)
        self.backend = resolve_backend(self.env, config.backend)
        self.spec = config.policy.spec(env)
        if (found := _policy_of(config)) is not None:  # settings state no normaliser: it is the bases'
            self.spec = replace(self.spec, normaliser=found.normaliser)
        self.recipe = config.recipe
        self.episodes = config.episodes or (STOCHASTIC_EPISODES if env.random_start else 1)
        self.total = config.policies or config.envs
        self.bases = load_bases(self.recipe, self.env, self.spec, config.seed)
        self.base_ids = [policy_id(self.spec, base) for base in self.bases]
        self.probe_states = probing_states(self.env, config.probes, config.probe_file)
        self.simulation = simulation(self.backend)

    @property
    def run(self) -> str:
        """Identity of the rows: equal for two calls that would make the same row i, whatever their number."""
        settings = configuration.to_dict(self.config)
        for name in ("envs", "policies", "backend", "probe_file"):
            settings.pop(name)
        settings.update(
            backend=self.backend,
            episodes=self.episodes,
            spec=self.spec.id,
            env=self.env.digest,
            bases=self.base_ids,
            probes=hashlib.sha256(self.probe_states.tobytes()).hexdigest(),
        )
        settings["perturbed"].pop("bases")  # file names say less than the policies' ids
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
