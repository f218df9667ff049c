"""Roll stored rows out again, from the file alone, and compare returns."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from epvf_data import envs
from epvf_data.collectors.setting import simulation
from epvf_data.errors import EnvironmentMismatchError
from epvf_data.provenance import versions
from epvf_data.rollout import resolve_backend, rollout
from epvf_data.store.reader import Dataset

TOLERANCE = 1e-3  # of a return, where backend, processor and versions are those of the rows: there it should be 0


class Resimulation(NamedTuple):
    """How far new returns are from stored ones."""

    rows: int
    max_error: float  # greatest |new − stored| over rows and episodes
    comparable: bool  # rolled out as the rows were: backend, device and versions agree
    problems: list[str]


def resimulate(dataset: Dataset, rows: int, *, seed: int = 0, backend: str | None = None) -> Resimulation:
    """Rolls out `rows` rows drawn at random over all architectures and compares every episode's return.

    On the backend and versions that made the rows the error should be 0, and more than `TOLERANCE` is a problem.
    Elsewhere floating-point rounding differs, a falling ant amplifies it, and the error is only reported.

    Raises EnvironmentMismatchError when the environment here is not the data set's.
    """
    env = envs.make(dataset.env.name).with_horizon(dataset.env.horizon)
    if env.digest != dataset.env.digest:
        raise EnvironmentMismatchError(
            f"{dataset.path} was made with {dataset.env.name} of digest {dataset.env.digest[:12]}, this version's is "
            f"{env.digest[:12]}; install the version that its commits name."
        )
    records = [commit.provenance for commit in dataset.commits]
    chosen = resolve_backend(
        env, backend or (records[0].get("simulation", {}).get("backend", "auto") if records else "auto")
    )
    here = (simulation(chosen), versions())
    same = all((record.get("simulation"), record.get("versions")) == here for record in records)
    generator = np.random.default_rng(seed)
    share = np.array([architecture.rows for architecture in dataset.architectures], float)
    counts = generator.multinomial(min(rows, dataset.rows), share / share.sum()) if share.size else []
    worst, done, problems = 0.0, 0, []
    for architecture, count in zip(dataset.architectures, counts, strict=True):
        table = dataset.table(architecture.id)
        picked = np.sort(generator.choice(table.rows, size=min(int(count), table.rows), replace=False))
        if not picked.size:
            continue
        stored = table.take("returns", picked)
        outcomes = rollout(
            env,
            table.spec,
            table.take("params", picked),
            reset_seed=table.take("reset_seed", picked),
            episodes=stored.shape[1],
            backend=chosen,
        )
        error = np.abs(outcomes.returns - stored).max(axis=1)
        error = np.where(np.isfinite(error), error, np.inf)
        worst, done = max(worst, float(error.max())), done + picked.size
        if same:
            problems += [
                f"row {row} of architecture {architecture.id[:8]}: return differs by {value:.4g} when rolled out again"
                for row, value in zip(picked, error, strict=True)
                if value > TOLERANCE
            ]
    return Resimulation(done, worst, same, problems)
