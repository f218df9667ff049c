"""Progress on stderr: a bar on a terminal, a line now and then in a log file, nothing when quiet."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from epvf_data.untrusted import printable

LOG_EVERY = 10.0  # seconds between lines where there is no terminal


class Bar:
    """`with Bar("collect", "episodes") as bar: bar.update(done, total, steps, "env steps")`.

    Ctrl-C inside the block raises KeyboardInterrupt, and again at each update: Python swallows an interrupt that falls
    into a callback or a destructor, and the work would go on. With `patient`, the first Ctrl-C waits for the next
    update, so that the step under way is finished and can be saved; the second one raises at once.
    """

    def __init__(self, name: str, unit: str, quiet: bool = False, patient: bool = False):
        # A name may come from a stranger's recipe: it is no markup, and steers no terminal.
        self.name, self.unit, self.quiet, self.patient = printable(name, 40), unit, quiet, patient
        self.began = self.logged = time.perf_counter()
        self.bar: Progress | None = None
        self.interrupted = False
        self.handler: Any = None
        self.first: tuple[int, float, float] | None = None

    def __enter__(self) -> Bar:
        if threading.current_thread() is threading.main_thread():
            self.handler = signal.signal(signal.SIGINT, self._interrupt)
        if not self.quiet and sys.stderr.isatty():
            columns = (  # fits 80 characters
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=10),
                TaskProgressColumn(),
                TextColumn("{task.fields[note]}", markup=False),
                TextColumn("· left"),
                TimeRemainingColumn(compact=True),
            )
            self.bar = Progress(*columns, console=Console(stderr=True))
            self.bar.start()
            self.task = self.bar.add_task(self.name, total=None, note="starting")
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.handler is not None:
            signal.signal(signal.SIGINT, self.handler)
        if self.bar is not None:
            self.bar.stop()

    def _interrupt(self, number: int, frame: Any) -> None:
        if self.patient and not self.interrupted:
            self.interrupted = True
            print(f"{self.name}: stopping after this step; Ctrl-C again stops at once", file=sys.stderr, flush=True)
            return
        self.interrupted = True
        raise KeyboardInterrupt

    def update(self, done: float, total: float, count: float | None = None, what: str = "") -> None:
        """Shows that `done` of `total` units are finished, and `count` of `what` since the start as a rate."""
        if self.interrupted:
            raise KeyboardInterrupt
        now = time.perf_counter()
        elapsed = max(now - self.began, 1e-9)
        note = f"{done:,.0f}/{total:,.0f} {self.unit}"
        if count is not None:
            note += f" · {count / elapsed:,.0f} {what}/s"
        if self.bar is not None:
            self.bar.update(self.task, completed=done, total=total, note=note)
        elif not self.quiet and (now - self.logged >= LOG_EVERY or done >= total):
            self.logged = now
            left = f" · {elapsed * (total - done) / done:.0f} s left" if done and elapsed > 1 else ""
            print(f"{self.name}: {note}{left}", file=sys.stderr, flush=True)

    def epoch(self, event: Mapping[str, Any]) -> None:
        """Shows one training epoch: keys split, epoch, epochs, validation_loss (one number a seed)."""
        if event["epoch"] <= 1:
            self.began = time.perf_counter()
        losses = event["validation_loss"]
        self.unit = f"epochs ({printable(event['split'], 40)}) · validation loss {sum(losses) / len(losses):.3f}"
        self.update(event["epoch"], event["epochs"])

    def iteration(self, event: Mapping[str, Any]) -> None:
        """Shows one log entry of online training: returns, rate, where the time goes, time left."""
        shares = event["shares"]
        done = event["fraction"]
        parts = " ".join(
            f"{name} {100 * shares[name]:.0f} %" for name in ("rollout", "critic", "policy") if name in shares
        )
        if self.first is None:  # a resumed run has done part of the work before
            self.first = (event["env_steps"], done, time.perf_counter())
        steps, fraction, began = self.first
        elapsed = max(time.perf_counter() - began, 1e-9)
        note = (
            f"{event['iteration']:,} its · return {event['return_perturbed']:.1f} ({event['return_unperturbed']:.1f})"
            f" · {(event['env_steps'] - steps) / elapsed:,.0f} env steps/s"
        )
        if self.interrupted:
            raise KeyboardInterrupt
        now = time.perf_counter()
        if self.bar is not None:
            self.bar.update(self.task, completed=done, total=1.0, note=note)
        elif not self.quiet and (now - self.logged >= LOG_EVERY or done >= 1.0):
            self.logged = now
            left = f" · {elapsed * (1.0 - done) / (done - fraction):.0f} s left" if done > fraction else ""
            print(f"{self.name}: {note}{parts and f' · {parts}'}{left}", file=sys.stderr, flush=True)
