"""Episodes on an XLA device: policy, observation, physics, reward and bookkeeping in one compiled scan.

A block of fixed size steps `SEGMENT` control steps at a time. Then finished episodes hand in their results and their
slots take the next ones of the queue, so one compiled shape serves any number of policies, memory does not grow with
that number, and short episodes cost little. Also the backend of environments with `dynamics` of their own.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, UInt32

from epvf_data.envs.base import Env, Physics
from epvf_data.envs.model import compile_model
from epvf_data.errors import BackendError
from epvf_data.physics.episode import Episode, Outcomes, account, act, begin
from epvf_data.physics.slots import Progress, Queue, blank, put, start
from epvf_data.policies import mlp
from epvf_data.policies.spec import PolicySpec

SEGMENT = 25  # control steps between two looks at what has finished
CPU_CHUNK = 64  # worlds a thread; their weights stay in cache
# On a CPU, the compiler runs the last few iterations of some vectorised loops over worlds as scalars, and these round
# otherwise. With vectors of four the last four worlds of a block do nothing, so a result does not depend on its slot.
CPU_OPTIONS: dict[str, str | bool] = {"xla_cpu_prefer_vector_width": "128"}
CPU_SPARE = 4
SPLIT_WORK = 200_000  # floating point operations of a batched factorisation above which jaxlib spreads it over its pool
DEVICE_CHUNK = 16384  # worlds on an accelerator
LOAD = 16  # the smallest number of slots that is loaded at once


class World(NamedTuple):
    """All that one world carries from step to step."""

    episode: Episode
    warmstart: Float[Array, "nv"]  # the last acceleration: with one solver iteration it is part of the physics


Advance = Callable[[World, Array], tuple[Array, Array, Array]]  # (world, control) → qpos, qvel, warm start


def rollout(
    env: Env,
    spec: PolicySpec,
    params: Float[np.ndarray, "N P"],
    reset_seed: UInt32[np.ndarray, "N 2"],
    *,
    episodes: int = 1,
    discount: float = 1.0,
    sample: bool = False,
    progress: Progress | None = None,
    chunk: int | None = None,
    threads: int | None = None,
) -> Outcomes:
    """Rolls out `episodes` episodes of each policy on JAX's default device.

    `chunk` worlds are stepped together. Another chunk size compiles to other roundings; with the same one, a result on
    a CPU depends neither on its place nor on the other policies nor on `threads`, the number of chunks that run side
    by side (default: one a core).

    Raises BackendError for a model that MJX cannot run.
    """
    device = _default_device()
    queue = Queue(params, reset_seed, episodes, progress, env.observation_size if sample else None)
    if not queue.items:
        return queue.outcomes
    on_cpu = device.platform == "cpu"
    chunk = chunk or (CPU_CHUNK if on_cpu else min(DEVICE_CHUNK, power_of_two(queue.items)))
    threads = min(threads or (len(os.sched_getaffinity(0)) if on_cpu else 1), math.ceil(queue.items / chunk))
    lanes = chunk + CPU_SPARE if on_cpu else chunk
    if lanes * velocities(env) ** 3 >= SPLIT_WORK:
        # jaxlib waits inside its pool for the parts of a factorisation: two chunks could wait for each other for ever.
        threads = 1
    with jax.default_device(device):
        functions = _compiled(env, spec, discount, lanes, on_cpu, sample)
    if threads == 1:
        _work(device, queue, functions, chunk)
        return queue.outcomes
    with ThreadPoolExecutor(threads, thread_name_prefix="epvf-mjx") as pool:
        futures = [pool.submit(_work, device, queue, functions, chunk) for _ in range(threads)]
        try:
            for future in futures:
                future.result()
        finally:
            queue.stop.set()  # Ctrl-C, or one thread failed: the others leave after their segment
    return queue.outcomes


def episode_fn(
    env: Env, spec: PolicySpec, discount: float = 1.0, sample: bool = False
) -> Callable[[mlp.Tensors, PRNGKeyArray], Episode]:
    """A pure function (one policy's tensors, reset key) → finished episode, to be vmapped and jitted by the caller.

    It leaves its loop when the episode has ended; under `vmap`, when all have.
    """
    step, start_warm = _step(env, spec, discount), jnp.zeros(velocities(env))

    def episode(tensors: mlp.Tensors, key: PRNGKeyArray) -> Episode:
        def some_steps(world: World) -> World:
            return jax.lax.scan(lambda world, _: (step(tensors, world), None), world, length=segment_length(env))[0]

        world = World(begin(env, key, sample, spec.sampled), start_warm)
        return jax.lax.while_loop(lambda world: world.episode.running, some_steps, world).episode

    return episode


def segment_length(env: Env) -> int:
    """About `SEGMENT` control steps, such that whole segments fill the horizon with little left over."""
    return math.ceil(env.horizon / math.ceil(env.horizon / SEGMENT))


def power_of_two(number: int) -> int:
    """The smallest power of two that is not below `number`."""
    return 1 << (number - 1).bit_length()


def _default_device() -> Any:
    chosen = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(chosen, str):  # the name of a platform
        return jax.local_devices(backend=chosen)[0]
    return chosen or jax.local_devices()[0]


def _step(env: Env, spec: PolicySpec, discount: float) -> Callable[[mlp.Tensors, World], World]:
    """One control step of one world; a world whose episode has ended stays as it is."""
    move = advance(env)

    def step(tensors: mlp.Tensors, world: World) -> World:
        # TF32 would change returns, and MuJoCo's own code promotes ranks.
        with jax.default_matmul_precision("highest"), jax.numpy_rank_promotion("allow"):
            episode, action, control = act(env, spec, tensors, world.episode)
            qpos, qvel, warmstart = move(world, control)
            after = Physics(qpos, qvel, action, qpos - episode.physics.qpos)
            stepped = World(account(env, discount, episode, after), warmstart)
        return jax.tree.map(lambda new, old: jnp.where(world.episode.running, new, old), stepped, world)

    return step


def advance(env: Env) -> Advance:
    """The physics of one control step of one world: `substeps` physics steps under the same control."""
    if env.dynamics is not None:
        dynamics = env.dynamics

        def advance_own(world: World, control: Array) -> tuple[Array, Array, Array]:
            physics = world.episode.physics
            for _ in range(env.substeps):
                qpos, qvel = dynamics(physics, control)
                physics = physics._replace(qpos=qpos, qvel=qvel)
            return physics.qpos, physics.qvel, world.warmstart

        return advance_own

    library, model, template = _mjx(env)

    def advance_mjx(world: World, control: Array) -> tuple[Array, Array, Array]:
        def substep(carry, _):
            # All other fields of Data are either constant here or computed afresh by each step.
            qpos, qvel, warmstart = carry
            data = template.replace(qpos=qpos, qvel=qvel, qacc_warmstart=warmstart, ctrl=control)
            data = library.step(model, data)
            return (data.qpos, data.qvel, data.qacc_warmstart), None

        physics = world.episode.physics
        carry = (physics.qpos, physics.qvel, world.warmstart)
        return substep(carry, None)[0] if env.substeps == 1 else jax.lax.scan(substep, carry, length=env.substeps)[0]

    return advance_mjx


@lru_cache(maxsize=8)
def _mjx(env: Env) -> tuple[Any, Any, Any]:
    """The MJX library, the environment's model and a blank Data, as constants of whatever is traced."""
    with contextlib.redirect_stdout(io.StringIO()):  # it prints that an optional library is missing
        from mujoco import mjx  # imported late: takes seconds, and the native backend does without
    plain = copy(compile_model(env))
    if plain.opt.solver == mujoco.mjtSolver.mjSOL_PGS:
        plain.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON  # MJX has no PGS; both solve the same problem
    try:
        model = mjx.put_model(plain)
    except NotImplementedError as error:
        raise BackendError(f"MJX cannot run environment {env.name} ({error}); use `--backend native`.") from error
    with jax.ensure_compile_time_eval():
        return mjx, model, mjx.make_data(model)


def velocities(env: Env) -> int:
    """Length of the warm start; environments with their own dynamics have none."""
    return 0 if env.xml is None else _mjx(env)[1].nv


class _Compiled(NamedTuple):
    """The XLA functions of one block."""

    blank: Callable  # () → tensors, world
    load: Callable  # (tensors, world, slots, flat, seeds, numbers) → tensors, world
    segment: Callable  # (tensors, world) → world


@lru_cache(maxsize=32)
def _compiled(env: Env, spec: PolicySpec, discount: float, lanes: int, on_cpu: bool, sample: bool) -> _Compiled:
    """Compiled once for each set of arguments."""
    step, length = jax.vmap(_step(env, spec, discount)), velocities(env)

    def nobody() -> tuple[mlp.Tensors, World]:
        tensors, episode = blank(env, spec, lanes, sample)
        return tensors, World(episode, jnp.zeros((lanes, length)))

    def load(tensors, world, slots, flat, seeds, numbers):
        new = jax.vmap(lambda row: mlp.unflatten(spec, row))(flat)
        episode = jax.vmap(lambda seed, number: start(env, spec, seed, number, sample))(seeds, numbers)
        fresh = World(episode, jnp.zeros((len(flat), length)))
        return jax.tree.map(lambda old, value: put(old, slots, value), (tensors, world), (new, fresh))

    def segment(tensors, world):
        return jax.lax.scan(lambda world, _: (step(tensors, world), None), world, length=segment_length(env))[0]

    # Compiled ahead of the call: two threads that meet an uncompiled function would both compile it.
    lowered = jax.jit(segment, donate_argnums=1).lower(*jax.eval_shape(nobody))
    ready = lowered.compile(CPU_OPTIONS if on_cpu else None)
    return _Compiled(jax.jit(nobody), jax.jit(load, donate_argnums=(0, 1)), ready)


def _work(device: Any, queue: Queue, functions: _Compiled, chunk: int) -> None:
    """What each thread does: hand in, load, step, until the queue is empty and nobody runs."""
    item = np.full(chunk, -1)  # what each slot works on; −1: nothing
    with jax.default_device(device):
        tensors, world = functions.blank()
        while not queue.stop.is_set():
            running = np.asarray(world.episode.running)
            idle = np.flatnonzero(~running[:chunk])
            done = idle[item[idle] >= 0]
            if done.size:
                queue.finish(item[done], world.episode, done)
                item[done] = -1
            items = queue.take(idle.size)
            if items.size:
                size = max(LOAD, power_of_two(items.size))
                nowhere = running.size  # padding lands beyond the block and is dropped
                slots = np.pad(idle[: items.size], (0, size - items.size), constant_values=nowhere)
                tensors, world = functions.load(tensors, world, slots, *queue.inputs(items, size))
                item[idle[: items.size]] = items
            elif (item < 0).all():
                return
            world = functions.segment(tensors, world)
