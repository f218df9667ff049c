"""Counts the work that threads do side by side, tells of it, and makes them stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import Any

_TICK = 0.2  # seconds between reports of progress

Progress = Callable[[int, int], None]


@dataclass
class Meter:
    """Work done by all threads, in bytes or parts; `stopped` tells them to give up."""

    total: int
    progress: Progress | None = None
    done: int = 0
    stopped: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, count: int) -> None:
        """Work that a thread has done."""
        with self._lock:
            self.done += count

    def tell(self) -> None:
        """Calls `progress`, for which threads but the main one have no right."""
        if self.progress is not None:
            self.progress(min(self.done, self.total), self.total)

    def finish(self) -> None:
        """Tells that all is done."""
        self.done = self.total
        self.tell()

    def await_all(self, tasks: Sequence[Future[Any]]) -> None:
        """Returns when all are done, and tells how far they are meanwhile. Raises what the first one raised."""
        for task in tasks:
            while not task.done():
                wait([task], _TICK)
                self.tell()
            task.result()
