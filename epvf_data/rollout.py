"""The one door through which any policy gets a return."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, UInt32

from epvf_data import envs
from epvf_data.config import BACKENDS
from epvf_data.envs import Env
from epvf_data.envs.model import compile_model
from epvf_data.errors import ArchitectureMismatchError, BackendError, ConfigError
from epvf_data.physics import native
from epvf_data.physics.episode import Outcomes
from epvf_data.physics.play import play
from epvf_data.policies import acting
from epvf_data.policies.kinds import Spec
from epvf_data.runtime import check
from epvf_data.untrusted import shown


class _Rollout(ModuleType):
    """This module, which is called as its function is: `epvf_data.rollout` is both."""

    def __call__(self, *args: Any, **settings: Any) -> Outcomes:
        return rollout(*args, **settings)


sys.modules[__name__].__class__ = _Rollout


def resolve_backend(env: Env, backend: str = "auto") -> str:
    """The backend that `auto` stands for here: `native` for MuJoCo models without an accelerator where the library that
    steps them was built, else `mjx`.

    Raises ConfigError for an unknown name and for a model that no episode can be of, BackendError for a backend that
    cannot run the environment, and either where JAX is set up such that no rollout would be what it is elsewhere.
    """
    if backend not in BACKENDS:
        raise ConfigError(f"there is no backend {shown(backend)}; choose one of {', '.join(BACKENDS)}.")
    check()
    if env.xml is not None:
        compile_model(env)
    if backend == "auto":
        return "native" if env.xml is not None and jax.default_backend() == "cpu" and native.available() else "mjx"
    if backend == "native" and env.xml is None:
        raise BackendError(f"environment {env.name} is not a MuJoCo model; use `--backend mjx` or `--backend auto`.")
    if backend == "native" and not native.available():
        raise BackendError(f"backend native is not there: {native.MISSING}")
    if backend == "native":
        _check_processor()
    return backend


def _check_processor() -> None:
    """Raises BackendError where JAX was told to leave the processor out, on which policies of this backend act."""
    try:
        jax.local_devices(backend="cpu")
    except RuntimeError as error:
        chosen = os.environ.get("JAX_PLATFORMS", "")
        raise BackendError(
            f"the native backend needs the processor, and JAX_PLATFORMS={chosen} leaves it out; "
            f"set JAX_PLATFORMS={chosen},cpu or unset it."
        ) from error


def rollout(
    env: Env | str,
    spec: Spec,
    params: Float[np.ndarray, "N P"],
    *,
    reset_seed: UInt32[np.ndarray, "N 2"] | None = None,
    episodes: int = 1,
    backend: str = "auto",
    discount: float = 1.0,
    sample: bool = False,
    devices: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Outcomes:
    """Rolls out `episodes` episodes of each of N policies of an environment, or of its name, and tells how each ended.

    `reset_seed` is the raw JAX key data of each row's start states: episode e starts from `fold_in(key, e)`. Rows
    without seeds share key 0. With `sample`, the outcomes hold one observation of each episode, drawn uniformly from
    those that its policy acted on, with that key. `mjx` takes all devices of the process, or the first `devices`, and
    the one of `jax_default_device` where that is set. `progress` is called with (episodes, control steps) newly
    finished, from any thread.

    Raises ArchitectureMismatchError when the policies do not fit the specification or the environment.
    """
    env = envs.make(env) if isinstance(env, str) else env
    params = np.asarray(params, np.float32)
    if params.ndim != 2 or params.shape[1] != spec.size:
        raise ArchitectureMismatchError(
            f"got parameters of shape {params.shape}; policies {spec} need shape [policies, {spec.size}]."
        )
    if (spec.observation_size, spec.action_size) != (env.observation_size, env.action_size):
        raise ArchitectureMismatchError(
            f"policies {spec} map {spec.observation_size} observations to {spec.action_size} actions; "
            f"environment {env.name} has {env.observation_size} and {env.action_size}."
        )
    acting.check(spec)
    if episodes < 1:
        raise ConfigError(f"got {episodes} episodes a policy; at least 1 is needed.")
    if reset_seed is None:
        reset_seed = np.zeros((len(params), 2), np.uint32)
    if reset_seed.shape != (len(params), 2):
        raise ConfigError(
            f"got reset seeds of shape {reset_seed.shape}; {len(params)} policies need [{len(params)}, 2]."
        )
    chosen = resolve_backend(env, backend)
    return play(
        env,
        spec,
        params,
        reset_seed,
        backend=chosen,
        episodes=episodes,
        discount=discount,
        sample=sample,
        devices=devices,
        progress=progress,
    )
