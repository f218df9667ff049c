"""A stored row's episode, as it was rolled out: the best, the median, the worst, or any."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from epvf_data.errors import ConfigError
from epvf_data.policies.loading import PolicyCode
from epvf_data.recording.task import task_of, with_policy
from epvf_data.render.film import Film
from epvf_data.render.inputs import check_row
from epvf_data.render.render import Progress, RenderReport, render_episode
from epvf_data.store import reader
from epvf_data.store.extract import part_column
from epvf_data.store.pick import pick_row
from epvf_data.store.table import Table


def render_row(
    dataset_path: str | os.PathLike[str],
    row: str = "best",
    out: str | Path | None = None,
    *,
    env: str | None = None,
    code: PolicyCode | None = None,
    architecture: str | None = None,
    episode: int = 0,
    film: Film | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> RenderReport:
    """Draws one of the row's own episodes: a video `out` (DATASET-ROW.mp4 here) and a strip beside it.

    `row` is `best`, `median` or `worst` by mean return, among all policies or those of `architecture`, or the number
    of a row of one architecture. `env` and `code` name the user's own environment and architecture.

    Raises ConfigError or DatasetError for a row or episode that is not there and for withheld parameters,
    EnvironmentMismatchError for an environment that is not here, BackendError where this machine cannot draw, and as
    `render_policy` does where files are there already.
    """
    film = film or Film()
    video = check_row(dataset_path, row, None if out is None else Path(out), architecture, film, force)
    dataset = with_policy(reader.open(dataset_path), code)
    task = task_of(dataset, env)
    table, number = pick_row(dataset, row, architecture)
    place = np.array([number])
    params, stored = table.take("params", place)[0], _returns(table, number)
    if not 0 <= episode < len(stored):
        raise ConfigError(f"episode {episode} was asked for; row {number} has the episodes 0 to {len(stored) - 1}.")
    seed = table.take("reset_seed", place)[0]
    report = render_episode(task, table.spec, params, video, seed, episode, film, force, progress)
    return replace(report, row=number, architecture=table.spec.id, stored_return=float(stored[episode]))


def _returns(table: Table, number: int) -> Float[np.ndarray, "E"]:
    """The row's return of each episode, also where parts differ in their number."""
    part = int(np.searchsorted(table.starts, number, side="right")) - 1
    return part_column(table.parts[part], "returns", np.array([number - int(table.starts[part])]))[0]
