"""Probing states: observations in which every policy's actions are recorded.

Built-in environments ship theirs (`collectors/bundled.py` makes them), so that data sets of different labs can be
compared row by row. For other environments they are drawn from episodes of random policies, with a seed of their own.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float
from numpy.lib import format as npy

from epvf_data import envs
from epvf_data.envs import Env
from epvf_data.errors import ConfigError
from epvf_data.physics.trajectory import trajectory
from epvf_data.policies import acting
from epvf_data.policies.kinds import Spec
from epvf_data.policies.spec import PolicySpec
from epvf_data.streams import stream
from epvf_data.untrusted import printable, read_named, shown

MAX_BYTES = 256 << 20
SHIPPED = 256  # states a shipped file holds; a data set uses the first K
FOLDER = resources.files("epvf_data.recording") / "states"


def probing_states(env: Env, count: int, file: str | None = None) -> Float[np.ndarray, "K O"]:
    """The first `count` probing states of the environment, or of a NumPy file of shape [K, O]."""
    if count < 1:
        raise ConfigError(f"got {count} probing states; at least 1 is needed.")
    if file is not None:
        states = _load(Path(file))
    else:
        body = env.name.partition(".")[0] if envs.ships(env.name) else env.name  # other objectives, same states
        body = envs.relative(body)
        shipped = Path(str(FOLDER)) / f"{body}-{env.version}.npy"
        states = _load(shipped) if shipped.is_file() else draw(env, count)
    with np.errstate(over="ignore"):
        states = np.asarray(states, np.float32)
    if states.ndim != 2 or states.shape[1] != env.observation_size or not np.isfinite(states).all():
        raise ConfigError(
            f"got probing states of shape {states.shape}; environment {env.name} needs finite numbers of shape "
            f"[states, {env.observation_size}]."
        )
    if len(states) < count:
        raise ConfigError(
            f"got {count} probing states to use, but there are {len(states)}; ask for fewer or give a file."
        )
    return np.ascontiguousarray(states[:count])


def _load(path: Path) -> np.ndarray:
    """The numbers of a .npy file, which must be as many as its header says before any are made."""
    file = io.BytesIO(read_named(path, "file of probing states", MAX_BYTES))
    try:
        headers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
        shape, _, dtype = headers[npy.read_magic(file)](file)
        if dtype.kind not in "fiu" or math.prod(shape) * dtype.itemsize != len(file.getbuffer()) - file.tell():
            raise ValueError(f"it would hold {shown(shape)} of {dtype}")
        file.seek(0)
        return np.load(file, allow_pickle=False)
    except (ValueError, TypeError, KeyError, SyntaxError, MemoryError, RecursionError) as error:
        raise ConfigError(
            f"the probing states in {path} cannot be read ({printable(error)}); expected real numbers in a NumPy .npy "
            "file."
        ) from error


def draw(
    env: Env, count: int, each: int = 8, seed: int = 0, trained: Sequence[tuple[Spec, np.ndarray]] = ()
) -> Float[np.ndarray, "K O"]:
    """States that policies visit, up to `each` of one episode a policy, in any order: random ones of scales 0.5 to 2,
    and in turn with them the trained ones, if any."""
    fresh: Spec = PolicySpec(env.observation_size, env.action_size)
    key, generator = stream(seed, "probe"), np.random.default_rng(seed)
    chosen: list[np.ndarray] = []
    number = 0
    while len(chosen) < count:
        own = jax.random.fold_in(key, number)
        spec, params = fresh, acting.init(own, fresh, 0.5 * 4.0 ** (number % 8 / 7))
        if trained and number % 2:
            spec, params = trained[number // 2 % len(trained)]
        seen = trajectory(env, spec, np.asarray(params), np.asarray(jax.random.key_data(own))).observations
        seen = seen[np.isfinite(seen).all(axis=1)]
        chosen.extend(generator.choice(seen, size=min(each, len(seen)), replace=False))
        number += 1
    return generator.permutation(np.stack(chosen))[:count].astype(np.float32)
