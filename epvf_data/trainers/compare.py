"""Several runs side by side, whichever way they were trained."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from epvf_data.errors import ConfigError, RunError
from epvf_data.trainers import rundir


def compare(
    runs: Sequence[str | Path],
    image: str | Path | None = None,
    *,
    table: str | Path | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Runs of `train_offline`, or runs of `train_online`, side by side; `image` gets a picture.

    Of offline runs: `splits`, in each the critics and what they predict, the best first, see
    `trainers.evaluation.compare`. Of online runs: `groups` and `differences`, final and best returns by seed and over
    seeds, see `trainers.curves.summary.compare_runs`; the picture then has learning curves, and `table` gets their
    numbers as CSV (see `plot_runs`).

    Raises RunError for a mixture, for what is no run, and for runs that have nothing to tell yet, ConfigError and
    DatasetError where no file can be written.
    """
    chosen = [Path(run) for run in runs]
    rundir.check_there(chosen)
    there = [run for run in chosen if not os.path.lexists(run / "zarr.json")]
    online = [run for run in there if rundir.kind(run) == "online"]
    if not online:
        if table is not None:
            raise ConfigError("the table is of learning curves; offline runs have none.")
        from epvf_data.trainers.evaluation.compare import compare as compare_critics

        return compare_critics(chosen, image, force=force)
    if other := next((run for run in there if run not in online and rundir.kind(run)), None):
        raise RunError(
            f"{online[0]} is a run of train-online and {other} one of train-offline; compare runs of one kind."
        )
    from epvf_data.trainers.curves.plot import check, plot_runs
    from epvf_data.trainers.curves.summary import compare_runs

    check(image, table, force)
    found = compare_runs(chosen)
    if image is not None or table is not None:
        plot_runs(chosen, image, table=table, force=force)
    return found
