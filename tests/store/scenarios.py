"""Everything that writes, interrupted at every system call: helpers of the tests, and a program that they start.

`python scenarios.py SCENARIO FAULT FOLDER FIRST STEP` runs one scenario again and again in FOLDER, with the fault at
system call FIRST, FIRST + STEP, … until it runs through, and prints the number of faults. Without arguments it runs all
of them at every call, which takes some minutes, and prints one JSON line. It imports no jax: a process with JAX's
threads must not fork.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import epvf_data
from epvf_data.curation.merge import merge
from epvf_data.errors import DatasetError, StorageError
from epvf_data.store.compact import compact
from epvf_data.store.digest import content_hash
from epvf_data.store.garbage import collect_garbage
from epvf_data.store.validate import leftovers, validate
from epvf_data.store.writer import Writer

_source = importlib.util.spec_from_file_location("store_helpers", Path(__file__).with_name("conftest.py"))
assert _source is not None
assert _source.loader is not None
helpers = importlib.util.module_from_spec(_source)
_source.loader.exec_module(helpers)
ENV, rows = helpers.ENV, helpers.build_rows

FAULTS = ("kill", "full", "EIO")
REMOVING = ("unlink", "rmdir")
CREATING = ("open", "write", "fsync", "fdatasync", "rename", "replace", "link", "mkdir")


class Stopped(BaseException):
    """Stands for the end of the process inside a process that goes on."""


class Calls:
    """Counts the calls of `os` that change a disk and does something at call number `at`.

    `fault` is an errno that this call fails with; "full": ENOSPC from then on for all but removals; "kill": SIGKILL;
    "stop": this call and all later ones raise Stopped, so that no clean-up can run, as after a kill.
    """

    def __init__(self) -> None:
        self.count = 0
        self.at: int | None = None
        self.fault: int | str = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def fail(self, at: int | None, fault: int | str) -> Iterator[None]:
        """Inside the block the calls are counted from 0, and number `at` gets the fault."""
        self.count, self.at, self.fault = 0, at, fault
        real = {name: getattr(os, name) for name in (*CREATING, *REMOVING)}
        for name, function in real.items():
            setattr(os, name, self._wrap(name, function))
        try:
            yield
        finally:
            for name, function in real.items():
                setattr(os, name, function)

    def _wrap(self, name: str, real: Callable) -> Callable:
        def call(*args, **kwargs):
            if name != "open" or args[1] & os.O_CREAT:
                with self._lock:
                    number, self.count = self.count, self.count + 1
                if self.at is not None and number >= self.at:
                    self._strike(name, number == self.at)
            return real(*args, **kwargs)

        return call

    def _strike(self, name: str, first: bool) -> None:
        if self.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "stop":
            raise Stopped
        if self.fault == "full" and name not in REMOVING:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if isinstance(self.fault, int) and first:
            raise OSError(self.fault, os.strerror(self.fault))


class Scenario(NamedTuple):
    """What is prepared once, and what is done to `data.zarr` in a copy of it under faults. `act` gets the folder."""

    prepare: Callable[[Path], None]
    act: Callable[[Path], object]


def _nothing(folder: Path) -> None:
    """The data set does not exist yet."""


def _commits(path: Path, count: int) -> None:
    with Writer.open(path, ENV) as writer:
        for step in range(count):
            writer.commit(rows(1, step), {"step": step})


def _garbage(folder: Path) -> None:
    """Every kind of garbage: a part that was replaced, a record's second name, an orphan of a part and of probes."""
    path = folder / "data.zarr"
    with Writer.open(path, ENV) as writer:
        first = writer.commit(rows(1, 1, probes=1), {}).add[0]
        live = writer.replace([first.id], [rows(1, 2)], {}).add[0]
    shutil.copytree(path / "probes" / str(first.probe), path / "probes" / ("0" * 64))
    (path / "parts" / ("1" * 32)).mkdir()
    shutil.copy(path / "parts" / live.id / "zarr.json", path / "parts" / ("1" * 32))
    shutil.copytree(path / "parts" / live.id / "params", path / "staging" / ("2" * 32))
    os.link(path / "commits" / "00000000.json", path / "staging" / ("3" * 32 + ".json"))


def _sources(folder: Path) -> None:
    _commits(folder / "one.zarr", 1)
    with Writer.open(folder / "two.zarr", ENV) as writer:
        writer.commit(rows(2, 5, spec=helpers.PolicySpec(4, 2, (5,)), probes=1), {})


def _create(folder: Path) -> None:
    with Writer.open(folder / "data.zarr", ENV):
        pass


def _create_whole(folder: Path) -> None:
    with Writer.create(folder / "data.zarr", ENV) as writer:
        writer.commit(rows(1, 1), {})


def _commit(folder: Path) -> None:
    with Writer.open(folder / "data.zarr", ENV) as writer:
        writer.commit(rows(1, 2, probes=2), {})


SCENARIOS = {
    "create": Scenario(_nothing, _create),
    "create-whole": Scenario(_nothing, _create_whole),
    "commit": Scenario(lambda folder: _commits(folder / "data.zarr", 1), _commit),
    "compact": Scenario(lambda folder: _commits(folder / "data.zarr", 2), lambda folder: compact(folder / "data.zarr")),
    "garbage": Scenario(_garbage, lambda folder: collect_garbage(folder / "data.zarr", grace=0)),
    "merge": Scenario(_sources, lambda folder: merge([folder / "one.zarr", folder / "two.zarr"], folder / "data.zarr")),
}


def state(folder: Path, deep: bool = True) -> object:
    """What `data.zarr` holds; None where nothing is visible. Raises AssertionError where it is damaged.

    The hashes of the files stand for the rows: `validate` compares them with the bytes.
    """
    path = folder / "data.zarr"
    if not (path / "zarr.json").exists():
        with contextlib.suppress(DatasetError):
            epvf_data.open(path)
            raise AssertionError(f"{path} opens although it is unfinished")
        return None
    assert validate(path, deep=deep) == []
    return [part.entry.files for part in epvf_data.open(path).parts]


def strangers(folder: Path) -> set[str]:
    """What lies in the folders of `data.zarr` and belongs to no live part."""
    path = folder / "data.zarr"
    dataset = epvf_data.open(path)
    needed = {part.entry.id for part in dataset.parts} | {
        probe for commit in dataset.commits for probe in commit.probes
    }
    found = {item.name for inner in ("staging", "parts", "probes") for item in (path / inner).iterdir()}
    return found - needed - {"zarr.json"}


def strike(folder: Path, scenario: Scenario, at: int, fault: str) -> str:
    """Runs the scenario with the fault at call `at`: "killed", "refused" (StorageError), "done", or "untouched"."""
    calls = Calls()
    if fault == "kill":
        return _killed(calls, folder, scenario, at)
    number = errno.ENOSPC if fault == "full" else getattr(errno, fault)
    try:
        with calls.fail(at, "full" if fault == "full" else number):
            scenario.act(folder)
    except StorageError as error:
        if os.strerror(number) not in str(error):
            raise
        return "refused"
    return "untouched" if calls.count <= at else "done"


def _killed(calls: Calls, folder: Path, scenario: Scenario, at: int) -> str:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with calls.fail(at, "kill"):
                scenario.act(folder)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), f"the child ended with status {status}"
    return "killed" if status else "untouched"


def every_call(name: str, fault: str, folder: Path, first: int, step: int) -> int:
    """The fault at call `first`, `first + step`, …: before or after, nothing in between; a retry works, nothing stays.

    Returns the number of faults.
    """
    scenario = SCENARIOS[name]
    template, whole, trial = folder / "template", folder / "whole", folder / "trial"
    template.mkdir(parents=True)
    scenario.prepare(template)
    shutil.copytree(template, whole)
    before = state(whole)
    scenario.act(whole)
    after, beside = state(whole), {item.name for item in whole.iterdir()}
    if before is not None:
        kept = content_hash(epvf_data.open(template / "data.zarr")) == content_hash(epvf_data.open(whole / "data.zarr"))
        assert kept == (name != "commit")
    at = first
    while True:
        shutil.copytree(template, trial)
        how = strike(trial, scenario, at, fault)
        found = state(trial)
        assert found == after or (how in ("killed", "refused") and found == before), f"{how} at call {at}: {found}"
        if found != after or before == after:
            scenario.act(trial)
        collect_garbage(trial / "data.zarr", grace=0)
        assert not strangers(trial), f"call {at} left {strangers(trial)}"
        assert leftovers(trial / "data.zarr") == []
        assert {item.name for item in trial.iterdir()} == beside
        assert state(trial, deep=False) == after
        shutil.rmtree(trial)
        if how == "untouched":
            return (at - first) // step
        at += step


def main() -> None:
    if len(sys.argv) > 1:
        print(every_call(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])))
        return
    memory = Path("/dev/shm")
    counts: dict[str, dict[str, int]] = {}
    for name in SCENARIOS:
        for fault in FAULTS:
            with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
                counts.setdefault(name, {})[fault] = every_call(name, fault, Path(folder), 0, 1)
    print(json.dumps({"benchmark": "system-calls", "faults": counts}))


if __name__ == "__main__":
    main()
