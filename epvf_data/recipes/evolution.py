"""A separable CMA-ES on the rollouts that everything else uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from epvf_data.envs import Env
from epvf_data.improvement.search import evosax
from epvf_data.policies import mlp
from epvf_data.policies.files import save_policy
from epvf_data.policies.spec import PolicySpec
from epvf_data.recipes.settings import EvolutionTeacher
from epvf_data.rollout import rollout
from epvf_data.streams import stream
from epvf_data.trainers import rundir

LOST = -1e9  # the fitness of a policy without a finite return


def evolve(
    source: EvolutionTeacher,
    env: Env,
    spec: PolicySpec,
    folder: Path,
    settings: Mapping[str, Any],
    tell: Callable[[Mapping[str, Any]], None],
) -> None:
    """Writes the mean and some members of the population as policies/at-GENERATION-NUMBER.safetensors of a run
    directory. A run that was interrupted begins anew. Ros and Hansen (2008); evosax's implementation.

    Raises ConfigError where evosax is missing.
    """
    algorithms = evosax()
    if not (folder / "config.json").is_file():
        rundir.create_run(folder, {"kind": "evolution", "config": settings})
    strategy = algorithms.Sep_CMA_ES(population_size=source.population, solution=jnp.zeros(spec.size))
    steps, generation, kept = 0, 0, 0
    key, first, begin = jax.random.split(stream(int(settings["seed"]), "init"), 3)
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        params = strategy.default_params.replace(std_init=source.sigma)
        state = strategy.init(first, mlp.init(begin, spec), params)
        while steps < source.env_steps:
            key, asked, told, starts = jax.random.split(key, 4)
            population, state = strategy.ask(asked, state, params)
            found = np.asarray(population, np.float32)
            reset = np.asarray(jax.random.key_data(jax.random.split(starts, source.population)))
            outcomes = rollout(env, spec, found, reset_seed=reset, backend=str(settings["backend"]))
            fitness = outcomes.returns.mean(axis=1)
            fitness = np.where(np.isfinite(fitness), fitness, LOST)
            state, _ = strategy.tell(told, population, jnp.asarray(-fitness), state, params)  # evosax minimises
            steps, generation = steps + outcomes.env_steps, generation + 1
            tell({"env_steps": steps, "env_steps_total": source.env_steps})
            due = int(min(1.0, steps / source.env_steps) * source.snapshots)
            if due > kept:
                kept = due
                best = found[np.argsort(-fitness)[: source.members]]
                for number, flat in enumerate([np.asarray(state.mean, np.float32), *best]):
                    path = folder / "policies" / f"at-{generation:06d}-{number}.safetensors"
                    save_policy(path, spec, flat, env=env.name, horizon=str(env.horizon))
    rundir.write_json(folder / "report.json", {"generations": generation, "env_steps": steps})
