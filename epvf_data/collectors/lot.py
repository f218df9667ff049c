"""Rows of one architecture, numbered: what `gather` makes and commits."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt32

from epvf_data import config as configuration
from epvf_data import envs
from epvf_data.code import Function
from epvf_data.collectors.recipe import lineage, load_bases, parameters, plan
from epvf_data.collectors.setting import STOCHASTIC_EPISODES, CollectConfig, is_own, policy_of
from epvf_data.envs import Env
from epvf_data.errors import ConfigError
from epvf_data.policies.kinds import Spec
from epvf_data.policies.perturb import own_law
from epvf_data.policies.spec import PolicySpec
from epvf_data.recording.probes import probing_states
from epvf_data.recording.rows import simulation
from epvf_data.rollout import resolve_backend
from epvf_data.store.schema import Lineage, policy_id
from epvf_data.untrusted import printable


class Drawn(NamedTuple):
    """n policies before they are rolled out."""

    params: Float[np.ndarray, "n P"]
    reset_seed: UInt32[np.ndarray, "n 2"]
    lineage: Lineage


@dataclass(frozen=True)
class Lot:
    """Row i of a lot is the same whenever it is made, and whatever is made beside it."""

    env: Env
    spec: Spec
    rows: int
    batch: int  # rows of one commit
    episodes: int  # a policy
    backend: str
    probe_states: Float[np.ndarray, "K O"]
    simulation: dict[str, str]
    discount: float | None
    run: str  # equal for two lots that would make the same row i, whatever their number
    seed: int
    config: Mapping[str, Any]  # what the commits' records say of it
    draw: Callable[[Int[np.ndarray, "n"]], Drawn]  # the rows of these numbers


def check_memory(policies: int, spec: Spec) -> None:
    """Raises ConfigError when the parameters of so many policies, held at once, exceed the machine's memory."""
    needed, there = 4 * policies * spec.size, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise ConfigError(
            f"{policies:,} policies {printable(spec)} take {needed / 1e9:,.0f} GB at once and this machine has "
            f"{there / 1e9:,.0f} GB of memory; ask for fewer --envs or smaller policies."
        )


def lot_of(config: CollectConfig) -> Lot:
    """The configuration resolved against this machine: environment, architecture, bases, probing states, run id."""
    made = envs.make(config.env)
    env = made.with_horizon(config.horizon or made.horizon)
    backend, spec = resolve_backend(env, config.backend), config.policy.spec(env)
    found = policy_of(config)
    if isinstance(spec, PolicySpec) and found is not None:  # settings state no normaliser: it is the bases'
        spec = replace(spec, normaliser=found.normaliser)
    recipe, law = config.recipe, config.perturbed.law
    if is_own(law):
        law = own_law(law, spec)
        recipe = replace(recipe, perturbed=replace(recipe.perturbed, law=law))
    origin = law.origin if isinstance(law, Function) else None
    check_memory(max(min(config.envs, config.policies or config.envs), recipe.held), spec)
    episodes = config.episodes or (STOCHASTIC_EPISODES if env.random_start or spec.sampled else 1)
    bases = load_bases(recipe, env, spec, config.seed)
    ids = [policy_id(spec, base) for base in bases]
    states = probing_states(env, config.probes, config.probe_file)
    settings = configuration.to_dict(config)
    for name in ("envs", "policies", "backend", "probe_file"):
        settings.pop(name)
    settings["policy"].pop("architecture")  # it is in the specification's id, and its file may move
    settings["perturbed"].pop("bases")  # file names say less than the policies' ids
    if origin is not None:
        settings["perturbed"]["law"] = origin.sha256
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
        config={**configuration.to_dict(config), **({} if origin is None else {"law_sha256": origin.sha256})},
        draw=draw,
    )
