"""Progress on stderr: a bar on a terminal, a line now and then in a log file, nothing when quiet."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LOG_EVERY = 10.0  # seconds between lines where there is no terminal


class Bar:
    """`with Bar("collect", "episodes") as bar: bar.update(done, total, "210,000 env steps/s")`, from any one thread."""

    def __init__(self, name: str, unit: str, quiet: bool = False):
        self.name, self.unit, self.quiet = name, unit, quiet
        self.began = self.logged = time.perf_counter()
        self.bar: Progress | None = None

    def __enter__(self) -> Bar:
        if not self.quiet and sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.fields[note]}"),
            )
            times = (TextColumn("·"), TimeElapsedColumn(), TextColumn("· left"), TimeRemainingColumn())
            self.bar = Progress(*columns, *times, console=Console(stderr=True))
            self.bar.start()
            self.task = self.bar.add_task(self.name, total=None, note="starting")
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.bar is not None:
            self.bar.stop()

    def update(self, done: float, total: float, note: str = "") -> None:
        """Shows that `done` of `total` units are finished."""
        if self.bar is not None:
            self.bar.update(
                self.task, completed=done, total=total, note=note or f"{done:,.0f}/{total:,.0f} {self.unit}"
            )
            return
        now = time.perf_counter()
        if not self.quiet and (now - self.logged >= LOG_EVERY or done >= total):
            self.logged = now
            left = (now - self.began) * (total - done) / done if done else float("nan")
            print(
                f"{self.name}: {done:,.0f}/{total:,.0f} {self.unit}, {note + ', ' if note else ''}{left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )
