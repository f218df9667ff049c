"""Calls on an executor: the engine behind all that is spread over processes. Settings and paths travel, no arrays."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from typing import Any, Protocol

from epvf_data.errors import BackendError, StoppedError
from epvf_data.progress import on_signal

LOOK_EVERY = 0.2  # seconds between looks at the calls, which grow to
LOOK_AT_MOST = 5.0

Call = tuple[Any, ...]  # (function, its arguments); both have to be such that pickle takes
Told = Callable[[int, Any], None]  # (number of a call, what it gave)


class Handle(Protocol):
    """What an executor gives for a call: a `Future`, or what is like it."""

    def done(self) -> bool: ...
    def result(self) -> Any: ...
    def cancel(self) -> Any: ...


class Runs(Protocol):
    """`concurrent.futures.Executor`, or what has its `submit`."""

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> Handle: ...


def run_calls(
    calls: Sequence[Call],
    executor: Runs,
    *,
    told: Told | None = None,
    look: Callable[[int], None] | None = None,
) -> list[Any]:
    """What the calls give, in their order. `told` hears of each that has ended well, in the order in which they end,
    and `look(calls ended)` is called now and then while they run.

    The executor is any of `concurrent.futures`' kind: a process pool (of processes that are spawned, since JAX does not
    survive a fork), submitit's, dask's, mpi4py's, or one of `epvf_data.launch.executors`. In a worker JAX is set up as
    on the command line, and a signal (SIGTERM, SIGUSR1) is KeyboardInterrupt in the call; no other begins after that.

    Raises what the first of the calls that failed has raised, once all others have ended; BackendError where a worker
    died. Where this is interrupted, calls that have not begun never do; those that run are the executor's to end.
    """
    waiting = {number: executor.submit(in_worker, *call) for number, call in enumerate(calls)}
    results: list[Any] = [None] * len(waiting)
    errors: dict[int, BaseException] = {}
    pause, handles = LOOK_EVERY, list(waiting.values())
    try:
        while waiting:
            for number in [number for number, handle in waiting.items() if handle.done()]:
                try:
                    results[number] = waiting.pop(number).result()
                except BrokenExecutor as error:
                    errors[number] = BackendError("a worker died; what it saved stays, and the same command goes on.")
                    errors[number].__cause__ = error
                except Exception as error:
                    errors[number] = error
                else:
                    if told is not None:
                        told(number, results[number])
            if look is not None:
                look(len(results) - len(waiting))
            if waiting:
                time.sleep(pause)
                pause = min(1.2 * pause, LOOK_AT_MOST)
    except BaseException:
        for handle in handles:
            with contextlib.suppress(Exception):
                handle.cancel()
        raise
    if errors:
        raise errors[min(errors)]
    return results


class Worker:
    """What a process knows of itself that makes calls."""

    told = 0  # to stop, by the signal of this number
    patient = False  # and then waits for the end of a step
    pooled = False  # one of ours, which nobody needs once it was told to stop


def in_worker(function: Callable[..., Any], *arguments: Any) -> Any:
    """The call, as workers make it. Raises StoppedError where this process was told to stop."""
    from epvf_data.runtime import prepare

    if Worker.told:
        raise StoppedError("this worker was stopped.")
    prepare()
    try:
        with on_signal(_stop):
            return function(*arguments)
    except KeyboardInterrupt:
        raise StoppedError("stopped; what was saved stays, and the same command goes on.") from None
    finally:
        if Worker.told and Worker.pooled:
            # One that waits for its next call may have died with the queue's lock: this one would wait for ever.
            os._exit(StoppedError.exit_code)


def _stop(number: int, frame: Any) -> None:
    """A signal's handler. One that is sent to all processes comes once more from the one that began them."""
    first, Worker.told = not Worker.told, Worker.told or number
    if first and not Worker.patient:
        raise KeyboardInterrupt


@contextlib.contextmanager
def patiently() -> Iterator[Callable[[Any], None]]:
    """In a worker, a block in which a signal waits for the next call of what this gives, a training's `progress`: the
    step at hand is finished and can be saved."""

    def step(event: Any) -> None:
        if Worker.told:
            raise KeyboardInterrupt

    Worker.patient = True
    try:
        yield step
    finally:
        Worker.patient = False
