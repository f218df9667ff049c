"""A data set of one row, damaged in every way: each bit flipped, each file cut at each length, removed and swapped."""

from __future__ import annotations

import dataclasses
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import epvf_data
from epvf_data.errors import DatasetError
from epvf_data.policies.spec import PolicySpec
from epvf_data.store import part as parts
from epvf_data.store.commit import read_chain
from epvf_data.store.root import read_root
from epvf_data.store.validate import leftovers, validate
from epvf_data.store.writer import Writer


def tiny_rows(make_rows, seed):
    rows = make_rows(1, seed, spec=PolicySpec(1, 1, ()), episodes=1, discount=0.9)
    return dataclasses.replace(
        rows, probe_states=np.full((1, 1), 0.5, np.float32), probe_actions=np.full((1, 1, 1), seed, np.float32)
    )


@pytest.fixture
def tiny(quick_path, make_rows, env) -> Path:
    """One row of three parameters with one probing state, in one commit."""
    path = quick_path / "tiny.zarr"
    with Writer.open(path, dataclasses.replace(env, observation_size=1, action_size=1)) as writer:
        writer.commit(tiny_rows(make_rows, 0), {})
    return path


@pytest.fixture
def pair(tiny, make_rows) -> Path:
    """Two such commits, and a third that replaces the first one's part."""
    with Writer.open(tiny, epvf_data.open(tiny).env) as writer:
        writer.commit(tiny_rows(make_rows, 1), {})
        writer.replace([epvf_data.open(tiny).parts[0].entry.id], [tiny_rows(make_rows, 0)], {})
    shutil.rmtree(tiny / "parts" / epvf_data.open(tiny).commits[0].add[0].id)
    return tiny


def files(path: Path) -> list[Path]:
    return sorted(item for item in path.rglob("*") if item.is_file())


def noticed(path: Path) -> str:
    """What `validate` says, or `leftovers`; empty where neither sees anything."""
    try:
        return "\n".join(validate(path, deep=True) or leftovers(path))
    except DatasetError as error:
        return str(error)


def narrow_check(path: Path, file: Path) -> Callable[[], object]:
    """The one step of reading that looks at this file: hundreds of thousands of validations would take an hour."""
    dataset = epvf_data.open(path)
    part = dataset.parts[0]
    kind, *rest = file.relative_to(path).parts
    inside = "/".join(rest[1:])
    if kind == "commits" and file.name != "zarr.json":
        return lambda: list(read_chain(path))
    if len(rest) < 2:
        return lambda: (read_root(path), list(read_chain(path)))
    if kind == "probes" and file.name != "zarr.json":
        return lambda: parts.read_probe(path, rest[0], dataset.commits[0].probes[rest[0]])
    if file.name == "zarr.json":
        named = part.entry.files if kind == "parts" else dataset.commits[0].probes[rest[0]]
        return lambda: parts._metadata((path / kind / rest[0]).__truediv__, inside, named, file)
    group = part.group
    return lambda: group.open(rest[1]).verify(0)


def flips(descriptor: int, data: bytes) -> Iterator[int]:
    """Flips one bit after the other in the file, each for the time that the caller looks at it."""
    for place, byte in enumerate(data):
        for bit in range(8):
            os.pwrite(descriptor, bytes([byte ^ 1 << bit]), place)
            yield 8 * place + bit
        os.pwrite(descriptor, data[place : place + 1], place)


def one_bit(descriptor: int, data: bytes) -> Iterator[int]:
    """Flips one bit of every byte, another one in each next byte."""
    for place, byte in enumerate(data):
        os.pwrite(descriptor, bytes([byte ^ 1 << place % 8]), place)
        yield place
        os.pwrite(descriptor, data[place : place + 1], place)


def cuts(descriptor: int, data: bytes) -> Iterator[int]:
    """Gives the file each smaller length, one more byte, and its own content twice."""
    for length in reversed(range(len(data))):
        os.truncate(descriptor, length)
        yield length
    for longer in (data + b"\0", data + data):
        os.pwrite(descriptor, longer, 0)
        yield len(longer)
    os.truncate(descriptor, len(data))


@pytest.mark.parametrize("damage", [pytest.param(flips, marks=pytest.mark.soak), one_bit, cuts])
def test_every_bit_and_every_length(tiny, damage):
    """All of them by the step of reading that must notice; a sample, first and last included, also by `validate`."""
    rng = np.random.default_rng(0)
    count = 0
    for file in files(tiny):
        data = file.read_bytes()
        check = narrow_check(tiny, file)
        check()
        last = len(data) * (8 if damage is flips else 1) - 1
        chosen = {0, last, *rng.integers(0, last, 3).tolist()}
        missed = []
        descriptor = os.open(file, os.O_RDWR)
        for number in damage(descriptor, data):
            count += 1
            try:
                check()
                missed.append(number)
            except DatasetError:
                pass
            if number in chosen:
                assert noticed(tiny), (file, number)
        os.close(descriptor)
        assert not missed, f"{file}: {len(missed)} changes were not noticed, the first is number {missed[0]}"
        assert file.read_bytes() == data
    assert noticed(tiny) == ""
    sizes = sum(file.stat().st_size for file in files(tiny))
    assert count == {flips: 8 * sizes, one_bit: sizes, cuts: sizes + 2 * len(files(tiny))}[damage]


def test_every_file_and_folder_removed(pair):
    """All but staging, which no reader needs; the newest record is missed by its part, which nobody names then."""
    aside = pair.parent / "aside"
    targets = [item for item in sorted(pair.rglob("*")) if "staging" not in item.parts]
    assert len(targets) > 150
    for target in targets:
        os.rename(target, aside)  # noqa: PTH104
        assert noticed(pair), target
        os.rename(aside, target)  # noqa: PTH104
    assert noticed(pair) == ""


def swap(one: Path, other: Path) -> None:
    aside = one.with_name("aside")
    os.rename(one, aside)  # noqa: PTH104
    os.rename(other, one)  # noqa: PTH104
    os.rename(aside, other)  # noqa: PTH104


def role(path: Path, item: Path) -> str:
    """What a file or folder is for, the same in all parts and in all records."""
    kind, *rest = item.relative_to(path).parts
    if kind == "commits" and item.suffix == ".json" and item.name != "zarr.json":
        return "record"
    return "/".join([kind, "*", *rest[1:]])


def same(one: Path, other: Path) -> bool:
    """Whether two files, or two folders, hold the same: then nobody can tell that they were exchanged."""
    if one.is_file():
        return one.read_bytes() == other.read_bytes()
    names = [file.relative_to(one) for file in files(one)]
    return names == [file.relative_to(other) for file in files(other)] and all(
        same(one / name, other / name) for name in names
    )


def test_every_swap(pair):
    """Files and folders of one role exchanged across parts and commits, files of one size also inside a part."""
    count = 0
    for one, other in itertools.combinations(sorted(pair.rglob("*")), 2):
        alike = role(pair, one) == role(pair, other)
        if one.is_file() and other.is_file() and not alike:
            siblings = one.relative_to(pair).parts[:2] == other.relative_to(pair).parts[:2]
            alike = siblings and one.stat().st_size == other.stat().st_size
        if one in other.parents or one.is_dir() != other.is_dir() or not alike or same(one, other):
            continue
        count += 1
        swap(one, other)
        assert noticed(pair), (one, other)
        swap(one, other)
    assert count > 90
    assert noticed(pair) == ""


def test_records_replayed_or_taken_from_elsewhere(pair, quick_path, make_rows):
    """A record under another number, an old part under a new name, a record of another data set."""
    records = sorted((pair / "commits").glob("[0-9]*.json"))
    shutil.copy(records[0], pair / "commits" / f"{len(records):08d}.json")
    assert "does not follow" in noticed(pair)
    (pair / "commits" / f"{len(records):08d}.json").unlink()
    other = quick_path / "other.zarr"
    with Writer.open(other, epvf_data.open(pair).env) as writer:
        for seed in range(3):
            writer.commit(tiny_rows(make_rows, seed), {})
    newest = records[-1].read_bytes()
    records[-1].write_bytes((other / "commits" / records[-1].name).read_bytes())
    assert noticed(pair)
    records[-1].write_bytes(newest)
    part = epvf_data.open(pair).parts[0].entry.id
    shutil.copytree(pair / "parts" / part, pair / "parts" / ("0" * 32))
    assert "in no commit record" in noticed(pair)
