"""Episodes of many policies on the host's side: the loop's compiled function, fed by one thread a core."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt32

from epvf_data.envs.base import Env
from epvf_data.errors import BackendError
from epvf_data.physics import mjx, native
from epvf_data.physics.episode import Outcomes
from epvf_data.physics.loop import Block, Stepper, Work, finished, make_advance, make_block
from epvf_data.policies.kinds import Spec
from epvf_data.provenance import cores
from epvf_data.runtime import devices as usable

PLACES = 8  # times the lanes: episodes that a thread takes at once
DEVICE_LANES = 16384  # worlds stepped together on an accelerator
TURN = 0.2  # seconds after which a thread looks whether it shall stop

Progress = Callable[[int, int], None]  # (episodes, control steps) finished since the last call


def stepper_of(env: Env, backend: str) -> Stepper:
    """How the backend steps this environment. Raises BackendError where it cannot."""
    return native.stepper(env) if backend == "native" else mjx.stepper(env)


def play(
    env: Env,
    spec: Spec,
    params: Float[np.ndarray, "N P"],
    reset_seed: UInt32[np.ndarray, "N 2"],
    *,
    backend: str,
    episodes: int = 1,
    discount: float = 1.0,
    sample: bool = False,
    progress: Progress | None = None,
    lanes: int | None = None,
    threads: int | None = None,
    devices: int | None = None,
) -> Outcomes:
    """Rolls out `episodes` episodes of each policy: `native` on the CPU, `mjx` on all devices that JAX computes on, or
    on the first `devices` of them, a thread each.

    `lanes` worlds are stepped together. Another number compiles to other roundings; with the same one, a result on a
    CPU depends neither on its place nor on the other policies nor on `threads` (default: one a core) nor on `devices`.

    The first call of `native` asks JAX to run CPU computations on the calling thread (`jax_cpu_enable_async_dispatch`),
    which takes effect when no JAX computation ran before; it is worth a tenth of the speed.

    Raises BackendError for a model that the backend cannot run.
    """
    there = jax.local_devices(backend="cpu")[:1] if backend == "native" else usable()[:devices]
    queue = _Queue(params, reset_seed, episodes, progress, env.observation_size if sample else None)
    if not queue.items:
        return queue.outcomes
    if backend == "native":
        jax.config.update("jax_cpu_enable_async_dispatch", False)
    on_cpu = there[0].platform == "cpu"
    stepper = stepper_of(env, backend)
    if on_cpu:
        lanes = (lanes or stepper.lanes) + stepper.spare
        places = PLACES * lanes
        threads = 1 if stepper.single else threads or max(cores(), len(there))
        threads = min(threads, math.ceil(queue.items / lanes))
    else:
        share = math.ceil(queue.items / len(there))
        lanes, threads = lanes or min(DEVICE_LANES, _power_of_two(share)), min(len(there), queue.items)
        places = lanes * min(4, math.ceil(share / lanes))
        queue.most = share
    there = [there[number % len(there)] for number in range(threads)]
    work = [(env, one, queue, _compiled(env, spec, backend, discount, lanes, places, sample, one)) for one in there]
    if threads == 1:
        _work(*work[0], 1)
        return queue.outcomes
    futures = [_pool(threads).submit(_work, *one, threads if on_cpu else 1) for one in work]
    try:
        for future in futures:
            future.result()
    finally:
        queue.stop.set()  # Ctrl-C, or one thread failed: the others leave after their turn
        for future in futures:
            future.exception()
    return queue.outcomes


class _Functions(NamedTuple):
    """The compiled functions of one block, and how many places it has."""

    blank: Callable[[], Block]
    advance: Callable[[Block, Work, Any], tuple[Block, Any]]
    places: int


@lru_cache(maxsize=32)
def _compiled(
    env: Env, spec: Spec, backend: str, discount: float, lanes: int, places: int, sample: bool, device: Any
) -> _Functions:
    """Compiled once for each set of arguments, ahead of the call: two threads would both compile it.

    Of devices of one kind, all but the first find it in the cache of compiled functions.
    """
    stepper = stepper_of(env, backend)
    advance, blank = (
        make_advance(env, spec, stepper, discount, sample),
        make_block(env, spec, stepper, lanes, places, sample),
    )

    def turn(block: Block, work: Work, most: jax.Array) -> tuple[Block, jax.Array]:
        block = advance(block, work, most)
        return block, finished(block, work)

    shape, whole = jax.ShapeDtypeStruct, jnp.int32
    rows = shape((places, spec.size), jnp.float32), shape((places, 2), jnp.uint32)
    work: Any = Work(*rows, *(shape((places,), whole), shape((), whole)))  # pyright: ignore[reportArgumentType]
    options = dict(stepper.options) if device.platform == "cpu" and stepper.options else None
    with jax.default_device(device):
        lowered = jax.jit(turn, donate_argnums=0).lower(jax.eval_shape(blank), work, shape((), whole))
        return _Functions(jax.jit(blank).lower().compile(), lowered.compile(options), places)


def _work(env: Env, device: Any, queue: _Queue, functions: _Functions, sharers: int) -> None:
    """What each thread does: take episodes, play them turn by turn, hand in, until none is left.

    Raises BackendError for what MuJoCo refuses to step.
    """
    try:
        _play(device, queue, functions, sharers)
    except jax.errors.JaxRuntimeError as error:
        said = str(error).partition("MuJoCo: ")[2]  # mujoco_step.c begins like this
        if not said:
            raise
        raise BackendError(f"MuJoCo stopped in environment {env.name}: {' '.join(said.split())}.") from error


def _play(device: Any, queue: _Queue, functions: _Functions, sharers: int) -> None:
    with jax.default_device(device):
        segments = 1
        while not queue.stop.is_set() and (items := queue.take(functions.places, sharers)).size:
            block, work, done = functions.blank(), queue.work(items, functions.places), False
            while not done and not queue.stop.is_set():
                began = time.perf_counter()
                block, ready = functions.advance(block, work, np.int32(segments))
                done = bool(ready)
                # As many segments a turn as fill it: nobody waits long for Ctrl-C, and Python costs nothing.
                segments = max(1, int(segments * min(2.0, TURN / max(time.perf_counter() - began, 1e-9))))
            if done:
                queue.finish(items, block.ended)


class _Queue:
    """The episodes of one rollout, shared by threads; episode k of row r is item r · episodes + k."""

    def __init__(
        self,
        params: Float[np.ndarray, "N P"],
        reset_seed: UInt32[np.ndarray, "N 2"],
        episodes: int,
        progress: Progress | None,
        observation_size: int | None,
    ):
        self.params = np.ascontiguousarray(params, np.float32)
        self.reset_seed = np.ascontiguousarray(reset_seed, np.uint32)
        self.episodes, self.progress = episodes, progress
        self.outcomes = Outcomes.empty(len(self.params), episodes, observation_size)
        self.items = len(self.params) * episodes
        self.most = self.items  # that one thread takes at once
        self.stop = threading.Event()  # set when the threads shall leave early
        self._next = 0
        self._lock = threading.Lock()

    def take(self, most: int, sharers: int) -> np.ndarray:
        """The next items: at most `most`, and towards the end so few that all threads end together."""
        with self._lock:
            left = self.items - self._next
            count = min(most, self.most, left, max(1, math.ceil(left / (2 * sharers))) if sharers > 1 else left)
            self._next += count
            return np.arange(self._next - count, self._next)

    def work(self, items: np.ndarray, places: int) -> Work:
        """The items' policies, seeds and numbers, padded with the last one."""
        rows, numbers = np.divmod(np.pad(items, (0, places - items.size), mode="edge"), self.episodes)
        # Items come in a row: a full piece of single episodes needs no copy, which an accelerator would wait for.
        chosen = slice(rows[0], rows[-1] + 1) if rows[-1] - rows[0] == places - 1 else rows
        return Work(self.params[chosen], self.reset_seed[chosen], numbers.astype(np.int32), np.int32(items.size))  # pyright: ignore[reportArgumentType]

    def finish(self, items: np.ndarray, ended: Outcomes) -> None:
        """Writes how the items ended, and reports them."""
        rows, numbers = np.divmod(items, self.episodes)
        for target, field in zip(self.outcomes, ended, strict=True):
            if target is not None:
                target[rows, numbers] = np.asarray(field)[: items.size]
        if self.progress is not None:
            with self._lock:
                self.progress(len(items), int(np.asarray(ended.lengths)[: items.size].sum()))


@lru_cache(maxsize=4)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="epvf-rollout")


def _power_of_two(number: int) -> int:
    """The smallest power of two that is not below `number`."""
    return 1 << (number - 1).bit_length()
