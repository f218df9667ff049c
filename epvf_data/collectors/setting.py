"""What a collection is: its configuration, checked when it is made."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from epvf_data import code, envs
from epvf_data import config as configuration
from epvf_data.code import Function
from epvf_data.errors import ConfigError, DatasetError
from epvf_data.policies.config import LAWS, MlpConfig, PolicyConfig, typed_architecture
from epvf_data.policies.files import load_policy
from epvf_data.policies.spec import PolicySpec
from epvf_data.store import reader
from epvf_data.store.creation import unmade
from epvf_data.store.reader import Dataset
from epvf_data.store.schema import MAX_PART_ROWS
from epvf_data.untrusted import shown

MANY_COMMITS = 16_384
STOCHASTIC_EPISODES = 8  # default episodes a policy where the start is random or actions are sampled


@dataclass(frozen=True)
class RandomSource:
    """Fresh initialisations, the scale of each drawn log-uniformly between the two numbers of `scale`."""

    share: float = 0.25  # of all rows
    scale: tuple[float, ...] = (0.3, 3.0)


@dataclass(frozen=True)
class PerturbedSource:
    """Rows around base policies: each family is its base itself, then perturbations, the scales of `scales` in turn."""

    bases: tuple[str | Function, ...] = ("random",)  # policy files, `bundled`, `random`, or FILE.py:FUNCTION
    random_bases: int = 32  # how many, when bases are random
    random_scale: float = 1.0
    law: str | Function = "gaussian"  # or FILE.py:FUNCTION
    scales: tuple[float, ...] = (0.01, 0.03, 0.1)
    antithetic: bool = True
    floor: float = 0.0
    clip: float | None = None  # weight clip after the perturbation


@dataclass(frozen=True)
class Recipe:
    """A mixture of the two sources."""

    random: RandomSource = field(default_factory=RandomSource)
    perturbed: PerturbedSource = field(default_factory=PerturbedSource)

    def __post_init__(self) -> None:
        configuration.check_range(self.random, "random.", 0, 1, "share")
        check_scale(self.random, "random.")
        if not self.perturbed.bases:
            raise ConfigError("perturbed.bases is empty; name policy files, `bundled` or `random`.")
        configuration.check_range(self.perturbed, "perturbed.", 1, configuration.MAX_LIST, "random_bases")
        configuration.check_range(self.perturbed, "perturbed.", 0, configuration.MAX_FLOAT, "scales", above=True)
        configuration.check_range(
            self.perturbed, "perturbed.", 0, configuration.MAX_FLOAT, "random_scale", "floor", "clip"
        )
        if not is_own(self.perturbed.law):
            configuration.check_one_of("perturbation law", self.perturbed.law, LAWS)

    @property
    def held(self) -> int:
        """About how many base policies there are."""
        return sum(self.perturbed.random_bases if name == "random" else 1 for name in self.perturbed.bases)


def is_own(given: object) -> bool:
    """Whether a law or a base is a function of the user's."""
    return isinstance(given, Function) or code.names_code(given)


def check_scale(source: Any, table: str) -> None:
    """Raises ConfigError unless the setting `scale` is two positive numbers, the least first."""
    configuration.check_range(source, table, 0, configuration.MAX_FLOAT, "scale", above=True)
    if len(source.scale) != 2 or source.scale[0] > source.scale[1]:
        raise ConfigError(
            f"{table}scale is {shown(list(source.scale))}; expected two positive numbers [least, greatest]."
        )


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
    configuration.check_one_of("backend", config.backend, configuration.BACKENDS)
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
    own = envs.relative(name) if name in list(envs.ENVS) else ""  # a list: what a file states need not be a name
    recipe = own and _default_recipe(own)
    default = {**configuration.read_toml(recipe), "env": name} if recipe else {}
    if typed_architecture(typed):  # what ships are MLPs
        default = configuration.merge(default, {"perturbed": {"bases": list(PerturbedSource.bases)}})
    base_layer = {"perturbed": {"bases": list(bases)}} if bases else {}
    layers = (default, stated, typed, base_layer)
    if "envs" not in stated and "envs" not in typed:
        layers = ({"envs": commit_rows(configuration.build(CollectConfig, *layers).policies)}, *layers)
    found = policy_of(configuration.build(CollectConfig, *layers))
    if found is None:
        return configuration.build(CollectConfig, *layers)
    fields = [item.name for item in dataclasses.fields(MlpConfig)]
    return configuration.build(CollectConfig, {"policy": {name: getattr(found, name) for name in fields}}, *layers)


def _default_recipe(env: str) -> Path | None:
    """The file of an environment's default recipe: its own, or that of all for which policies ship."""
    folder = Path(str(resources.files("epvf_data.collectors")))
    if (own := folder / "recipes" / f"{env}.toml").is_file():
        return own
    return folder / "recipes" / "bundled.toml" if (folder / "bases" / env).is_dir() else None


def commit_rows(policies: int | None) -> int:
    """Rows of a commit for so many in all, where nobody says: a data set stays far below the records it may have."""
    rows = CollectConfig.envs
    while policies is not None and policies > rows * MANY_COMMITS and rows < MAX_PART_ROWS:
        rows *= 2
    return rows


def policy_of(config: CollectConfig) -> PolicySpec | None:
    """The MLP of the first base that is a file, None where none is, or it is of an architecture of the user's."""
    bases = config.perturbed.bases
    files = [name for name in bases if isinstance(name, str) and name not in ("random", "bundled") and not is_own(name)]
    found = load_policy(files[0])[0] if files else None
    return found if isinstance(found, PolicySpec) else None


def existing(out: Path, resume: bool | None) -> Dataset | None:
    """The data set that rows shall go to; None where there is none yet. With `resume` None either will do.

    Raises DatasetError where there is none to resume, or something else.
    """
    if not unmade(out):
        return reader.open(out)
    if resume:
        raise DatasetError(f"there is no data set {out} to resume; leave --resume out to start one.")
    return None


def collect_config(env: str, **settings: Any) -> CollectConfig:
    """The environment's default recipe with some settings changed: `collect_config("ant", envs=1024, seed=3)`.

    Settings inside a table are given with their dotted name: `**{"random.share": 0.5}`.
    """
    return configure(None, [], configuration.nested({"env": env, **settings}))
