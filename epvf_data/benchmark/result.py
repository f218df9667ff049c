"""A result file: what a method did on a task, seed by seed. It may come from a stranger."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from epvf_data import outputs, untrusted
from epvf_data.benchmark.tasks import TASKS
from epvf_data.errors import ConfigError, FileError
from epvf_data.scoring.estimate import estimate
from epvf_data.untrusted import printable

FORMAT = 1
_LIMIT = 1 << 22  # bytes
_NEEDED = {"task": str, "group": str, "method": str, "small": bool, "seeds": list, "measures": dict, "data": dict}


def summary(seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean over seeds and 95 % interval (Student's t) of every measure; no interval where seeds do not differ."""
    found: dict[str, Any] = {}
    good = [one["measures"] for one in seeds if "measures" in one]
    for name in good[0] if good else ():
        values = np.array([one[name] for one in good if one.get(name) is not None], np.float64)
        if len(values):
            one = estimate(values, varies=len(values) > 1 and bool(np.ptp(values) > 0))
            found[name] = {"mean": one.mean, "interval": one.interval, "least": one.least, "greatest": one.greatest}
    return found


def write(path: Path, result: Mapping[str, Any]) -> None:
    """Writes the result in place of an earlier state of it."""
    outputs.write_bytes(path, (json.dumps(_plain(result), indent=2, allow_nan=False) + "\n").encode(), force=True)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def read(path: str | Path) -> dict[str, Any]:
    """A result. Raises FileError for a file that is none, or of a format or a task that is not known here."""
    try:
        found = untrusted.parse_json(untrusted.read_named(path, "result of a benchmark", _LIMIT), path)
        if found.get("format") != FORMAT:
            raise ConfigError(f"{printable(path, 300)} is no result of format {FORMAT}; write one with `bench run`.")
        for name, kind in _NEEDED.items():
            if not isinstance(found.get(name), kind):
                raise ConfigError(f"{printable(path, 300)} says nothing of its {name}; write it with `bench run`.")
        if found["task"] not in TASKS or TASKS[found["task"]].group != found["group"]:
            raise ConfigError(f"{printable(path, 300)} is of an unknown task, {printable(found['task'])}.")
        for name, one in found["measures"].items():
            _check_measure(path, name, one)
    except Exception as error:
        if isinstance(error, ConfigError):
            raise FileError(str(error)) from error
        raise
    return found


def _check_measure(path: str | Path, name: str, one: Any) -> None:
    numbers = [one.get("mean"), *(one.get("interval") or [0.0, 0.0])] if isinstance(one, dict) else [None]
    if len(numbers) != 3 or not all(isinstance(number, int | float) for number in numbers):
        raise ConfigError(f"{printable(path, 300)} has no numbers for {printable(name)}; write it with `bench run`.")
