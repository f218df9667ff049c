"""A run directory: settings, versions, metrics, report. Each file appears whole or not at all.

A directory may come from a stranger: `read_run` is the door through which every verb opens one, and `read` and
`read_lines` are how its files are read.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from epvf_data import outputs, provenance, trees, untrusted
from epvf_data.code import Origin
from epvf_data.config import build, completed
from epvf_data.errors import ConfigError, DatasetError, RunError, StorageError, reason
from epvf_data.policies.own import plain
from epvf_data.untrusted import printable, shown

CONFIG, METRICS = "config.json", "metrics.jsonl"
COPY = "critic.py"  # of the file that a critic of the user's came from
POLICY = "policy"  # folder of the file that an architecture of the user's came from: its name is part of policies' ids
MAX_FILES, MAX_DEPTH = 100_000, 12
LARGEST = 1e30  # a number in a report or in metrics
MAX_LINE = 1 << 20  # bytes of a line of metrics


def check_free(directory: Path) -> None:
    """Raises RunError unless a new run can go to this directory, that is, unless something is there already."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        is_run = (directory / CONFIG).is_file()
        cure = "resume it (--resume), or choose" if is_run else "choose"
        raise RunError(f"{directory} exists already; {cure} another directory for a new run.")


def create_run(
    directory: Path, settings: Mapping[str, Any], critic: Origin | None = None, policy: Origin | None = None
) -> None:
    """Makes the directory with config.json and versions.json in it, in one step, and copies of the user's code: of his
    `critic` and of his `policy` architecture.

    Raises RunError and StorageError.
    """
    check_free(directory)
    directory = directory.absolute()
    _check_name(directory)
    staging = directory.with_name(f".{directory.name}.{secrets.token_hex(8)}.partial")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        staging.mkdir()
        try:
            write_json(staging / CONFIG, settings)
            write_json(staging / "versions.json", versions())
            if critic is not None:
                (staging / COPY).write_bytes(critic.text)
            if policy is not None:
                (staging / POLICY).mkdir()
                (staging / copy_of(policy.path)).write_bytes(policy.text)
            staging.replace(directory)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)  # made above, under a name that nobody knew
            raise
    except OSError as error:
        raise StorageError(f"the run directory {directory} cannot be made ({reason(error)}).") from error


def copy_of(policy: str) -> str:
    """Where in a run the copy of the file of a policy architecture lies."""
    return f"{POLICY}/{plain(Path(policy).name)}"


def lock(directory: Path) -> BinaryIO:
    """Holds a run until the file that this gives is closed. Raises RunError where another process holds it."""
    file = (directory / CONFIG).open("rb")
    for last in (False, True):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if last:
                file.close()
                told = f"another process trains {directory} at this moment; wait for it or stop it first."
                raise RunError(told) from None
            time.sleep(0.1)  # `is_held` asks for a moment only
        except OSError:
            break  # a file system without locks
        else:
            break
    return file


def is_held(directory: Path) -> bool:
    """Whether another process trains a run at this moment, as far as the file system has locks."""
    with (directory / CONFIG).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
    return False


def _check_name(directory: Path) -> None:
    """Raises RunError where a directory's name is not UTF-8: no checkpoint could be written or read there."""
    try:
        str(directory.absolute()).encode()
    except UnicodeError as error:
        raise RunError(f"the name {printable(directory, 300)} is not UTF-8; give the run another one.") from error


def check(directory: Path) -> None:
    """Raises RunError unless a run's directory holds plain files and folders only. It may itself be a link of the user.

    A link could make us read or write elsewhere, a pipe make us wait for ever.
    """
    _check_name(directory)
    try:
        for _ in trees.walk(directory, "run directory", MAX_FILES, MAX_DEPTH):
            pass
    except DatasetError as error:
        raise RunError(str(error)) from error


def check_folder(folder: Path) -> None:
    """Raises RunError unless a folder of runs, whose names nobody typed, is a plain one that holds nothing else."""
    try:
        if os.path.lexists(folder):
            untrusted.check_directory(folder, "folder of runs")
            check(folder)
    except DatasetError as error:
        raise RunError(str(error)) from error


def read_run(directory: Path, settings: type | None = None) -> dict[str, Any]:
    """What config.json holds, once the directory is `check`ed. Raises RunError when there is no run of a kind we know.

    With the dataclass of its settings these are checked, and those that the version that began it did not know are
    there at their defaults.
    """
    if not os.path.lexists(directory / CONFIG):
        raise RunError(f"{directory} holds no run; name the directory of one, or start it without --resume.")
    check(directory)
    found = read(directory / CONFIG)
    if not isinstance(found.get("config"), dict):
        raise RunError(f"{directory / CONFIG} holds no settings; start a new run.")
    return found if settings is None else {**found, "config": stored_settings(directory, settings, found["config"])}


def is_run(directory: Path) -> bool:
    """Whether a directory looks like a run's, from its files' names alone."""
    return os.path.lexists(directory / CONFIG) and not os.path.lexists(directory / "zarr.json")


def kind(directory: Path) -> str | None:
    """ "online" (PPO and SAC, too) or "offline"; None where there is no run of a kind we know. Raises RunError for a
    directory that holds what no run does."""
    if not os.path.lexists(directory / CONFIG):
        return None
    found = read_run(directory)
    if "dataset" in found:
        return "offline"
    return "online" if "env_digest" in found or found.get("kind") == "baseline" else None


def check_there(paths: Iterable[Path]) -> None:
    """Raises RunError for the first that does not exist."""
    if (missing := next((path for path in paths if not os.path.lexists(path)), None)) is not None:
        raise RunError(f"{missing} does not exist; check the name.")


def check_kind(directory: Path, wanted: str) -> None:
    """Raises RunError, with the cure, unless the directory holds a run of this kind, "online" or "offline"."""
    check_there([directory])
    if os.path.lexists(directory / "zarr.json"):
        raise RunError(f"{directory} is a data set, expected a run of train-{wanted}; `epvf-data info` tells about it.")
    found = kind(directory)
    if found == wanted:
        return
    if found is None:
        raise RunError(f"{directory} holds no run of train-{wanted}; name the directory of one.")
    does = {"online": "compare` and `plot` show its returns, `render` its best policy", "offline": "compare` shows it"}
    raise RunError(f"{directory} is a run of train-{found}, expected one of train-{wanted}; `epvf-data {does[found]}.")


def stored_settings(directory: Path, settings: type, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that a run has stored, complete, if they are settings of this kind at all. Raises RunError."""
    try:
        found = completed(settings, stored)
        build(settings, found)
    except ConfigError as error:
        raise RunError(f"{directory / CONFIG} cannot be used: {error}") from error
    return found


def read(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a run. Raises RunError where there is none."""
    try:
        return untrusted.parse_json(untrusted.read_bytes(path, what="run directory"), path)
    except DatasetError as error:
        raise RunError(str(error)) from error


def fits(value: Any, shape: Any) -> bool:
    """Whether a JSON value has a shape: a type (`float` takes any number of sensible size), a dictionary of the keys
    that must be there (`{str: shape}` for any keys), `[shape]` for a list, `[shape, shape]` for one of that length, or
    a tuple of choices.
    """
    if isinstance(shape, dict) and str in shape:
        return isinstance(value, dict) and all(fits(one, shape[str]) for one in value.values())
    if isinstance(shape, dict):
        return isinstance(value, dict) and all(key in value and fits(value[key], one) for key, one in shape.items())
    if isinstance(shape, list):
        right = isinstance(value, list) and len(shape) in (1, len(value))
        return right and all(fits(one, shape[place % len(shape)]) for place, one in enumerate(value))
    if isinstance(shape, tuple):
        return any(fits(value, one) for one in shape)
    if shape in (int, float):
        return isinstance(value, (int, shape)) and not isinstance(value, bool) and abs(value) <= LARGEST
    return value is None if shape is None else isinstance(value, shape)


def read_lines(directory: Path) -> Iterator[dict[str, Any]]:
    """The lines of metrics.jsonl. One torn by a kill, or that is no JSON object, is left out. Raises RunError."""
    path = directory / METRICS
    if not os.path.lexists(path):
        return
    try:
        with (
            untrusted.open_regular(path, what="run directory") as descriptor,
            open(descriptor, "rb", closefd=False) as file,
        ):
            while line := file.readline(MAX_LINE + 1):
                if len(line) > MAX_LINE:
                    raise RunError(f"{path} has a line of over {MAX_LINE >> 20} MiB; that is no file of metrics.")
                try:
                    yield untrusted.parse_json(line, path)
                except DatasetError:
                    continue
    except DatasetError as error:
        raise RunError(str(error)) from error


def differences(before: Mapping[str, Any], now: Mapping[str, Any], free: frozenset[str] = frozenset()) -> str:
    """Settings that differ, old and new, as part of a sentence; those in `free` may differ. Empty where none does."""
    names = [name for name in sorted({*before, *now} - free) if before.get(name) != now.get(name)]
    return ", ".join(f"{printable(name)} {shown(before.get(name))} (now {shown(now.get(name))})" for name in names)


def versions() -> dict[str, str | None]:
    """Versions of what computes the result, the platform and the device."""
    import jax  # imported late: whoever only reads a run does without

    return {**provenance.versions(), "platform": platform.platform(), "device": jax.devices()[0].device_kind}


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes the value as `publish` does. Raises RunError for NaN and infinities."""
    try:
        text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    except ValueError as error:
        raise RunError(f"{path} would hold numbers that are not finite; the run it is of is spoilt.") from error
    publish(path, lambda draft: draft.write_text(text, "utf-8"))


def publish(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a file beside `path`, fsyncs it and renames it into place. Raises StorageError."""
    with outputs.draft_file(path, force=True) as draft:
        write(draft)


def append_metrics(directory: Path, record: Mapping[str, Any]) -> None:
    """Adds one line to metrics.jsonl. Raises StorageError."""
    outputs.append_text(directory / METRICS, json.dumps(record, allow_nan=False) + "\n")


def rewind_metrics(directory: Path, keep: Callable[[Mapping[str, Any]], bool]) -> None:
    """Drops the lines that `keep` refuses, and a line torn by a kill: training will write them again."""
    kept = (json.dumps(record) + "\n" for record in read_lines(directory) if keep(record))
    if os.path.lexists(directory / METRICS):
        with outputs.draft_file(directory / METRICS, force=True) as draft, draft.open("w", encoding="utf-8") as file:
            file.writelines(kept)
