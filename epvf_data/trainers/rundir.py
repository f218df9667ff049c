"""A run directory: settings, versions, metrics, report. Each file appears whole or not at all."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from epvf_data import provenance
from epvf_data.config import completed, flatten
from epvf_data.errors import RunError, StorageError


def check_free(directory: Path) -> None:
    """Raises RunError unless a new run can go to this directory, that is, unless something is there already."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        is_run = (directory / "config.json").is_file()
        cure = "resume it with resume=True (--resume), or choose" if is_run else "choose"
        raise RunError(f"{directory} exists already; {cure} another directory for a new run.")


def create_run(directory: Path, settings: Mapping[str, Any]) -> None:
    """Makes the directory with config.json and versions.json in it, in one step. Raises RunError and StorageError."""
    check_free(directory)
    staging = directory.with_name(f".{directory.name}.{os.getpid()}")
    try:
        staging.mkdir(parents=True)
        write_json(staging / "config.json", settings)
        write_json(staging / "versions.json", versions())
        staging.replace(directory)
    except OSError as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise StorageError(f"the run directory {directory} cannot be made ({error}).") from error


def read_run(directory: Path, settings: type | None = None) -> dict[str, Any]:
    """The settings in config.json. Raises RunError when the directory holds no run.

    With the dataclass of its settings, those that the version that began it did not know are there at their defaults.
    """
    try:
        found = json.loads((directory / "config.json").read_text())
        return found if settings is None else {**found, "config": completed(settings, found["config"])}
    except FileNotFoundError as error:
        raise RunError(f"{directory} holds no run; name the directory of one, or start it without resume.") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{directory / 'config.json'} cannot be read ({error}); start a new run.") from error


def check_same(directory: Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises RunError, naming what differs, unless the run was started with these settings on this content."""
    if "dataset" in wanted and stored["dataset"]["content"] != wanted["dataset"]["content"]:
        raise RunError(
            f"{directory} was started on a data set of other content than {wanted['dataset']['path']}; "
            "give the same data set, or start a new run."
        )
    changes = differences(flatten(stored["config"]), flatten(wanted["config"]))
    if changes:
        raise RunError(f"{directory} was started with {changes}; resume with the same settings, or start a new run.")


def differences(before: Mapping[str, Any], now: Mapping[str, Any], free: frozenset[str] = frozenset()) -> str:
    """Settings that differ, old and new, as part of a sentence; those in `free` may differ. Empty where none does."""
    names = [name for name in sorted({*before, *now} - free) if before.get(name) != now.get(name)]
    return ", ".join(f"{name} {before.get(name)!r} (now {now.get(name)!r})" for name in names)


def versions() -> dict[str, str | None]:
    """Versions of what computes the result, the platform and the device."""
    return {**provenance.versions(), "platform": platform.platform(), "device": jax.devices()[0].device_kind}


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes the value beside `path`, fsyncs it and renames it into place. Refuses NaN and infinities."""
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    publish(path, lambda temporary: temporary.write_text(text))


def publish(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a file beside `path`, fsyncs it and renames it into place. Raises StorageError."""
    temporary = path.with_name(f".unfinished-{path.name}")
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise StorageError(f"{path} could not be written ({error}).") from error


def append_metrics(directory: Path, record: Mapping[str, Any]) -> None:
    """Adds one line to metrics.jsonl."""
    try:
        with (directory / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")
    except OSError as error:
        raise StorageError(f"metrics.jsonl in {directory} could not be written ({error}).") from error


def rewind_metrics(directory: Path, keep: Callable[[Mapping[str, Any]], bool]) -> None:
    """Drops the lines that `keep` refuses, and a line torn by a kill: training will write them again."""
    path = directory / "metrics.jsonl"
    if not path.is_file():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if keep(record):
            kept.append(line + "\n")
    publish(path, lambda temporary: temporary.write_text("".join(kept)))
