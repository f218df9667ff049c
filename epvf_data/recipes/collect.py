"""What `epvf-data collect --recipe` does: train the teachers, then make the rows of every architecture."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from epvf_data import envs
from epvf_data.collectors import collect as collector
from epvf_data.collectors.collect import CollectReport
from epvf_data.collectors.lot import Lot, check_memory
from epvf_data.collectors.setting import STOCHASTIC_EPISODES
from epvf_data.envs import Env
from epvf_data.errors import ConfigError
from epvf_data.policies.spec import MAX_SIZE, PolicySpec
from epvf_data.recipes.rows import Mixture
from epvf_data.recipes.settings import RecipeConfig
from epvf_data.recipes.tables import to_dict
from epvf_data.recipes.teachers import Progress, Tell, gather_bases, prepare
from epvf_data.recording.probes import probing_states
from epvf_data.recording.rows import simulation
from epvf_data.rollout import resolve_backend

_NUMBERS = ("policies", "envs", "backend")  # settings that rows do not depend on


def collect_recipe(
    config: RecipeConfig,
    out: str | Path,
    *,
    resume: bool = False,
    trained: Progress | None = None,
    progress: collector.Progress | None = None,
) -> CollectReport:
    """Makes the rows of a recipe that `out` does not hold yet and commits them, `config.envs` rows at a time.

    Teachers' runs lie in a folder beside the data set, OUT.runs, where an interrupted call finds them again. `resume`
    continues, or extends to more policies; the rows are those that an uninterrupted call would have made. Every commit
    holds the recipe: `tables.read` of a data set gives it back, and on the same machine and versions it makes the
    same rows. `trained` is called with (teacher, log entry of its training), the first of them empty.

    Raises ConfigError for settings that cannot be, DatasetError and StorageError as `collect` does.
    """
    lots = lots_of(config, out, resume=resume, trained=trained)
    return collector.gather(lots, out, resume=resume, progress=progress)


def runs_of(out: str | Path) -> Path:
    """Where the teachers of a data set keep their runs."""
    out = Path(out)
    if not out.name:
        raise ConfigError(f"'{out}' is no name for a data set of teachers, whose runs lie beside it; name a folder.")
    return out.with_name(out.name.removesuffix(".zarr") + ".runs")


def _task(config: RecipeConfig) -> tuple[Env, dict[str, PolicySpec]]:
    """The environment with its horizon, and each architecture by name."""
    made = envs.make(config.env)
    env = made.with_horizon(config.horizon or made.horizon)
    return env, {name: one.spec(env) for name, one in sorted(config.architectures.items())}


def untrained(config: RecipeConfig, out: str | Path) -> list[tuple[str, str]]:
    """(architecture, source) of each teacher whose run is not finished in OUT.runs. Raises as `lots_of` does."""
    runs, (env, specs) = runs_of(out), _task(config)
    prepared = {name: prepare(config, name, spec, env, runs)[1] for name, spec in specs.items()}
    return [(name, source) for name, found in prepared.items() for source, train in found.items() if train is not None]


def train_teacher(config: RecipeConfig, out: str | Path, architecture: str, source: str, tell: Tell) -> None:
    """Leaves a finished run of one teacher in OUT.runs; `tell` gets log entries."""
    env, specs = _task(config)
    train = prepare(config, architecture, specs[architecture], env, runs_of(out))[1][source]
    if train is not None:
        train(tell)


def lots_of(
    config: RecipeConfig, out: str | Path, *, resume: bool | None = False, trained: Progress | None = None
) -> list[Lot]:
    """The rows of each architecture for the data set `out`, once its teachers are trained. What can be refused without
    them is refused before."""
    runs, (env, specs) = runs_of(out), _task(config)
    backend, states = resolve_backend(env, config.backend), probing_states(env, config.probes)
    if len({spec.id for spec in specs.values()}) < len(specs):
        raise ConfigError("two architectures of the recipe are the same; give one of them all the weight.")
    if (parameters := sum(spec.size for spec in specs.values())) > MAX_SIZE:
        raise ConfigError(f"the recipe's architectures have {parameters:,} parameters; at most {MAX_SIZE:,} can be.")
    for spec in specs.values():
        check_memory(min(config.envs, config.policies), spec)
    held = collector.target(Path(out), env, resume)
    plain, counts, lots = to_dict(config), config.counts(), []
    if held is None:
        sizes = {name: counts[name] * collector.row_bytes(spec, states) for name, spec in specs.items()}
        collector.check_space(Path(out), sum(counts.values()), sum(sizes.values()))
    prepared = {name: prepare(config, name, spec, env, runs) for name, spec in specs.items()}  # all, before any trains
    for name, spec in specs.items():
        bases = gather_bases(config, name, spec, runs, prepared[name], trained)
        identity: dict[str, Any] = {key: value for key, value in plain.items() if key not in _NUMBERS}
        identity |= {"architecture": name, "spec": spec.id, "env": env.digest, "backend": backend}
        identity["bases"] = {source: found.ids for source, found in bases.items()}
        identity["states"] = hashlib.sha256(states.tobytes()).hexdigest()
        run = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        mixture = Mixture(name, spec, config.of(name), bases, config.seed, run, config.envs)
        lots.append(
            Lot(
                env=env,
                spec=spec,
                rows=counts[name],
                batch=config.envs,
                episodes=config.episodes or (STOCHASTIC_EPISODES if env.random_start or spec.sampled else 1),
                backend=backend,
                probe_states=states,
                simulation=simulation(backend),
                discount=config.discount,
                run=run,
                seed=config.seed,
                config={"recipe": plain, "architecture": name},
                draw=mixture.draw,
            )
        )
    return lots
