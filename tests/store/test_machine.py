"""Any sequence of commits, faults, crashes, merges, compactions and garbage collections, against a list in memory."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from store import scenarios

import epvf_data
from epvf_data.curation.merge import merge
from epvf_data.errors import CorruptDatasetError, StorageError
from epvf_data.policies.spec import PolicySpec
from epvf_data.store.compact import compact
from epvf_data.store.digest import content_hash
from epvf_data.store.garbage import collect_garbage
from epvf_data.store.schema import Rows
from epvf_data.store.validate import leftovers, validate
from epvf_data.store.writer import Writer

KINDS = ({}, {"probes": 2}, {"spec": PolicySpec(4, 2, (5,))}, {"episodes": 1, "discount": 0.9})
GROUP = st.tuples(st.integers(0, 9), st.integers(1, 3), st.integers(0, len(KINDS) - 1))  # seed, rows, kind
GROUPS = st.lists(GROUP, min_size=1, max_size=2)
FAULT = st.tuples(st.integers(0, 400), st.sampled_from(["stop", "full", errno.EIO]))

Group = tuple[int, int, int]


@functools.cache
def rows_of(group: Group) -> Rows:
    seed, count, kind = group
    return scenarios.rows(count, seed, **KINDS[kind])


@functools.cache
def fresh_hash(groups: tuple[Group, ...]) -> str:
    """The content hash of a data set that was made of these rows in one go."""
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        with Writer.open(Path(folder) / "fresh", scenarios.ENV) as writer:
            if groups:
                writer.commit([rows_of(group) for group in groups], {})
        return content_hash(epvf_data.open(Path(folder) / "fresh"))


def stored(dataset: epvf_data.store.reader.Dataset) -> dict[str, bytes]:  # pyright: ignore
    """Architecture → the bytes of its parameters, in order."""
    return {
        item.id: b"".join(values.tobytes() for values in dataset.table(item.id).pieces("params"))
        for item in dataset.architectures
    }


def modelled(groups: tuple[Group, ...]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for rows in map(rows_of, groups):
        found[rows.spec.id] = found.get(rows.spec.id, b"") + rows.params.tobytes()
    return found


FOLDER = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


class Store(RuleBasedStateMachine):
    """`self.groups` is what the data set must hold. A reader from some steps ago is kept with what it saw then."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=FOLDER))
        self.path = self.folder / "0.zarr"
        self.groups: tuple[Group, ...] = ()
        self.writer: Writer | None = None
        self.collected = self.merges = 0

    @initialize(fault=FAULT)
    def create(self, fault):
        """The first try fails somewhere, or not; the second makes the data set."""
        with contextlib.suppress(StorageError, scenarios.Stopped), scenarios.Calls().fail(fault[0] // 8, fault[1]):
            Writer.open(self.path, scenarios.ENV)
        self.writer = Writer.open(self.path, scenarios.ENV)
        self.look_once()

    def teardown(self):
        shutil.rmtree(self.folder)

    def under_fault(self, fault, act) -> bool:
        """Whether `act` ended well; a stopped process needs a new writer."""
        try:
            with scenarios.Calls().fail(*fault):
                act()
        except StorageError:
            return False
        except scenarios.Stopped:
            self.writer = None
            return False
        return True

    def write(self) -> Writer:
        self.writer = self.writer or Writer.open(self.path, scenarios.ENV)
        return self.writer

    @rule(groups=GROUPS)
    def commit(self, groups):
        self.write().commit([rows_of(group) for group in groups], {})
        self.groups += tuple(groups)

    @rule(groups=GROUPS, fault=FAULT)
    def commit_under_fault(self, groups, fault):
        writer = self.write()
        done = self.under_fault(fault, lambda: writer.commit([rows_of(group) for group in groups], {}))
        # An error may come after the commit was published; all of its rows are there then.
        if done or epvf_data.open(self.path).rows > sum(count for _, count, _ in self.groups):
            self.groups += tuple(groups)

    @rule()
    def reopen(self):
        self.writer = None

    @rule(size=st.sampled_from([600, 1 << 20]))
    def compact(self, size):
        compact(self.path, target_bytes=size)

    @rule(fault=FAULT)
    def compact_under_fault(self, fault):
        self.under_fault(fault, lambda: compact(self.path))

    @rule(grace=st.sampled_from([0.0, 3600.0]))
    def collect_garbage(self, grace):
        report = collect_garbage(self.path, grace=grace)
        self.collected += report.parts if grace == 0 else 0
        if grace == 0:
            assert leftovers(self.path) == []
        else:
            assert (report.parts, report.staging, report.probes) == (0, 0, 0)

    @rule(fault=FAULT)
    def collect_garbage_under_fault(self, fault):
        self.collected += 1
        self.under_fault(fault, lambda: collect_garbage(self.path, grace=0))

    @rule()
    def lose_the_staging_folder(self):
        """A copy made by a tool that drops it; no writer has it open."""
        shutil.rmtree(self.path / "staging", ignore_errors=True)
        self.writer = None

    @precondition(lambda self: self.groups)
    @rule(groups=GROUPS, fault=FAULT)
    def merge(self, groups, fault):
        """With another data set that holds some rows of this one too; the first try fails somewhere, or not."""
        self.merges += 1
        out, other = self.folder / f"{self.merges}.zarr", self.folder / f"other{self.merges}.zarr"
        with Writer.create(other, scenarios.ENV) as writer:
            writer.commit([rows_of(group) for group in [*groups, self.groups[-1]]], {})
        if not self.under_fault(fault, lambda: merge([self.path, other], out)) and not (out / "zarr.json").exists():
            merge([self.path, other], out)
        shutil.rmtree(other)
        self.path, self.writer = out, None
        kept: dict[Group, Group] = {}  # a row is the same with probing actions (kind 1) and without (kind 0)
        for seed, count, kind in (*self.groups, *groups):
            kept.setdefault((seed, count, 0 if kind == 1 else kind), (seed, count, kind))
        self.groups = tuple(kept.values())
        self.look_once()

    @rule()
    def look_once(self):
        """An old reader is let go, and this moment's is kept."""
        self.reader, self.seen, self.collected = epvf_data.open(self.path), self.groups, 0

    @rule()
    def look_again(self):
        """The old reader sees what it saw, or says that the files are gone; refreshed, it sees what is there."""
        try:
            assert stored(self.reader) == modelled(self.seen)
        except CorruptDatasetError:
            assert self.collected
        self.reader = self.reader.refresh()
        self.seen, self.collected = self.groups, 0
        assert stored(self.reader) == modelled(self.groups)

    @invariant()
    def holds_the_rows(self):
        assert validate(self.path, deep=True) == []
        dataset = epvf_data.open(self.path)
        assert dataset.rows == sum(count for _, count, _ in self.groups)
        assert stored(dataset) == modelled(self.groups)
        assert content_hash(dataset) == fresh_hash(self.groups)


@pytest.mark.parametrize("examples", [6, pytest.param(150, marks=pytest.mark.soak)])
def test_the_store_holds_what_the_model_holds(examples):
    run_state_machine_as_test(
        Store,
        settings=settings(
            max_examples=examples,
            stateful_step_count=15,
            deadline=None,
            derandomize=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
