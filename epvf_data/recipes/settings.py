"""What a recipe says: architectures and sources by name, each with its weight. Checked when it is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from epvf_data import envs
from epvf_data.collectors.setting import check_amounts, check_scale
from epvf_data.config import MAX_FLOAT, MAX_HORIZON, MAX_LIST, MAX_STEPS, MAX_WORLDS, check_one_of, check_range
from epvf_data.errors import ArchitectureMismatchError, ConfigError
from epvf_data.policies.config import INITS, LAWS, MlpConfig
from epvf_data.policies.files import load_policy
from epvf_data.policies.kinds import mlp_of
from epvf_data.policies.spec import PolicySpec
from epvf_data.untrusted import check_name, printable, shown

if TYPE_CHECKING:
    from epvf_data.envs import Env

MAX_TABLES = 256  # of architectures, and of sources


@dataclass(frozen=True)
class ArchitectureConfig(MlpConfig):
    """One architecture, and how many of the rows have it."""

    weight: float = 1.0
    like: str | None = None  # a policy file that has this architecture, its normaliser included; the rest is not read

    def __post_init__(self) -> None:
        check_range(self, "", 0, MAX_FLOAT, "weight", above=True)

    def spec(self, env: Env) -> PolicySpec:
        """The specification that fits the environment, or the file's."""
        if self.like is None:
            return super().spec(env)
        found = mlp_of(load_policy(self.like)[0], "a recipe", "collect them with --policy and without a recipe")
        if (found.observation_size, found.action_size) != (env.observation_size, env.action_size):
            raise ArchitectureMismatchError(
                f"the policy in {self.like} is {found}; environment {env.name} has {env.observation_size} observations "
                f"and {env.action_size} actions."
            )
        return found


@dataclass(frozen=True)
class Source:
    """What all sources share."""

    weight: float = 1.0  # its share of an architecture's rows, relative to the other sources there
    architectures: tuple[str, ...] = ()  # names; empty: all

    def __post_init__(self) -> None:
        check_range(self, "", 0, MAX_FLOAT, "weight", above=True)


@dataclass(frozen=True)
class RandomPolicies(Source):
    """Fresh initialisations, the laws in turn, the scale of each drawn log-uniformly between two numbers."""

    laws: tuple[str, ...] = INITS
    scale: tuple[float, ...] = (0.3, 3.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_scale(self, "")
        for law in self.laws or ("none",):
            check_one_of("law of initialisation", law, INITS)


@dataclass(frozen=True)
class Spread(Source):
    """Base policies themselves, then perturbations around each, the radii in turn."""

    law: str = "gaussian"
    radii: tuple[float, ...] = (0.01, 0.03, 0.1)
    antithetic: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_one_of("perturbation law", self.law, LAWS)
        check_range(self, "", 0, MAX_FLOAT, "radii", above=True)


@dataclass(frozen=True)
class Perturbed(Spread):
    """Around policies that exist: files, or those that ship with the environment (`bundled`)."""

    bases: tuple[str, ...] = ("bundled",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.bases:
            raise ConfigError("bases is empty; name policy files, or `bundled`.")


@dataclass(frozen=True)
class Teacher(Spread):
    """Around the policies of a training run, from its beginning to its end."""

    objective: str = ""  # of the training; the rows are judged by the recipe's environment
    snapshots: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "", 1, MAX_LIST, "snapshots")


@dataclass(frozen=True)
class OnlineTeacher(Teacher):
    """A run of `train-online`: EPVF, an evolution strategy or random search, by preset."""

    preset: str = "body"
    settings: Mapping[str, Any] = field(default_factory=dict)  # changes of the preset, as `--set` has them


@dataclass(frozen=True)
class LibraryTeacher(Teacher):
    """A run of PPO or SAC."""

    preset: str = "ant-ppo-cpu"
    settings: Mapping[str, Any] = field(default_factory=dict)  # as above


@dataclass(frozen=True)
class EvolutionTeacher(Teacher):
    """Populations of a separable CMA-ES (Ros and Hansen 2008): its mean and some of its members."""

    population: int = 64
    sigma: float = 0.05
    env_steps: int = 1_000_000
    horizon: int | None = None  # of the training; None: the recipe's
    members: int = 4  # of the population, beside the mean, at each snapshot

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "", 0, MAX_FLOAT, "sigma", above=True)
        check_range(self, "", 1, MAX_STEPS, "env_steps")
        check_range(self, "", 1, MAX_HORIZON, "horizon")
        check_range(self, "", 4, MAX_WORLDS, "population")
        check_range(self, "", 0, self.population, "members")


@dataclass(frozen=True)
class Between(Source):
    """Points on lines between two policies of other sources."""

    of: tuple[str, ...] = ()
    pairs: int = 32  # lines an architecture

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "", 1, MAX_LIST, "pairs")


@dataclass(frozen=True)
class Renumbered(Source):
    """Policies of other sources with hidden units renumbered and signs flipped: the same behaviour elsewhere in θ."""

    of: tuple[str, ...] = ()


KINDS: dict[str, type[Source]] = {
    "random": RandomPolicies,
    "perturbed": Perturbed,
    "online": OnlineTeacher,
    "library": LibraryTeacher,
    "evolution": EvolutionTeacher,
    "between": Between,
    "renumbered": Renumbered,
}


def check_names(table: str, names: Iterable[str]) -> None:
    """Raises ConfigError for too many architectures or sources, and for names that can be no folder's, or are one where
    a file system knows no case: runs are called SOURCE-ARCHITECTURE."""
    names = list(names)
    if len(names) > MAX_TABLES:
        raise ConfigError(f"the recipe has {len(names):,} {table}; at most {MAX_TABLES} can be.")
    for name in names:
        check_name(name, f"one of the {table}")
    if len({name.lower() for name in names}) < len(names):
        raise ConfigError(f"two of the {table} have names that differ in case only; their runs would share a folder.")


@dataclass(frozen=True)
class RecipeConfig:
    """Everything that decides which rows a recipe makes. Raises ConfigError for values that make no sense."""

    env: str = "ant"
    policies: int = 4096  # rows in all
    envs: int = 1024  # rows of one commit
    episodes: int | None = None  # a policy; None: 1 where the return is certain, else 8
    horizon: int | None = None  # control steps; None: the environment's
    seed: int = 0
    backend: str = "auto"
    discount: float | None = None
    probes: int = 64
    architectures: Mapping[str, ArchitectureConfig] = field(default_factory=dict)
    sources: Mapping[str, Source] = field(default_factory=dict)

    def __post_init__(self) -> None:
        envs.check_name(self.env)
        check_amounts(self)
        for name, table in (("architectures", self.architectures), ("sources", self.sources)):
            check_names(name, table)
            if not table:
                raise ConfigError(f"the recipe has no {name}; give it at least one table [{name}.NAME].")
        for name, source in self.sources.items():
            for one in source.architectures:
                check_one_of(f"architecture for sources.{name}", one, self.architectures)
            if isinstance(source, (Between, Renumbered)):
                self._check_pool(name, source)
            if isinstance(source, Teacher) and source.objective:  # a name of ours: a recipe must not load code
                if not envs.objectives(self.env):
                    raise ConfigError(
                        f"sources.{name} trains for the objective {shown(source.objective)}, and {printable(self.env)} "
                        f"has none beside its own; give --env one of {', '.join(filter(envs.objectives, envs.ENVS))}, "
                        "or a recipe without such a source."
                    )
                check_one_of(f"objective of {self.env} for sources.{name}", source.objective, envs.objectives(self.env))
        for name in self.architectures:
            if not self.of(name):
                raise ConfigError(f"no source makes rows of architectures.{name}; name it in one, or leave it out.")

    def _check_pool(self, name: str, source: Between | Renumbered) -> None:
        pools = [one for one, other in self.sources.items() if isinstance(other, Spread)]
        for one in source.of or ("none",):
            check_one_of(f"source with policies for sources.{name}", one, pools)
        for architecture in source.architectures or self.architectures:
            if not any(architecture in (self.sources[one].architectures or (architecture,)) for one in source.of):
                raise ConfigError(
                    f"sources.{name} takes policies of {', '.join(source.of)}, which have none of "
                    f"architectures.{architecture}; name its architectures."
                )

    def of(self, architecture: str) -> dict[str, Source]:
        """The sources that make rows of an architecture, by name: rows do not depend on the order of tables."""
        return {
            name: source
            for name, source in sorted(self.sources.items())
            if architecture in (source.architectures or (architecture,))
        }

    def counts(self) -> dict[str, int]:
        """Rows of each architecture; more rows in all are never fewer of one."""
        total = sum(one.weight for one in self.architectures.values())
        counts, passed, before = {}, 0.0, 0
        for name, one in sorted(self.architectures.items()):
            passed += one.weight
            after = int(self.policies * passed / total + 0.5)
            counts[name], before = after - before, after
        return counts
