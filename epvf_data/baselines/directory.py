"""The run directory of an agent of brax: begun, and begun anew where a kill ended a run, for it cannot go on."""

from __future__ import annotations

import json
import os
import re
import shutil
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epvf_data import config as configuration
from epvf_data.baselines.settings import BaselineConfig
from epvf_data.errors import RunError
from epvf_data.trainers import rundir

if TYPE_CHECKING:
    from epvf_data.envs import Env  # JAX: a shell that asks whether a place is free does without

STEPS = "brax"  # where brax keeps SAC's checkpoints while it trains
STEP = re.compile(r"[0-9]{1,18}(\.orbax-checkpoint-tmp(-[0-9]+)?)?", re.ASCII)  # their names, unfinished ones' too
_POLICY = re.compile(r"(last|best|at-[0-9]+)-[0-9]+\.safetensors", re.ASCII)


def check(directory: Path) -> bool:
    """Whether a kill left a run there, which begins anew. Raises RunError where anything else is."""
    if not os.path.lexists(directory / rundir.CONFIG) or rundir.read_run(directory).get("kind") != "baseline":
        rundir.check_free(directory)
        return False
    if (directory / "report.json").exists():
        raise RunError(f"{directory} holds a finished run; choose another directory for a new one.")
    return True


def begin(directory: Path, config: BaselineConfig, env: Env) -> None:
    """Makes the run directory, or empties the one that a killed run of the same settings left behind."""
    settings = {"kind": "baseline", "config": configuration.to_dict(config), "env": env.identity}
    if check(directory):
        if rundir.read_run(directory) != json.loads(json.dumps(settings)):
            raise RunError(f"{directory} was started with other settings; choose another directory for a new run.")
        for old in (directory / rundir.METRICS, *named(directory / "policies", _POLICY)):
            old.unlink(missing_ok=True)
        remove_steps(directory / STEPS)
    else:
        rundir.create_run(directory, settings)
    rundir.write_json(directory / "versions.json", _versions())


def named(folder: Path, form: re.Pattern[str]) -> list[Path]:
    """What has a name of that form in a folder, if there is one."""
    return sorted(path for path in folder.iterdir() if form.fullmatch(path.name)) if folder.is_dir() else []


def remove_steps(folder: Path) -> None:
    """Removes the checkpoints that brax has written, and nothing else."""
    for step in named(folder, STEP):
        shutil.rmtree(step, ignore_errors=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _versions() -> dict[str, Any]:
    return {**rundir.versions(), "brax": metadata.version("brax")}
