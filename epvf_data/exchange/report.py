"""What the exports tell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Progress = Callable[[int, int], None]  # (rows done, all rows)


@dataclass(frozen=True)
class ExportReport:
    """What was written to `file`: `size` bytes with `rows` rows of `architectures` policy architectures."""

    file: str
    rows: int
    architectures: int
    size: int
