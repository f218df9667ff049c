"""Progress on stderr: a bar on a terminal, a line now and then in a log file, nothing when quiet."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from epvf_data.untrusted import printable

COMPILING = "compiling, up to a minute"  # what verbs say that compile before their first result
LOG_EVERY = 10.0  # seconds between lines where there is no terminal
WIDTH = 12  # of a column of the table above the bar
SETTLED = 3.0  # seconds after the first report, before which no rate and no time left is worth telling
# Ctrl-C, a cluster's time limit, a closed terminal, and the warnings before a time limit that jobs ask SLURM for: our
# script for USR1, submitit's for USR2.
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


@contextlib.contextmanager
def on_signal(handler: Callable[[int, Any], None] = signal.default_int_handler) -> Iterator[None]:
    """What Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 do in the block: Ctrl-C's KeyboardInterrupt, or what is given.

    Those that this process was started to ignore, as jobs in the background and under nohup are, stay ignored.
    """
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in _ENDING} if main else {}
    before = {number: old for number, old in before.items() if old not in (None, signal.SIG_IGN)}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


class Bar:
    """`with Bar("collect", "episodes") as bar: bar.update(done, total, steps, "env steps")`.

    Until the first report it says `waiting`. Rates and the time left count from that report on: what came before was
    compiling, or the work of a run that goes on.

    Ctrl-C inside the block (or another of `on_signal`) raises KeyboardInterrupt, and again at each update: Python
    swallows an interrupt that falls into a callback or a destructor, and the work would go on. With `patient`, the
    first one waits for the next update, so that the step under way is finished and can be saved; the second one raises
    at once.
    """

    def __init__(self, name: str, unit: str, quiet: bool = False, patient: bool = False, waiting: str = "starting"):
        # A name may come from a stranger's recipe: it is no markup, and steers no terminal.
        self.name, self.unit, self.quiet, self.patient = printable(name, 40), unit, quiet, patient
        self.waiting, self.logged = waiting, time.perf_counter()
        self.bar: Progress | None = None
        self.reminder: threading.Timer | None = None  # in a log file, where nothing tells of a long wait
        self.interrupted = False
        self.signals = on_signal(self._interrupt)
        self.phase: Any = None
        self.heads: list[str] = []  # of the table above the bar,
        self.told = 0.0  # whose last line came then
        self.first: tuple[float, float, float] | None = None  # when the first report came, work done and count then

    def __enter__(self) -> Bar:
        self.signals.__enter__()
        if not self.quiet and sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=10),
                TaskProgressColumn(),
                TextColumn("{task.fields[note]}", markup=False),
            )
            self.bar = Progress(*columns, console=Console(stderr=True))
            self.bar.start()
            self.task = self.bar.add_task(self.name, total=None, note=self.waiting)
        elif not self.quiet and self.waiting == COMPILING:
            self.reminder = threading.Timer(SETTLED, self._wait)
            self.reminder.daemon = True
            self.reminder.start()
        return self

    def _wait(self) -> None:
        if self.first is None:
            self._say(self.waiting)

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.signals.__exit__(None, None, None)
        if self.reminder is not None:
            self.reminder.cancel()
        self.pause()

    def pause(self) -> None:
        """Leaves the terminal to other lines until the next update."""
        if self.bar is not None:
            with contextlib.suppress(OSError):  # the terminal is gone
                self.bar.stop()

    def _interrupt(self, number: int, frame: Any) -> None:
        if self.patient and not self.interrupted:
            self.interrupted = True
            self._say("stopping after this step; Ctrl-C again stops at once")
            return
        self.interrupted = True
        raise KeyboardInterrupt

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError, RuntimeError):  # nobody reads it; or a signal came while a line was written
            print(f"{self.name}: {text}", file=sys.stderr, flush=True)

    def update(self, done: float, total: float, count: float | None = None, what: str = "", note: str = "") -> None:
        """Shows that `done` of `total` units are finished, a note, and how fast a `count` of `what` grows."""
        self._show(done, total, f"{done:,.0f}/{total:,.0f} {self.unit}{note}", count, what)

    def epoch(self, event: Mapping[str, Any]) -> None:
        """Shows one training epoch: keys split, epoch, epochs, validation_loss (one number a seed)."""
        if event["split"] != self.phase:
            self.phase, self.first = event["split"], None
        losses = event["validation_loss"]
        self.unit = f"epochs ({printable(event['split'], 40)})"
        cells = {"split": printable(event["split"], 12), "epoch": f"{event['epoch']:,}"}
        trained = event.get("train_loss", ())
        cells["training loss"] = f"{sum(trained) / len(trained):.4f}" if trained else "–"
        self._row({**cells, "validation loss": f"{sum(losses) / len(losses):.4f}"})
        self.update(event["epoch"], event["epochs"], note=f" · validation loss {sum(losses) / len(losses):.3f}")

    def run(self, event: Mapping[str, Any]) -> None:
        """Shows one log entry of a training run: iterations or, where those are no budget, environment steps; returns.

        Keys: env_steps, env_steps_total; where known iteration, iterations, fraction, return_perturbed and
        return_unperturbed, and in `shares` where the time goes.
        """
        steps, iterations = event["env_steps"], event.get("iterations")
        done, total, self.unit = steps, event["env_steps_total"], "env steps"
        if iterations:
            done, total, self.unit = event["iteration"], iterations, "iterations"
        note = f"{min(done, total):,}/{total:,} {self.unit}"
        if event.get("return_perturbed") is not None:
            note += f" · return {event['return_perturbed']:.1f}"
        if event.get("return_unperturbed") is not None:
            note += f" (unperturbed {event['return_unperturbed']:.1f})"
        kept = {"iteration": "iteration", "env steps": "env_steps"}
        cells = {name: f"{event[key]:,}" for name, key in kept.items() if key in event}
        kept = {"return of θ": "return_unperturbed", "perturbed": "return_perturbed", "best θ": "return_best"}
        self._row(cells | {name: f"{event[key]:.2f}" for name, key in kept.items() if event.get(key) is not None})
        shares = event.get("shares", {}) if self.bar is None else {}
        parts = [f"{name} {100 * shares[name]:.0f} %" for name in ("rollout", "critic", "policy") if name in shares]
        note += f" · {' '.join(parts)}" if parts else ""
        self._show(event.get("fraction", done / total), 1.0, note, steps, "env steps")

    def _row(self, cells: Mapping[str, str]) -> None:
        """On a terminal, a line of a table above the bar now and then, its heads first and again where they change."""
        now = time.perf_counter()
        if self.bar is None or (self.heads == [*cells] and now - self.told < LOG_EVERY):
            return
        widths = [max(len(name), WIDTH) for name in cells]
        lines = [cells.values()] if self.heads == [*cells] else [cells, cells.values()]
        for line in lines:
            row = "  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True))
            with contextlib.suppress(OSError):  # the terminal is gone
                self.bar.console.print(row, markup=False, highlight=False)
        self.heads, self.told = [*cells], now

    def _show(self, done: float, total: float, note: str, count: float | None, what: str) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        now = time.perf_counter()
        if self.first is None:
            self.first = (now, done, count or 0)
        began, before, counted = self.first
        elapsed = now - began
        if elapsed >= SETTLED and done > before:
            if count is not None:
                note += f" · {(count - counted) / elapsed:,.0f} {what}/s"
            if done < total:
                note += f" · {_time(elapsed * (total - done) / (done - before))} left"
        if self.bar is not None:
            self.bar.start()  # after a pause
            self.bar.update(self.task, completed=done, total=total, note=note)
        elif not self.quiet and (now - self.logged >= LOG_EVERY or done >= total):
            self.logged = now
            self._say(note)


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
