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

import numpy as np

from epvf_data import code, envs
from epvf_data import config as configuration
from epvf_data.collectors.lot import Drawn, Lot, check_memory
from epvf_data.collectors.recipe import PerturbedSource, RandomSource, Recipe, lineage, load_bases, parameters, plan
from epvf_data.policies.config import PolicyConfig
from epvf_data.policies.files import load_policy
from epvf_data.policies.spec import PolicySpec
from epvf_data.recording.probes import probing_states
from epvf_data.recording.rows import simulation
from epvf_data.rollout import resolve_backend
from epvf_data.store.schema import policy_id

STOCHASTIC_EPISODES = 8  # default episodes a policy where the start is random or actions are sampled


@dataclass(frozen=True)
class CollectConfig:
    """Everything that decides which rows a collection holds."""

    env: str = "ant"
    envs: int = 4096  # worlds at once, which is also the rows of one commit
    policies: int | None = None  # rows in all; None: as many as envs
    episodes: int | None = None  # a policy; None: 1 where nothing is random, else 8
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
        check_amounts(self)

    @property
    def recipe(self) -> Recipe:
        return Recipe(self.random, self.perturbed)


def check_amounts(config: Any) -> None:
    """How much a collection, with or without a recipe, can ask for. Raises ConfigError."""
    for most, name in (
        (configuration.MAX_WORLDS, "envs"),
        (configuration.MAX_POLICIES, "policies"),
        (configuration.MAX_EPISODES, "episodes"),
        (configuration.MAX_HORIZON, "horizon"),
        (configuration.MAX_PROBES, "probes"),
    ):
        configuration.check_range(config, "", 1, most, name)
    configuration.check_range(config, "", 0, 1, "discount", above=True)
    configuration.check_range(config, "", -configuration.MAX_SEED, configuration.MAX_SEED, "seed")


def configure(
    file: str | None, overrides: Sequence[str], flags: Mapping[str, Any], bases: Sequence[str] = ()
) -> CollectConfig:
    """The configuration of a command: the environment's default recipe, the file, `--set`, then the flags.

    Where bases are files, the architecture is the first one's unless it is stated. Raises ConfigError for settings that
    cannot be, code that the file names among them.
    """
    stated = configuration.read_toml(file) if file else {}
    typed = configuration.merge(configuration.parse_overrides(overrides), flags)
    code.check_stated(stated, typed, str(file))
    name = typed.get("env", stated.get("env", CollectConfig.env))
    recipe = Path(str(resources.files("epvf_data.collectors"))) / "recipes" / f"{name}.toml"
    shipped = name in list(envs.ENVS) and recipe.is_file()
    default = configuration.read_toml(recipe) if shipped else {}
    base_layer = {"perturbed": {"bases": list(bases)}} if bases else {}
    layers = (default, stated, typed, base_layer)
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


def lot_of(config: CollectConfig) -> Lot:
    """The configuration resolved against this machine: environment, architecture, bases, probing states, run id."""
    made = envs.make(config.env)
    env = made.with_horizon(config.horizon or made.horizon)
    backend, spec, recipe = resolve_backend(env, config.backend), config.policy.spec(env), config.recipe
    if (found := _policy_of(config)) is not None:  # settings state no normaliser: it is the bases'
        spec = replace(spec, normaliser=found.normaliser)
    check_memory(max(min(config.envs, config.policies or config.envs), recipe.held), spec)
    episodes = config.episodes or (STOCHASTIC_EPISODES if env.random_start or spec.sampled else 1)
    bases = load_bases(recipe, env, spec, config.seed)
    ids = [policy_id(spec, base) for base in bases]
    states = probing_states(env, config.probes, config.probe_file)
    settings = configuration.to_dict(config)
    for name in ("envs", "policies", "backend", "probe_file"):
        settings.pop(name)
    settings["perturbed"].pop("bases")  # file names say less than the policies' ids
    settings |= {"backend": backend, "episodes": episodes, "spec": spec.id, "env": env.digest, "bases": ids}
    settings["probes"] = hashlib.sha256(states.tobytes()).hexdigest()
    run = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    def draw(rows: np.ndarray) -> Drawn:
        planned = plan(recipe, len(bases), config.seed, rows)
        params = parameters(recipe, spec, bases, planned)
        return Drawn(params, planned.reset_seed, lineage(recipe, ids, run, planned))

    return Lot(
        env=env,
        spec=spec,
        rows=config.policies or config.envs,
        batch=config.envs,
        episodes=episodes,
        backend=backend,
        probe_states=states,
        simulation=simulation(backend),
        discount=config.discount,
        run=run,
        seed=config.seed,
        config=configuration.to_dict(config),
        draw=draw,
    )
