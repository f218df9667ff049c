"""MJX, or dynamics of an environment's own, as a step of the compiled loop: on any XLA device, in float32."""

from __future__ import annotations

import contextlib
import importlib
import io
from copy import copy
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
from jaxtyping import Array

from epvf_data.envs.base import Env, Physics
from epvf_data.envs.model import compile_model
from epvf_data.errors import BackendError, extra
from epvf_data.physics.loop import Stepper

LANES = 64  # worlds stepped together on a CPU; their weights stay in cache
# On a CPU, the compiler runs the last few iterations of some vectorised loops over worlds as scalars, and these round
# otherwise. With vectors of four the last four worlds of a block do nothing, so a result does not depend on its slot.
CPU_OPTIONS: dict[str, str | bool] = {"xla_cpu_prefer_vector_width": "128"}
CPU_SPARE = 4
SPLIT_WORK = 200_000  # floating point operations of a batched factorisation above which jaxlib spreads it over its pool


def stepper(env: Env) -> Stepper:
    """MJX (or the environment's own dynamics) for the compiled loop.

    A world's state is the last acceleration, with which the solver starts: with one iteration it is part of the
    physics. Raises BackendError for a model that MJX cannot run.
    """
    move = _own(env) if env.dynamics is not None else _mjx_move(env)
    velocities = 0 if env.xml is None else _mjx(env)[1].nv

    def kept(
        warmstart: Array, physics: Physics, action: Array, control: Array, running: Array
    ) -> tuple[Array, Physics]:
        qpos, qvel, after = move(physics, warmstart, control)
        return jnp.where(running, after, warmstart), Physics(qpos, qvel, action, qpos - physics.qpos)

    # jaxlib waits inside its pool for the parts of a factorisation: two threads could wait for each other for ever.
    single = (LANES + CPU_SPARE) * velocities**3 >= SPLIT_WORK
    blank = jnp.zeros(max(velocities, 1))  # a checkpoint takes no empty array
    return Stepper(lambda physics: blank, kept, LANES, CPU_SPARE, CPU_OPTIONS, single)


def _own(env: Env):
    """(physics, warm start, control) → qpos, qvel, warm start after `substeps` steps of the environment's dynamics."""
    dynamics = env.dynamics
    assert dynamics is not None

    def move(physics: Physics, warmstart: Array, control: Array) -> tuple[Array, Array, Array]:
        for _ in range(env.substeps):
            qpos, qvel = dynamics(physics, control)
            physics = physics._replace(qpos=qpos, qvel=qvel)
        return physics.qpos, physics.qvel, warmstart

    return move


def _mjx_move(env: Env):
    """(physics, warm start, control) → qpos, qvel, warm start after `substeps` steps of MJX under the same control."""
    library, model, template = _mjx(env)

    def move(physics: Physics, warmstart: Array, control: Array) -> tuple[Array, Array, Array]:
        def substep(carry, _):
            # All other fields of Data are either constant here or computed afresh by each step.
            qpos, qvel, warmstart = carry
            data = template.replace(qpos=qpos, qvel=qvel, qacc_warmstart=warmstart, ctrl=control)
            data = library.step(model, data)
            return (data.qpos, data.qvel, data.qacc_warmstart), None

        carry = (physics.qpos, physics.qvel, warmstart)
        return substep(carry, None)[0] if env.substeps == 1 else jax.lax.scan(substep, carry, length=env.substeps)[0]

    return move


@lru_cache(maxsize=8)
def _mjx(env: Env) -> tuple[Any, Any, Any]:
    """The MJX library, the environment's model and a blank Data, as constants of whatever is traced."""
    with extra("mjx"), contextlib.redirect_stdout(io.StringIO()):  # it prints that an optional library is missing
        mjx = importlib.import_module("mujoco.mjx")  # imported late: takes seconds, and the native backend does without
    plain = copy(compile_model(env))
    if plain.opt.solver == mujoco.mjtSolver.mjSOL_PGS:
        plain.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON  # MJX has no PGS; both solve the same problem
    try:
        model = mjx.put_model(plain)
    except NotImplementedError as error:
        raise BackendError(f"MJX cannot run environment {env.name} ({error}); use `--backend native`.") from error
    with jax.ensure_compile_time_eval():
        return mjx, model, mjx.make_data(model)
