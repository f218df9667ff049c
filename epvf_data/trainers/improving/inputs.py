"""What an improvement is given, checked before anything heavy is imported."""

from __future__ import annotations

import os
from pathlib import Path

from epvf_data.errors import ConfigError, RunError
from epvf_data.store import reader
from epvf_data.trainers import rundir, startedwith
from epvf_data.trainers.improving.settings import RESULT, ImproveConfig
from epvf_data.trainers.offline.inputs import own_rows, stored_run


def check_inputs(
    source: Path,
    out: Path,
    config: ImproveConfig,
    rollouts: bool,
    trained_on: str | os.PathLike[str] | None,
    resume: bool,
) -> None:
    """Raises RunError for an `out` that is taken, RunError or DatasetError where there is nothing to improve on, and
    ConfigError where a method that lives on rollouts is to do without."""
    if not rollouts and config.recipe.climbs == "spend":
        raise ConfigError(f"the method {config.method_name} plays episodes itself; leave --no-rollouts out.")
    if resume and (out / RESULT).is_file():
        raise RunError(f"{out} is finished, as its {RESULT} says; choose another --out.")
    if not resume and os.path.lexists(out) and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out} exists already; choose another --out, or go on with --resume.")
    if os.path.lexists(source / rundir.CONFIG):
        stored = stored_run(source)
        startedwith.check_code(source, stored, stored["config"]["critic"], config.own_critic)
        if trained_on is None:
            own_rows(source, stored["dataset"]["path"])
        else:
            reader.open(trained_on)
        return
    opened = reader.open(source)
    for item in opened.architectures:
        opened.table(item.id).row_shape("params")
