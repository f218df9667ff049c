"""Every field of every JSON file is changed in several ways, with all hashes made to fit: what contradicts is named."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from store import forge

import epvf_data
from epvf_data.errors import DatasetError
from epvf_data.store.validate import validate
from epvf_data.store.writer import Writer

Keys = tuple[Any, ...]

# What nothing else in a data set repeats, so that another value of the same type is no contradiction.
FREE = {
    "root": r"attributes/epvf_data/(created|env/(name|version|timestep|substeps|details/.*))",
    "record": r"created|provenance/.*",
    "part": r"attributes/epvf_data/(simulation/.*|discount|vocabularies/(source|law|base|run)/\d+)",
    "array": "never",
    "probe": "never",
}
# Objects of any content: members may come, go and change their type.
OPEN = {
    "root": r"attributes/epvf_data/env/details/.*",
    "record": r"provenance/.*",
    "part": r"attributes/epvf_data/simulation/.*",
    "array": "never",
    "probe": "never",
}


def walk(value: Any, keys: Keys = ()) -> Iterator[tuple[Keys, Any]]:
    """Every member of a JSON value, containers too. Of the files that a record lists only two are taken."""
    items = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    if len(items) > 20:
        items = items[:2]
    for key, inner in items:
        yield (*keys, key), inner
        yield from walk(inner, (*keys, key))


def changes(value: Any, *, member: bool) -> Iterator[tuple[str, Any]]:
    """Other values for a field: what was changed, and what to."""
    yield "delete", ...
    if member:
        yield "rename", ...
    for name, other in (("null", None), ("text", "text"), ("number", 7), ("list", [value]), ("object", {"x": value})):
        if not (
            other == value or (name == "number" and isinstance(value, (int, float)) and not isinstance(value, bool))
        ):
            yield name, other
    if isinstance(value, bool):
        yield "other", not value
    elif isinstance(value, (int, float)):
        yield from (
            ("other", value + 1 if isinstance(value, int) else value / 2),
            ("negative", -1 - value),
            ("huge", 10**30),
        )
    elif isinstance(value, str):
        yield "other", value[:-1] + ("0" if value[-1:] != "0" else "1")


def applied(whole: Any, keys: Keys, name: str, other: Any) -> Any:
    """A copy of a JSON value with one change."""
    whole = json.loads(json.dumps(whole))
    holder = whole
    for key in keys[:-1]:
        holder = holder[key]
    if name == "rename":
        holder[f"{keys[-1]}x"] = holder[keys[-1]]
    forge.put(whole, keys, other)
    return whole


def findings(path: Path) -> list[str]:
    """What `validate` says, if need be after reading every byte."""
    try:
        return validate(path) or validate(path, deep=True)
    except DatasetError as error:
        return [str(error)]


def may_pass(kind: str, keys: Keys, name: str) -> bool:
    path = "/".join(map(str, keys))
    if re.fullmatch(OPEN[kind], path) or (name == "object" and re.fullmatch(OPEN[kind], f"{path}/")):
        return True
    return name in ("other", "text", "huge", "number") and re.fullmatch(FREE[kind], path) is not None


@pytest.fixture
def store(quick_path, make_rows, env) -> Any:
    with Writer.open(quick_path / "a", env) as writer:
        for seed in range(2):
            provenance = {"versions": {"numpy": "2"}, "seeds": [1, 2], "note": None}
            writer.commit(make_rows(3 - seed, seed, probes=2, discount=0.5), provenance)
    return forge.Forge(quick_path / "a")


def targets(store: Any) -> dict[str, list[Path]]:
    part = store.part()
    return {
        "root": [store.path / "zarr.json"],
        "part": [part / "zarr.json"],
        "array": [part / "params" / "zarr.json", store.probe() / "states" / "zarr.json"],
        "probe": [store.probe() / "zarr.json"],
    }


EVERY = [5, pytest.param(1, marks=pytest.mark.soak)]  # every how many-th change is tried


@pytest.mark.parametrize("every", EVERY)
@pytest.mark.parametrize("kind", ["root", "part", "array", "probe"])
def test_every_field_of_zarr_metadata(store, kind, every):
    unnoticed, count = [], itertools.count()
    for file in targets(store)[kind]:
        good = json.loads(file.read_bytes())
        for keys, value in walk(good):
            for name, other in changes(value, member=isinstance(keys[-1], str)):
                if next(count) % every:
                    continue
                file.write_bytes(forge.dump(applied(good, keys, name, other)))
                store.seal(file)
                found = findings(store.path)
                if not found and not may_pass(kind, keys, name):
                    unnoticed.append((file.name, "/".join(map(str, keys)), name, other))
                assert all(str(store.path) in text and text.isprintable() for text in found), found
        file.write_bytes(forge.dump(good))
    store.seal()
    assert findings(store.path) == []
    assert unnoticed == []


@pytest.mark.parametrize("every", EVERY)
@pytest.mark.parametrize("number", [0, 1])
def test_every_field_of_a_record(store, number, every):
    """The records behind the changed one follow it, as an attacker would make them."""
    unnoticed, count = [], itertools.count()
    good = [json.loads(file.read_bytes()) for file in sorted((store.path / "commits").glob("0*.json"))]
    for keys, value in walk({key: value for key, value in good[number].items() if key != "sha256"}):
        for name, other in changes(value, member=isinstance(keys[-1], str)):
            if next(count) % every:
                continue
            store.write(number, applied(good[number], keys, name, other))
            if number == 0:
                store.write(1, {**good[1], "parent": forge.entry(store.path / "commits" / "00000000.json")[1]})
            found = findings(store.path)
            if not found and not may_pass("record", keys, name):
                unnoticed.append(("/".join(map(str, keys)), name, other))
            assert all(str(store.path) in text and text.isprintable() for text in found), found
    assert unnoticed == []


def test_columns_of_other_sizes_are_named(store, make_rows):
    """An array, its metadata and its hashes from another part: only the shapes contradict."""
    other = Writer.open(store.path.with_name("b"), epvf_data.open(store.path).env)
    other.commit(make_rows(3, 5, episodes=3, probes=3, discount=0.5), {})
    source = forge.Forge(other.path).part()
    for name in ("returns", "probe_actions", "lengths"):
        copied = {file: file.read_bytes() for file in (store.part() / name).rglob("*") if file.is_file()}
        for file in copied:
            file.write_bytes((source / file.relative_to(store.part())).read_bytes())
        store.seal()
        assert findings(store.path), name
        for file, data in copied.items():
            file.write_bytes(data)
    store.seal()
    assert findings(store.path) == []


def test_probing_states_of_another_number_are_named(store, make_rows):
    """Actions in two states, which name a set of three states that is there."""
    other = Writer.open(store.path.with_name("b"), epvf_data.open(store.path).env)
    other.commit(make_rows(3, 5, probes=3, discount=0.5), {})
    three = forge.Forge(other.path)
    three.probe().rename(store.path / "probes" / three.probe().name)
    store.records[0]["probes"] = three.records[0]["probes"]
    store.records[0]["add"][0]["probe"] = three.records[0]["add"][0]["probe"]
    store.change(store.part() / "zarr.json", ("attributes", "epvf_data", "probe"), three.records[0]["add"][0]["probe"])
    store.seal()
    assert any("2 probing states; its probe has 3" in text for text in findings(store.path))
