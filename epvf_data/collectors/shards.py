"""Which rows one of many processes makes: shard i of N, as a person or a cluster's scheduler says."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import NamedTuple

from epvf_data.errors import ConfigError
from epvf_data.store.schema import BLOCK_ROWS
from epvf_data.untrusted import shown

MAX_SHARDS = 1 << 20
AUTO = "auto"
# The variables that schedulers set for each process: its number, how many there are, the first number, and the step.
_SCHEDULERS = (
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP"),
    ("JOB_COMPLETION_INDEX", "JOB_COMPLETIONS", "", ""),  # Kubernetes sets the first, its manifest may set the second
    ("RANK", "WORLD_SIZE", "", ""),
)


class Shard(NamedTuple):
    """Shard `index` (from 0) of `count`."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def of(self, rows: int) -> range:
        """This shard's numbers of so many rows: the shards are disjoint, together all, and of about equal size.

        The borders depend on the two counts alone, so that shards may differ in their batches; where there is enough
        for everybody they fall between the store's blocks of rows.
        """
        unit = BLOCK_ROWS if rows >= BLOCK_ROWS * self.count else 1
        first, end = (min(rows, -(-rows * i // self.count // unit) * unit) for i in (self.index, self.index + 1))
        return range(first, rows if self.index + 1 == self.count else end)


def parse(text: str, environ: Mapping[str, str] | None = None) -> Shard:
    """`i/N`, or `auto` for what the scheduler's variables say. Raises ConfigError where they say nothing, or half."""
    if text == AUTO:
        return _scheduled(os.environ if environ is None else environ)
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if match is None:
        raise ConfigError(f"--shard is {shown(text)}; expected I/N with I from 0 to N - 1, as 3/32, or {AUTO}.")
    return checked(int(match[1]), int(match[2]), f"--shard is {text}")


def checked(index: int, count: int, got: str) -> Shard:
    """The shard. Raises ConfigError, after what was `got`, where there can be none of these numbers."""
    if not (0 <= index < count <= MAX_SHARDS):
        raise ConfigError(f"{got}: shards are numbered from 0 to N - 1, and there are at most {MAX_SHARDS:,}.")
    return Shard(index, count)


def _scheduled(environ: Mapping[str, str]) -> Shard:
    for index, count, least, step in _SCHEDULERS:
        there = [name for name in (index, count) if environ.get(name)]
        if not there:
            continue
        if len(there) == 1:
            missing = count if there == [index] else index
            raise ConfigError(
                f"--shard {AUTO}: {there[0]} is set and {missing} is not; set both, or give --shard I/N yourself."
            )
        number, total, first, stride = (_whole(environ, name) for name in (index, count, least, step))
        place, rest = divmod(number - first, max(1, stride))
        if rest or not 0 <= place < total:
            raise ConfigError(
                f"--shard {AUTO}: {index}={number} is none of {total} evenly spaced numbers from {first} on; "
                "give --shard I/N yourself."
            )
        return checked(place, total, f"--shard {AUTO} is {place}/{total} by {index} and {count}")
    names = ", ".join(f"{index} with {count}" for index, count, *_ in _SCHEDULERS)
    raise ConfigError(f"--shard {AUTO}: no scheduler says which one this is ({names}); give --shard I/N.")


def _whole(environ: Mapping[str, str], name: str) -> int:
    text = environ.get(name, "") or "0"
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ConfigError(f"{name} is {shown(text)}; expected a whole number, or give --shard I/N.")
    return int(text)
