"""Commit the rollouts of a run to a data set while it goes on, beside the next iteration."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from epvf_data import config as configuration
from epvf_data.envs import Env
from epvf_data.errors import ArchitectureMismatchError, DatasetError, RowsTakenError
from epvf_data.policies.kinds import Spec
from epvf_data.provenance import now, provenance
from epvf_data.recording.probes import probing_states
from epvf_data.recording.rows import env_identity, make_rows, simulation
from epvf_data.recording.task import check_target, made_by
from epvf_data.store import reader
from epvf_data.store.creation import unmade
from epvf_data.store.schema import Lineage, Rows, policy_id
from epvf_data.store.writer import Writer
from epvf_data.trainers import rundir
from epvf_data.trainers.online.iteration import seeds_of
from epvf_data.trainers.online.loop import Rollouts
from epvf_data.trainers.online.settings import OnlineConfig

PROBES = 64  # probing states, as `collect` has them
ROWS = 4096  # least number of rows of a commit
SOURCES = {"epvf": "epvf", "pavf": "pavf", "psvf": "psvf", "es": "evolution-strategy", "random": "random-search"}


class Recorder:
    """`add` hands an iteration over, `flush` returns when all that was handed over is committed."""

    def __init__(self, config: OnlineConfig, env: Env, spec: Spec, backend: str, run: str, path: Path):
        """Raises EnvironmentMismatchError or ArchitectureMismatchError where the data set cannot take the rows."""
        self.config, self.env, self.spec, self.run, self.path = config, env, spec, run, path
        self.simulation, self.started = simulation(backend), now()
        self.states = probing_states(env, PROBES)
        self.done = 0 if unmade(path) else _check(path, env, spec, run)
        self.writer = Writer.open(path, env_identity(env))
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="epvf-record")
        self.waiting: list[Rollouts] = []
        self.flights: list[Future] = []

    def add(self, rollouts: list[Rollouts]) -> None:
        """Takes the rollouts; iterations that a killed run has committed already are left out."""
        self.waiting += [item for item in rollouts if item.iteration >= self.done]
        if sum(len(item.outcomes.returns) for item in self.waiting) >= ROWS:
            self._send()

    def _send(self) -> None:
        items, self.waiting = self.waiting, []
        while len(self.flights) > 1:  # bounds memory: two batches at most wait for the disk
            self.flights.pop(0).result()
        if items:
            self.flights.append(self.pool.submit(self._commit, items))

    def _commit(self, items: list[Rollouts]) -> None:
        """Commits these iterations, or those of them that another process, which makes the same run, has not."""
        while items:
            try:
                self._publish(items)
            except RowsTakenError:
                done = _check(self.path, self.env, self.spec, self.run)
                items = [item for item in items if item.iteration >= done]
            else:
                return

    def _publish(self, items: list[Rollouts]) -> None:
        rows = Rows.concatenate([self._rows(item) for item in items])
        self.writer.commit(
            rows,
            provenance(
                run=self.run,
                iterations=[items[0].iteration, items[-1].iteration + 1],
                config=configuration.to_dict(self.config),
                **made_by(self.env),
                simulation=self.simulation,
                seed=self.config.seed,
                started=self.started,
                ended=now(),
            ),
        )

    def _rows(self, item: Rollouts) -> Rows:
        """The rows of one iteration, all seeds that took part."""
        proposal, explore = item.proposal, self.config.exploration
        flat = lambda leaf: leaf.reshape(-1, *leaf.shape[2:])  # noqa: E731
        bases = [[policy_id(self.spec, base) for base in seed] for seed in proposal.origin]
        each = self.config.envs // len(bases[0])
        clips = {"floor": explore.floor, "clip_noise": explore.clip_noise, "clip_weights": explore.clip_weights}
        # With a normaliser, noise is added before it is folded in: rows say so, for base + noise is not the row then.
        law = explore.law + (" normalised" if self.config.normalise_observations else "")
        law += "".join(f" {name}={float(value):g}" for name, value in clips.items() if value)
        lineage = Lineage.build(
            len(item.outcomes.returns),
            source=SOURCES[self.config.algorithm],
            base=[name for seed in bases for name in seed * each],
            run=[f"{self.run}/{seed}" for seed in seeds_of(self.config)[item.seeds] for _ in range(self.config.envs)],
            law=law,
            scale=flat(proposal.scale),
            sign=flat(proposal.sign).astype(np.int8),
            noise_seed=flat(proposal.noise),
            iteration=item.iteration,
        )
        params = np.ascontiguousarray(flat(proposal.params), np.float32)
        return make_rows(self.spec, params, item.outcomes, flat(proposal.seeds), lineage, self.states, self.simulation)

    def flush(self) -> None:
        """Returns when every iteration handed over is on disk. Raises what a commit raised."""
        self._send()
        while self.flights:
            self.flights.pop(0).result()

    def close(self) -> None:
        """Waits for what is under way; nothing more is committed."""
        self.pool.shutdown(wait=True)


def _check(path: Path, env: Env, spec: Spec, run: str) -> int:
    """How many iterations of this run the data set holds already."""
    dataset = reader.open(path)
    check_target(dataset, env, "this run is", "--record")
    others = [architecture for architecture in dataset.architectures if architecture.id != spec.id]
    if others and len(others) == len(dataset.architectures):
        raise ArchitectureMismatchError(
            f"{path} holds policies {others[0].spec}, this run has {spec}; give another --record."
        )
    mine = [commit.provenance for commit in dataset.commits if commit.provenance.get("run") == run]
    if not all(rundir.fits(made.get("iterations"), [int, int]) for made in mine):
        raise DatasetError(
            f"{path} holds commits of this run that do not say of which iterations; give another --record."
        )
    return max((made["iterations"][1] for made in mine), default=0)
