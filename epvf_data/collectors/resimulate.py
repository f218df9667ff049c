"""Roll stored rows out again, from the file alone, and compare returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np
from scipy import stats

from epvf_data.config import BACKENDS
from epvf_data.policies.loading import PolicyCode
from epvf_data.provenance import first_hand, versions
from epvf_data.recording.rows import simulation
from epvf_data.recording.task import task_of, with_policy
from epvf_data.rollout import resolve_backend, rollout
from epvf_data.store.reader import Dataset

TOLERANCE = 1e-3  # of a return, on the processor, backend and versions that made the rows: there it should be 0
UNLIKELY = 1e-4  # p-value of the Kolmogorov–Smirnov test below which the new returns are of another kind
FEW = 20  # rows below which a distribution says nothing


class Resimulation(NamedTuple):
    """How far new returns are from stored ones."""

    rows: int
    max_error: float  # greatest |new − stored| over rows and episodes
    rank_correlation: float | None  # Spearman's, of the rows' mean returns; None for few rows or equal returns
    ks_pvalue: float | None  # that both sets of mean returns come from one distribution
    exact: bool  # rolled out as the rows were, on a processor: the error should be 0
    problems: list[str]

    def describe(self) -> str:
        """One or two sentences for people."""
        text = f"rolled out {self.rows} rows again: returns differ by at most {self.max_error:.3g}"
        if self.exact or self.rank_correlation is None or self.ks_pvalue is None:
            return f"{text}."
        why = "an accelerator, another machine or other versions round otherwise, and a falling ant amplifies that"
        return (
            f"{text} ({why});\nranks correlate by {self.rank_correlation:.2f}, the distributions agree with "
            f"p = {self.ks_pvalue:.2g}."
        )


def resimulate(
    dataset: Dataset,
    rows: int,
    *,
    seed: int = 0,
    backend: str | None = None,
    env: str | None = None,
    policy: PolicyCode | None = None,
) -> Resimulation:
    """Rolls out `rows` rows drawn at random over all architectures and compares every episode's return.

    On the processor, backend and versions that made the rows the error should be 0, and more than `TOLERANCE` is a
    problem. On an accelerator results depend on the batch, and elsewhere on the machine: a falling ant amplifies the
    rounding, so there only the distribution of the returns is compared.

    `env` and `policy` name the user's own environment and architecture. Raises EnvironmentMismatchError when the
    environment here is not the data set's.
    """
    task, dataset = task_of(dataset, env), with_policy(dataset, policy)
    records = [made for commit in dataset.commits for made in first_hand(commit.provenance) if "rows_of" not in made]
    made = records[0].get("simulation") if records else None
    stored = made.get("backend", "auto") if isinstance(made, Mapping) else "auto"
    chosen = resolve_backend(task, backend or (stored if stored in list(BACKENDS) else "auto"))
    here = (simulation(chosen), versions())
    on_processor = chosen == "native" or jax.devices()[0].platform == "cpu"
    exact = on_processor and all((record.get("simulation"), record.get("versions")) == here for record in records)
    generator = np.random.default_rng(seed)
    share = np.array([architecture.rows for architecture in dataset.architectures], float)
    counts = generator.multinomial(min(rows, dataset.rows), share / share.sum()) if share.size else []
    worst, problems, before, after = 0.0, [], [np.zeros(0)], [np.zeros(0)]
    for architecture, count in zip(dataset.architectures, counts, strict=True):
        table = dataset.table(architecture.id)
        picked = np.sort(generator.choice(table.rows, size=min(int(count), table.rows), replace=False))
        if not picked.size:
            continue
        stored = table.take("returns", picked)
        theta, seeds = table.take("params", picked), table.take("reset_seed", picked)
        outcomes = rollout(task, table.spec, theta, reset_seed=seeds, episodes=stored.shape[1], backend=chosen)
        error = np.abs(outcomes.returns - stored).max(axis=1)
        error = np.where(np.isfinite(error), error, np.inf)
        worst = max(worst, float(error.max()))
        before.append(stored.mean(axis=1, dtype=np.float64))
        after.append(outcomes.returns.mean(axis=1, dtype=np.float64))
        if exact:
            problems += [
                f"row {row} of architecture {architecture.id[:8]}: return differs by {value:.4g} when rolled out again"
                for row, value in zip(picked, error, strict=True)
                if value > TOLERANCE
            ]
    old, new = np.concatenate(before), np.concatenate(after)
    ranks, pvalue = _agreement(old, new)
    if not exact and pvalue is not None and pvalue < UNLIKELY:
        problems.append(
            f"returns rolled out again are distributed otherwise (mean {new.mean():.4g}, stored {old.mean():.4g}, "
            f"Kolmogorov–Smirnov p = {pvalue:.2g})"
        )
    return Resimulation(len(old), worst, ranks, pvalue, exact, problems)


def _agreement(old: np.ndarray, new: np.ndarray) -> tuple[float | None, float | None]:
    """Spearman's correlation and the p-value of the Kolmogorov–Smirnov test."""
    if len(old) < FEW or np.ptp(old) == 0 or np.ptp(new) == 0 or not np.isfinite([old, new]).all():
        return None, None
    ranks, tested = stats.spearmanr(old, new), stats.ks_2samp(old, new)
    return float(ranks.statistic), float(tested.pvalue)  # pyright: ignore[reportAttributeAccessIssue]
