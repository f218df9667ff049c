"""The paper's figures as a literal table: which variants a figure compares, and what each changes.

Paper: Bohlinger & Peters, "Massively Scaling Explicit Policy-conditioned Value Functions", figures 1 and 2.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from epvf_data.config import check_one_of
from epvf_data.errors import ConfigError

SCALES = ("smoke", "cpu", "paper")
SETTINGS = ("paper", "ours", "both")  # whose hyper-parameters; some figures have only the ones or the others
WHOSE = {"paper": "the paper's", "ours": "our own"}

# (environment, scale, whose settings) → preset of `epvf_data.trainers.online`. Smoke runs are cut-down cpu runs.
PRESETS = {
    ("cartpole", "cpu", "paper"): "cartpole-paper",
    ("cartpole", "paper", "paper"): "cartpole-paper",
    ("ant", "cpu", "paper"): "ant-cpu-paper",
    ("ant", "cpu", "ours"): "ant-cpu",
    ("ant", "cpu", "es"): "ant-cpu-es",
    ("ant", "cpu", "random"): "ant-cpu-random",
    ("ant", "paper", "paper"): "ant-paper",
    ("ant", "paper", "ours"): "ant",
    ("ant", "paper", "es"): "ant-es",
    ("ant", "paper", "random"): "ant-random",
    ("ant", "cpu", "time"): "ant-pavf",
    ("ant", "paper", "time"): "ant-pavf",
}
BASELINES = {"ppo": "PPO", "sac": "SAC"}  # name → label; presets of `epvf_data.baselines` are ant-NAME-SCALE

# Smoke shows that everything runs; it learns nothing and is not meant to.
SMOKE = {
    "cartpole": {"iterations": 60, "log_every": 1},
    "ant": {"envs": 16, "horizon": 40, "env_steps": 4000, "critic.steps": 2, "improvement.steps": 1, "log_every": 1},
}
SMOKE_TIME = {
    **{"envs": 16, "horizon": 40, "env_steps": 4096, "critic.steps": 4, "log_every": 1, "snapshots": 0},
    **{"replay.capacity": 4096, "replay.batch_size": 64, "time.warmup": 512, "time.critic_first": 0},
}
SMOKE_BASELINES = {
    **{"envs": 16, "evaluations": 2, "ppo.unroll_length": 10, "ppo.batch_size": 16, "ppo.num_minibatches": 2},
    **{"ppo.num_updates_per_batch": 1, "sac.min_replay_size": 500, "sac.batch_size": 32},
}
SEEDS = {"cartpole": {"smoke": 2, "cpu": 10, "paper": 10}, "ant": {"smoke": 2, "cpu": 5, "paper": 5}}
ENVS = {"smoke": (4, 8, 16), "cpu": (64, 128, 256, 512, 1024), "paper": (128, 256, 512, 1024, 2048, 4096)}


class Envs(NamedTuple):
    """A setting that is a multiple of the environments."""

    times: int = 1


class Times(NamedTuple):
    """A multiple of what the panel's reference has for the same setting."""

    factor: float = 1


class Whole(NamedTuple):
    """The control steps of a whole episode."""


@dataclass(frozen=True)
class Variant:
    """One line of a figure: its run directory's name, what it is called, and what it changes in its preset."""

    name: str
    label: str
    preset: str
    changes: Mapping[str, Any] = field(default_factory=dict)  # dotted keys, applied after --set
    kind: str = "epvf"  # or "control", which shares budget, task and policy with the panel; or "baseline"
    panel: str = "paper"  # whose settings
    optional: bool = False  # left out with its reason where it cannot be configured
    alone: bool = False  # a seed fills a processor core: each is a run by itself

    @property
    def folder(self) -> str:
        """Name of its run directory; controls know nothing of our settings and are shared by both panels."""
        return self.name if self.kind == "epvf" else self.name.removeprefix("ours-")

    @property
    def apart(self) -> bool:
        """Whether each seed is a run by itself: side by side, large buffers would not fit into memory."""
        return self.alone or any(isinstance(value, Envs) and value.times > 1 for value in self.changes.values())


@dataclass(frozen=True)
class Figure:
    """A figure: what it shows, on which environment, and which panel of the paper that is."""

    name: str
    env: str
    title: str
    paper: str
    ordered: bool = False  # the variants are steps of one scale
    panels: tuple[str, ...] = ("paper", "ours")  # whose settings it can have

    def variants(self, scale: str) -> list[Variant]:
        """All of them, in the order of the table."""
        return variants(self.name, scale, "both" if len(self.panels) > 1 else "paper")


FIGURES = {
    "fig1": Figure(
        "fig1", "cartpole", "CartPole with different numbers of parallel environments", "Figure 1", True, ("paper",)
    ),
    "fig2-scaling": Figure(
        "fig2-scaling", "ant", "Ant with environments = batch = buffer", "Figure 2, top left", ordered=True
    ),
    "fig2-ablations": Figure(
        "fig2-ablations", "ant", "Ant, one change from the setup at a time", "Figure 2, top right"
    ),
    "fig2-architectures": Figure("fig2-architectures", "ant", "Ant, critics and controls", "Figure 2, bottom"),
    "time": Figure("time", "ant", "Ant, critics that use time", "beyond the paper", panels=("ours",)),
}

# The paper's seven ablations; "clip perturbations" has two readings, because the literal one clips nothing.
ABLATIONS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("multiple-policies", "multiple policies", {"exploration.policies": Envs()}),
    ("buffer-100x", "100× buffer", {"replay.capacity": Envs(100), "replay.batch_size": Envs()}),
    (
        "fixed-policy-lr",
        "fixed policy rate 1e-5",
        {"improvement.learning_rate": 1e-5, "improvement.final_learning_rate": 1e-5},
    ),
    ("noise-1", "noise scale 1.0", {"exploration.scale": 1.0}),
    ("no-weight-clip", "no weight clip", {"improvement.weight_clip": None}),
    ("clip-noise", "noise clipped to ±0.3", {"exploration.clip_noise": 0.3}),
    ("clip-perturbed", "perturbed weights clipped", {"exploration.clip_weights": True}),
    ("gaussian", "Gaussian noise N(0, 1)", {"exploration.law": "gaussian", "exploration.scale": 1.0}),
)
ADAM = {"optimiser": "adam", "learning_rate": 1e-2, "final_learning_rate": None}
# Ours, each of its changes from the paper taken back.
OUR_ABLATIONS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    (
        "paper-noise",
        "the paper's noise",
        {"exploration.law": "uniform_scaled", "exploration.scale": 0.3, "exploration.antithetic": False},
    ),
    ("twice-the-noise", "twice the noise", {"exploration.scale": Times(2)}),
    ("half-the-noise", "half the noise", {"exploration.scale": Times(0.5)}),
    ("independent-noise", "no antithetic pairs", {"exploration.antithetic": False}),
    (
        "mlp",
        "MLP critic on raw parameters",
        {"critic.name": "mlp", "critic.zero_last": True, "critic.inputs": "centred"},
    ),
    ("linear", "linear critic on raw parameters", {"critic.name": "linear", "critic.inputs": "centred"}),
    ("few-states", "16 probing states", {"critic.probes": 16}),
    ("light-penalty", "penalty 1", {"critic.penalty": 1.0}),
    ("adam", "Adam at 1e-2", {f"improvement.{name}": value for name, value in ADAM.items()}),
    (
        "long-steps",
        "steps four times as long",
        {"improvement.learning_rate": Times(4), "improvement.final_learning_rate": Times(4)},
    ),
    ("constant-rate", "constant rate", {"improvement.final_learning_rate": None}),
    ("raw-observations", "observations not normalised", {"normalise_observations": False}),
    ("four-times-envs", "four times the environments", {"envs": Times(4)}),
    ("weight-clip", "weight clip ±0.1", {"improvement.weight_clip": 0.1}),
)
# A perturbation lasts a whole episode, whose rewards are summed to its end; updates as often.
MONTE_CARLO = {
    **{"time.segment": Whole(), "time.n_step": Whole(), "time.hold": 1, "time.average": 2},
    **{"critic.steps": Times(31), "log_every": 1},
}
# At ten times the rate two thirds of the actions saturate within a million steps.
PSVF = {
    **{"algorithm": "psvf", "time.own": 1.0, "time.z_gradient": 1.0, "time.action_penalty": 0.0},
    **{"time.probes": 64, "time.projection": 64, "improvement.learning_rate": 5e-6},
}
# Q(s, a, θ), each of its parts taken away; then V(s, θ).
TIME_ABLATIONS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("no-policy", "no policy input: TD3 with parameter noise", {"time.representation": "none"}),
    ("shuffled", "a neighbour's z (a label only)", {"time.shuffled": True}),
    ("random-z", "a random policy's z for each row", {"time.random_z": True}),
    ("z-gradient", "the gradient through z, too", {"time.z_gradient": 1.0}),
    ("own-only", "own targets only", {"time.own": 1.0}),
    ("mse", "squared error", {"critic.loss": "mse"}),
    ("light-penalty", "action penalty 0.001", {"time.action_penalty": 1e-3}),
    ("psvf", "V(s, θ)", PSVF),
    ("psvf-monte-carlo", "V(s, θ), Monte Carlo", {**PSVF, **MONTE_CARLO}),
)
REFERENCE_CRITICS = {"paper": "mlp", "ours": "probing-ridge"}  # what other critics are compared with
CRITICS = {  # known ones first; critics that are not named here follow under their own names
    "mlp": "MLP on raw parameters",
    "probing": "probing actions",
    "probing+raw": "probing actions + raw",
    "probing-ridge": "ridge on probing actions",
    "unf": "UNF",
    "unf+raw": "UNF + raw",
    "linear": "linear critic",
    "simba": "SimBa on raw parameters",
    "statistics": "weight statistics",
}


def check(figure: str, scale: str, settings: str = "paper") -> Figure:
    """The figure, or ConfigError for a name that is not in the table."""
    for what, got, known in (
        ("figure", figure, tuple(FIGURES)),
        ("scale", scale, SCALES),
        ("set of settings", settings, SETTINGS),
    ):
        check_one_of(what, got, known)
    found = FIGURES[figure]
    if len(found.panels) == 1 and settings not in ("paper", *found.panels):  # "paper" is what is left out
        raise ConfigError(f"{figure} has {WHOSE[found.panels[0]]} settings only; leave --settings out.")
    return found


def variants(figure: str, scale: str, settings: str = "paper", only: Iterable[str] = ()) -> list[Variant]:
    """The figure's variants, or those named in `only`; the first of a panel is what the others are compared with.

    Raises ConfigError for unknown names.
    """
    about = check(figure, scale, settings)
    env, tier = about.env, "cpu" if scale == "smoke" else scale
    panels = about.panels if settings == "both" or len(about.panels) == 1 else (settings,)
    found: list[Variant] = []
    for panel in panels:
        prefix = "ours-" if panel == "ours" and len(about.panels) > 1 else ""
        preset = PRESETS[env, tier, "time" if figure == "time" else panel]
        how = {"panel": panel, "optional": figure == "fig2-architectures", "alone": figure == "time"}
        found += [
            Variant(prefix + name, label, preset, changes, **how)
            for name, label, changes in _changes(figure, scale, panel)
        ]
        if figure not in ("fig1", "fig2-scaling"):
            found += _controls(figure, tier, panel, prefix)
    only = list(only)
    unknown = sorted({*only} - {variant.name for variant in found})
    if unknown:
        known = ", ".join(variant.name for variant in found)
        raise ConfigError(f"{figure} has no variant {unknown[0]!r}; choose from {known}.")
    return [variant for variant in found if not only or variant.name in only]


def _changes(figure: str, scale: str, panel: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Name, label and changed keys of the variants that are EPVF runs; a panel's reference comes first."""
    if figure == "fig1":
        return [(f"envs-{envs}", _count(envs), {"envs": envs}) for envs in (1, 2, 4, 8, 16)]
    if figure == "fig2-scaling":
        fresh = {"replay.capacity": None, "replay.batch_size": None} if panel == "paper" else {}
        return [(f"envs-{envs}", _count(envs), {"envs": envs, **fresh}) for envs in ENVS[scale]]
    if figure == "time":
        return [("best", "Q(s, a, θ)", {}), *TIME_ABLATIONS]
    if figure == "fig2-ablations":
        best = {"paper": "the paper's setup", "ours": "our setup"}[panel]
        return [("best", best, {}), *(ABLATIONS if panel == "paper" else OUR_ABLATIONS)]
    from epvf_data.trainers.online.settings import LEARNERS

    order = [REFERENCE_CRITICS[panel], *CRITICS]
    names = sorted(LEARNERS, key=lambda name: (order.index(name) if name in order else len(order), name))
    raw = {name: {"critic.inputs": "raw"} for name in names if name.startswith("probing")}  # actions have no centre
    return [(f"critic-{n}", CRITICS.get(n, n), {"critic.name": n, **raw.get(n, {})}) for n in names]


def _controls(figure: str, tier: str, panel: str, prefix: str) -> list[Variant]:
    """What EPVF is measured against: the same rollouts without a critic, and libraries' agents."""
    evolution = PRESETS["ant", tier, "es"]
    controls = [Variant(f"{prefix}es", "OpenAI-ES", evolution, {}, "control", panel)]
    if figure == "fig2-ablations" and panel == "ours":  # with what might help it as it helps ours
        controls += [
            Variant(f"{prefix}es-{name}", f"OpenAI-ES, {label}", evolution, changes, "control", panel)
            for name, label, changes in (
                ("256", "256 policies", {"envs": 256}),
                (
                    "ours",
                    "our noise, normalised observations",
                    {"exploration.scale": Times(), "normalise_observations": True},
                ),
            )
        ]
    if figure == "fig2-architectures":
        random = PRESETS["ant", tier, "random"]
        controls.append(Variant(f"{prefix}random", "random search", random, {}, "control", panel))
    if figure == "time":
        whole = {"improvement.final_at": 1.0}  # its rate falls within 400 million steps, which nobody has here
        controls.append(Variant("epvf", "V(θ)", PRESETS["ant", "paper", "ours"], whole, "control", panel))
    if figure in ("fig2-architectures", "time"):
        controls += [
            Variant(f"{prefix}{name}", label, f"ant-{name}-{tier}", {}, "baseline", panel, optional=True)
            for name, label in BASELINES.items()
        ]
    return controls


def _count(envs: int) -> str:
    return f"{envs:,} environment{'' if envs == 1 else 's'}"
