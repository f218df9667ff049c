"""MuJoCo C on all cores: every thread steps a block of worlds, each under its own policy, until no episode is left.

A thread alternates one XLA call (account, observe, act for its block of policies) and one MuJoCo call (a control step
of the worlds that still run), so one thread's policies overlap the other's physics, and a block's weights stay in
cache. A world whose episode ended leaves the MuJoCo call at once; its slot is given the next policy of the queue.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from functools import cache, lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Float, UInt32
from mujoco.rollout import Rollout

from epvf_data.envs.base import Env, Physics
from epvf_data.envs.model import compile_model
from epvf_data.errors import BackendError
from epvf_data.physics.episode import Outcomes, account, act
from epvf_data.physics.slots import Progress, Queue, blank, put, start
from epvf_data.policies import mlp
from epvf_data.policies.spec import PolicySpec

SLOTS = 128  # worlds a thread: enough to hide Python's cost a step, few enough for their weights to stay in cache
REFILL = 16  # finished slots are refilled this many at a time, so that one compiled function serves all


class Compiled(NamedTuple):
    """The three XLA functions of a block of `SLOTS` worlds."""

    blank: Callable
    load: Callable
    step: Callable


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
    threads: int | None = None,
) -> Outcomes:
    """Rolls out `episodes` episodes of each policy. Results do not depend on the number of threads nor on the batch.

    The first call asks JAX to run CPU computations on the calling thread (`jax_cpu_enable_async_dispatch`), which takes
    effect when no JAX computation ran before; it is worth a tenth of the speed.

    Raises BackendError for an environment that is not a MuJoCo model.
    """
    if env.xml is None:
        raise BackendError(f"environment {env.name} is not a MuJoCo model; use `--backend mjx` or `--backend auto`.")
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    threads = threads or len(os.sched_getaffinity(0))
    queue = Queue(params, reset_seed, episodes, progress, env.observation_size if sample else None)
    work = (load_model(env), env, compiled(env, spec, discount, sample), queue, threads)
    futures = [_pool(threads).submit(_work, *work) for _ in range(threads)]
    try:
        for future in futures:
            future.result()
    finally:
        queue.stop.set()  # Ctrl-C, or one thread failed: the others leave at their next step
        for future in futures:
            future.exception()
    return queue.outcomes


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="epvf-native")


@lru_cache(maxsize=8)
def load_model(env: Env) -> mujoco.MjModel:
    """The compiled model. MuJoCo's silent reset of a diverged world is off: we end the episode and flag the row."""
    model = copy(compile_model(env))
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
    if mujoco.get_mju_user_warning() is None:
        mujoco.set_mju_user_warning(lambda message: None)  # else MuJoCo writes MUJOCO_LOG.TXT in the working directory
    return model


@lru_cache(maxsize=32)
def compiled(env: Env, spec: PolicySpec, discount: float, sample: bool = False) -> Compiled:
    """Compiles nothing yet: jit does at the first call, once for each set of arguments."""

    def load(tensors, episode, slots, flat, seeds, numbers):
        """Puts new policies and fresh episodes into `slots`."""
        new = jax.vmap(partial(mlp.unflatten, spec))(flat)
        fresh = jax.vmap(partial(start, env, spec, sample=sample))(seeds, numbers)
        place = lambda old, value: put(old, slots, value)  # noqa: E731
        return jax.tree.map(place, tensors, new), jax.tree.map(place, episode, fresh), fresh.physics

    model = load_model(env)
    qpos, qvel = slice(1, 1 + model.nq), slice(1 + model.nq, 1 + model.nq + model.nv)  # of MuJoCo's full physics state

    def step(tensors, episode, action, state, moved, fresh):
        def one(tensors, episode, action, state, moved, fresh):
            stepped = account(env, discount, episode, Physics(state[qpos], state[qvel], action, moved))
            episode = jax.tree.map(lambda old, new: jnp.where(fresh, old, new), episode, stepped)
            return act(env, spec, tensors, episode)

        return jax.vmap(one)(tensors, episode, action, state, moved, fresh)

    empty = jax.jit(partial(blank, env, spec, SLOTS, sample))
    return Compiled(empty, jax.jit(load, donate_argnums=(0, 1)), jax.jit(step, donate_argnums=(1, 2)))


def _work(model: mujoco.MjModel, env: Env, functions: Compiled, queue: Queue, threads: int) -> None:
    """What each thread does: control step after control step until the queue is empty and nobody runs."""
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        block = _Block(model, env, functions, queue, threads)
        try:
            while block.advance() and not queue.stop.is_set():
                pass
        except BaseException:
            queue.stop.set()
            raise


class _Block:
    """One thread's `SLOTS` worlds."""

    def __init__(self, model: mujoco.MjModel, env: Env, functions: Compiled, queue: Queue, sharers: int):
        self.model, self.env, self.functions, self.queue, self.sharers = model, env, functions, queue, sharers
        self.data, self.mujoco = [mujoco.MjData(model)], Rollout(nthread=0)
        self.models = [model] * SLOTS
        size = mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_FULLPHYSICS.value)
        self.qpos, self.qvel = slice(1, 1 + model.nq), slice(1 + model.nq, 1 + model.nq + model.nv)
        self.state = np.zeros((SLOTS, size))
        self.single = np.zeros((SLOTS, size), np.float32)
        self.moved = np.zeros((SLOTS, model.nq), np.float32)
        self.warmstart = np.zeros((SLOTS, model.nv))
        self.after = np.zeros((SLOTS, env.substeps, size))
        self.control = np.zeros((SLOTS, env.substeps, model.nu))
        self.sensors = np.zeros((SLOTS, env.substeps, model.nsensordata))
        self.item = np.full(SLOTS, -1)  # what each slot works on; −1: nothing
        self.fresh = np.ones(SLOTS, bool)  # loaded, and no control step taken yet
        self.tensors, self.episode = functions.blank()
        self.action = jnp.zeros((SLOTS, env.action_size))

    def advance(self) -> bool:
        """One control step of every world that runs; False when nothing is left to do."""
        self.single[:] = self.state
        self.episode, self.action, control = self.functions.step(
            self.tensors, self.episode, self.action, self.single, self.moved, self.fresh
        )
        running = np.asarray(self.episode.running)
        live = np.flatnonzero(running)
        if live.size:
            self._physics(live, np.asarray(control))
        self.fresh[:] = False
        if SLOTS - live.size >= REFILL or not live.size:
            return self._refill(np.flatnonzero(~running)) or bool(live.size)
        return True

    def _physics(self, live: np.ndarray, control: np.ndarray) -> None:
        """Steps the live worlds, handing MuJoCo each world's last acceleration as the solver's warm start.

        `rollout` starts the solver cold otherwise, and with one Newton iteration that changes the physics. The last
        acceleration is Δqvel / timestep of the last substep, which is exact for explicit Euler.
        """
        count = live.size
        worlds = slice(None) if count == SLOTS else live  # a slice makes no copies
        before, after = self.state[worlds], self.after[:count]
        self.control[:count] = control[worlds, None]
        self.mujoco.rollout(
            self.models[:count],
            self.data,
            before,
            self.control[:count],
            skip_checks=True,
            nstep=self.env.substeps,
            initial_warmstart=self.warmstart[worlds],
            state=after,
            sensordata=self.sensors[:count],
        )
        last = before if self.env.substeps == 1 else after[:, -2]
        self.warmstart[worlds] = (after[:, -1, self.qvel] - last[:, self.qvel]) / self.model.opt.timestep
        self.moved[worlds] = after[:, -1, self.qpos] - before[:, self.qpos]
        self.state[worlds] = after[:, -1]

    def _refill(self, idle: np.ndarray) -> bool:
        """Hands in the results of idle slots and gives them new episodes; False when the queue was empty."""
        done = idle[self.item[idle] >= 0]
        if done.size:
            self.queue.finish(self.item[done], self.episode, done)
            self.item[done] = -1
        items = self.queue.take(idle.size, self.sharers)
        for begin in range(0, items.size, REFILL):
            self._load(idle[begin : begin + REFILL][: items.size - begin], items[begin : begin + REFILL])
        return bool(items.size)

    def _load(self, slots: np.ndarray, items: np.ndarray) -> None:
        targets = np.pad(slots, (0, REFILL - slots.size), constant_values=SLOTS)  # beyond the block: dropped
        self.tensors, self.episode, begun = self.functions.load(
            self.tensors, self.episode, targets, *self.queue.inputs(items, REFILL)
        )
        self.item[slots], self.fresh[slots] = items, True
        self.state[slots], self.warmstart[slots] = 0.0, 0.0
        self.state[slots, self.qpos] = np.asarray(begun.qpos)[: slots.size]
        self.state[slots, self.qvel] = np.asarray(begun.qvel)[: slots.size]
