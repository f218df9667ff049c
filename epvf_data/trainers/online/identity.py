"""Which run a directory holds: what config.json says, and what may differ when the run goes on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, BinaryIO

import jax
import numpy as np

from epvf_data.code import Function
from epvf_data.config import flatten, to_dict
from epvf_data.envs import Env
from epvf_data.errors import RunError
from epvf_data.policies.loading import origin_of as policy_origin
from epvf_data.recording.task import made_by
from epvf_data.store.identity import changed
from epvf_data.trainers import rundir, startedwith
from epvf_data.trainers.online.learners import origin_of
from epvf_data.trainers.online.settings import OnlineConfig
from epvf_data.trainers.online.standing import Standing

REPORT = "report.json"
_FREE = ("checkpoint_seconds", "snapshots", "devices")  # settings that may change when a run goes on
_ROUNDING = 1e-3  # of a share that float32 adds up


def stored_run(directory: Path) -> dict[str, Any]:
    """What config.json holds. Raises RunError where it is of another kind of run, or none."""
    found = rundir.read_run(directory)
    shape = {"env_digest": str, "backend": str, "run": str, "record": (str, None), "warm_start": (str, None)}
    if not rundir.fits(found, shape):
        raise RunError(f"{directory} holds no run of online training; choose another directory.")
    return {**found, "config": rundir.stored_settings(directory, OnlineConfig, found["config"])}


def settings_of(config: OnlineConfig, env: Env, backend: str, record: Any, warm_start: Any) -> dict[str, Any]:
    """What config.json holds; `run` is equal for two runs that compute the same."""
    settings = to_dict(config)
    computed = {key: value for key, value in settings.items() if key not in (*_FREE, "backend")}
    policy = config.policy.architecture
    computed["policy"] = {key: value for key, value in settings["policy"].items() if key != "architecture"}
    warm = None if warm_start is None else str(Path(warm_start).absolute())
    origin = origin_of(config)
    code = {} if origin is None else {"critic_code": origin.record()}
    if policy is not None:
        made = Function.of(policy)
        code["policy_code"] = policy_origin(made).record()
        computed["policy"]["architecture"] = made.name.rpartition(":")[2]
    identity = [computed, env.digest, backend, warm, *(one["sha256"] for one in code.values())]
    text = json.dumps(identity, sort_keys=True)
    return {
        "config": settings,
        "env_digest": env.digest,
        **made_by(env),
        "backend": backend,
        "run": hashlib.sha256(text.encode()).hexdigest(),
        "record": None if record is None else str(Path(record).absolute()),
        "warm_start": warm,
        **code,
    }


def identity(directory: Path, settings: dict[str, Any], resume: bool) -> str:
    """The run's identity, given when it began. Raises RunError for a directory that is taken, or of other settings."""
    if not resume:
        rundir.check_free(directory)
        return settings["run"]
    stored = stored_run(directory)
    known, here = stored.get("functions"), settings.get("functions")
    if isinstance(known, dict) and here and (others := changed([known], here)):
        raise RunError(
            f"{directory} was started with another {', '.join(others)} of its environment; take the change back, or "
            "start a new run."
        )
    names = ("env_digest", "backend", "record", "warm_start")
    longer = _longer(directory, stored["config"], settings["config"])
    plain = lambda found: {  # noqa: E731
        "config": {
            **{key: value for key, value in found["config"].items() if key not in (*_FREE, *longer, "backend")},
            **{name: found[name] for name in names},
        },
        **{name: found[name] for name in ("critic_code", "policy_code") if name in found},
    }
    startedwith.check_same(directory, plain(stored), plain(settings))
    return stored["run"]


def _longer(directory: Path, before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The budgets that are larger than they were. Raises RunError where they pace the run."""
    grown = startedwith.grown(before, now)
    if grown and (paced := startedwith.paced(flatten(before))):
        raise RunError(
            f"{directory} was started with {grown[0]} {before[grown[0]]}, over which {paced}; more of "
            "it would be another run: start a new one, from this one's policy with --set start=FILE."
        )
    return grown


def hold(directory: Path, config: OnlineConfig, standing: Standing) -> BinaryIO:
    """Locks the run, see `rundir.lock`, and writes down the budget with which it goes on, where that has grown."""
    held = rundir.lock(directory)
    if _extend(directory, config, standing):
        held, earlier = rundir.lock(directory), held  # of the file as it is now
        earlier.close()
    return held


def _extend(directory: Path, config: OnlineConfig, standing: Standing) -> bool:
    """Writes down the budget with which a run goes on, and gives whether it has grown; it is unfinished again then."""
    if not startedwith.paced(flatten(to_dict(config))):
        _pace(config, standing)  # also where a kill came between the line below and the first checkpoint after it
    found = rundir.read(directory / rundir.CONFIG)
    budget = {name: getattr(config, name) for name in startedwith.BUDGETS}
    if all(found["config"].get(name) == value for name, value in budget.items()):
        return False
    rundir.write_json(directory / rundir.CONFIG, {**found, "config": {**found["config"], **budget}})
    (directory / REPORT).unlink(missing_ok=True)
    return True


def _pace(config: OnlineConfig, standing: Standing) -> None:
    """Counts what is spent of the budget anew where it is another one than the checkpoint's."""
    spent = np.asarray(standing.env_steps / config.env_steps if config.env_steps else 0.0)
    spent = np.maximum(spent, standing.iteration / config.iterations if config.iterations else 0.0)
    before = standing.state.fraction
    if np.abs(np.asarray(before) - spent).max() > _ROUNDING:
        fraction = np.broadcast_to(spent, before.shape).astype(np.float32)
        standing.state = standing.state._replace(fraction=jax.numpy.asarray(fraction))
