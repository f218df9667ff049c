"""Proposals with their real returns become rows of a data set, through the same door as all others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float

from epvf_data.code import title
from epvf_data.config import to_dict
from epvf_data.envs import Env
from epvf_data.errors import ArchitectureMismatchError
from epvf_data.physics.episode import Outcomes
from epvf_data.policies.kinds import Spec
from epvf_data.provenance import now, provenance
from epvf_data.recording.probes import probing_states
from epvf_data.recording.rows import env_identity, make_rows, simulation
from epvf_data.recording.task import check_target, made_by
from epvf_data.rollout import resolve_backend
from epvf_data.scoring.world import World
from epvf_data.store import reader
from epvf_data.store.creation import unmade
from epvf_data.store.schema import Lineage, policy_id
from epvf_data.store.writer import Writer
from epvf_data.trainers.improving.settings import ImproveConfig

PROBES = 64  # probing states, as `collect` has them


def check_record(path: Path, env: Env, spec: Spec) -> None:
    """Raises EnvironmentMismatchError or ArchitectureMismatchError where the data set cannot take the rows."""
    if unmade(path):
        return
    dataset = reader.open(path)
    check_target(dataset, env, "these proposals are", "--record")
    others = [item for item in dataset.architectures if item.id != spec.id]
    if others and len(others) == len(dataset.architectures):
        raise ArchitectureMismatchError(
            f"{path} holds policies {others[0].spec}, the proposals are {spec}; give another --record."
        )


def record(
    path: Path,
    world: World,
    spec: Spec,
    theta: Float[np.ndarray, "n P"],
    starts: Float[np.ndarray, "n P"],
    distances: Float[np.ndarray, "n"],
    methods: list[str],
    screened: Outcomes,
    config: ImproveConfig,
) -> int:
    """Commits the policies and gives the number of rows. `methods` say how each was made, `starts` from what.

    Where starts were disturbed for scoring, each policy plays one episode of the task itself: rows are of no other.
    """
    began = now()
    outcomes = screened
    if world.noise:
        exact = World(world.env, world.episodes, world.backend, world.seed, 0.0)
        outcomes = exact.outcomes(spec, theta, 1 if not exact.varies(spec) else config.screen, stream=1)
        world = exact
    states, made = probing_states(world.env, PROBES), simulation(resolve_backend(world.env, world.backend))
    lineage = Lineage.build(
        len(theta),
        source=[f"improve-{title(name)}" for name in methods],
        base=[policy_id(spec, start) for start in starts],
        law="distance in units of each parameter's spread",
        scale=distances,
    )
    seeds = np.tile(world.start_seed(1), (len(theta), 1))
    rows = make_rows(spec, np.ascontiguousarray(theta, np.float32), outcomes, seeds, lineage, states, made)
    with Writer.open(path, env_identity(world.env)) as writer:
        writer.commit(
            rows,
            provenance(
                config=to_dict(config),
                **made_by(world.env),
                simulation=made,
                seed=config.seed,
                started=began,
                ended=now(),
            ),
        )
    return len(theta)
