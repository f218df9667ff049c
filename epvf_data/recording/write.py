"""Rows that were made elsewhere, with another simulator or another library, become a data set with one call."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int

from epvf_data.errors import ConfigError, DatasetError
from epvf_data.policies.kinds import Spec
from epvf_data.provenance import now, provenance
from epvf_data.store import reader
from epvf_data.store.lineage import Lineage
from epvf_data.store.reader import Dataset
from epvf_data.store.schema import EnvIdentity, Rows, to_json
from epvf_data.store.writer import Writer

if TYPE_CHECKING:
    from epvf_data.envs import Env

ELSEWHERE = {"backend": "elsewhere"}  # what rolled the rows out, where nothing more is said


def task(
    name: str,
    observation_size: int,
    action_size: int,
    horizon: int,
    *,
    version: str = "1",
    timestep: float = 1.0,
    substeps: int = 1,
    **details: Any,
) -> EnvIdentity:
    """The identity of a task that this package cannot roll out, to `write` rows of.

    `horizon` is the number of control steps after which an episode is cut, `timestep` the seconds of a physics step,
    `substeps` the physics steps of a control step. `details` are JSON values: what else decides a return, as the
    simulator's version or a weight of the reward. Equal values give one digest, and only rows of one digest go into one
    data set: raise `version` when the task changes.
    """
    for what, value in (("observation_size", observation_size), ("action_size", action_size), ("horizon", horizon)):
        if not isinstance(value, int) or value < 1:
            raise ConfigError(f"{what} is {value!r}; expected a whole number of at least 1.")
    said = {
        **{"name": name, "version": version, "observation_size": observation_size, "action_size": action_size},
        **{"horizon": horizon, "timestep": float(timestep), "substeps": substeps, "details": details},
    }
    return EnvIdentity(**said, digest=hashlib.sha256(b"elsewhere" + to_json(said)).hexdigest())


def write(
    path: str | os.PathLike[str],
    env: str | Env | EnvIdentity,
    spec: Spec,
    params: Float[np.ndarray, "N P"],
    returns: Float[np.ndarray, "N"] | Float[np.ndarray, "N E"],
    *,
    lengths: Int[np.ndarray, "N"] | Int[np.ndarray, "N E"] | None = None,
    terminated: Bool[np.ndarray, "N"] | Bool[np.ndarray, "N E"] | None = None,
    source: str | Sequence[str] = "elsewhere",
    base: str | Sequence[str | None] | None = None,
    run: str | Sequence[str | None] | None = None,
    iteration: int | Sequence[int] | np.ndarray = -1,
    probe_states: Float[np.ndarray, "K O"] | None = None,
    probe_actions: Float[np.ndarray, "N K A"] | None = None,
    simulation: Mapping[str, Any] = ELSEWHERE,
    note: str | None = None,
) -> Dataset:
    """Adds N policies with the returns of E episodes each to the data set `path`, in one commit; makes it if need be.

    `env` is a name of this package's (`"ant"`, `"my_env.py:make"`), an environment, or a `task`. `params` are flat
    parameters as `spec` orders them (docs/format.md), `returns` undiscounted sums of reward. `lengths` are control
    steps, by default the horizon; an episode that is shorter counts as `terminated`, unless that says otherwise.

    Lineage: `source` names what made a policy, `base` the policy that it is a variation of: splits by lineage keep rows
    of one base together, so state it where policies are relatives. `run` and `iteration` say when in which training.
    With `probe_states` the policies' actions there are computed (with the extra `train`), unless `probe_actions` gives
    them; critics that read actions need them. `simulation` says what rolled out, `note` is kept in the commit.

    Returns the data set, opened. Raises DatasetError or ArchitectureMismatchError for arrays that do not fit,
    EnvironmentMismatchError where the data set is of another task, StorageError if the disk refuses: nothing is added.
    """
    identity = env if isinstance(env, EnvIdentity) else _identity(env)
    returns = _column("returns", returns, np.float32)
    values = np.asarray(params, np.float32)
    _check_finite(params=values, returns=returns)
    steps, ended = _ends(returns.shape, lengths, terminated, identity.horizon)
    if probe_states is not None:
        probe_states = np.asarray(probe_states, np.float32)
        probe_actions = _act(spec, values, probe_states) if probe_actions is None else probe_actions
    rows = Rows(
        spec=spec,
        params=values,
        returns=returns,
        lengths=steps,
        terminated=ended,
        truncated=~ended,
        finite=np.ones(returns.shape, np.bool_),
        reset_seed=np.zeros((len(returns), 2), np.uint32),
        lineage=Lineage.build(len(returns), source=source, base=base, run=run, iteration=iteration),
        simulation=simulation,
        probe_states=probe_states,
        probe_actions=None if probe_actions is None else np.asarray(probe_actions, np.float32),
    )
    said = provenance(made=now(), simulation=dict(simulation), **({} if note is None else {"note": note}))
    Writer.open(path, identity).commit(rows, said)
    return reader.open(path)


def _check_finite(**arrays: np.ndarray) -> None:
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise DatasetError(f"{name} holds numbers that are not finite; leave these rows out.")


def _ends(shape: tuple[int, ...], lengths: Any, terminated: Any, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """Lengths and ends of all episodes, with the defaults of `write`. Raises DatasetError where they cannot be."""
    steps = np.full(shape, horizon, np.int32) if lengths is None else lengths
    steps = _column("lengths", steps, np.int32)
    if steps.size and not 0 <= steps.min() <= steps.max() <= horizon:
        raise DatasetError(f"lengths go from {steps.min()} to {steps.max()}; the horizon is {horizon}.")
    ended = _column("terminated", steps < horizon if terminated is None else terminated, np.bool_)
    if ended.shape == steps.shape and (~ended & (steps < horizon)).any():
        raise DatasetError("episodes that are shorter than the horizon must be terminated; give lengths that are not.")
    return steps, ended


def _column(name: str, value: Any, dtype: type) -> np.ndarray:
    """One value an episode: [N, E] of that dtype; [N] is one episode each."""
    array = np.asarray(value)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2:
        raise DatasetError(f"{name} has the shape {list(array.shape)}; expected [rows] or [rows, episodes].")
    return array.astype(dtype)


def _identity(env: str | Env) -> EnvIdentity:
    from epvf_data import envs  # imported late, with JAX: a `task` needs none
    from epvf_data.recording.rows import env_identity

    return env_identity(envs.make(env) if isinstance(env, str) else env)


def _act(spec: Spec, params: np.ndarray, states: np.ndarray) -> np.ndarray:
    from epvf_data.recording.rows import probe_actions  # imported late, with JAX

    return probe_actions(spec, params, states)
