"""What an environment's functions compute, as far as two versions of them can be told apart."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp

from epvf_data.envs.base import Env


@lru_cache(maxsize=64)
def functions(env: Env) -> dict[str, str]:
    """The SHA-256 of each function as JAX lowers it for a processor, constants and what it calls included.

    Comments and names do not matter. Another version of JAX lowers otherwise: compare where `jax` is equal. What runs
    in Python behind a callback is not seen. Raises what the functions raise.
    """
    with jax.default_matmul_precision("highest"), jax.numpy_rank_promotion("allow"), jax.disable_jit(False):
        key = jax.eval_shape(lambda: jax.random.key(0))
        start = jax.eval_shape(env.reset, key)
        state = start._replace(moved=start.qpos)
        action = jax.ShapeDtypeStruct((env.action_size,), jnp.float32)
        calls: dict[str, tuple[Callable, tuple]] = {
            "reset": (env.reset, (key,)),
            "observe": (env.observe, (state,)),
            "reward": (env.reward, (state, state)),
            "terminated": (env.terminated, (state,)),
            "control": (env.control, (action,)),
        }
        if env.dynamics is not None:
            calls["dynamics"] = (env.dynamics, (state, jax.eval_shape(env.control, action)))
        return {"jax": jax.__version__, **{name: lowered(*call) for name, call in calls.items()}}


def lowered(function: Callable, arguments: tuple[Any, ...]) -> str:
    """The SHA-256 of one function of arguments of these shapes, as JAX lowers it for a processor."""
    # A new function: JAX remembers what it has traced, and this may look at something that has changed.
    traced = jax.jit(lambda *given: function(*given)).trace(*arguments)
    return hashlib.sha256(traced.lower(lowering_platforms=("cpu",)).as_text().encode()).hexdigest()
