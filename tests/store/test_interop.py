"""Other readers agree with ours: plain zarr, TensorStore, zarrs, and one written from docs/format.md alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import tensorstore
import zarr
from numcodecs.zstd import Zstd

import epvf_data
from epvf_data.errors import CorruptDatasetError
from epvf_data.policies.spec import Normaliser, PolicySpec
from epvf_data.store.lineage import Lineage
from epvf_data.store.schema import policy_id
from epvf_data.store.validate import validate
from epvf_data.store.writer import Writer

# ---- A reader by somebody who has read docs/format.md and nothing else: json, numpy, SHA-256, CRC-32C and zstd. ----


class BrokenError(Exception):
    """The data set is not what its documentation promises."""


def check(truth: object, what: object) -> None:
    if not truth:
        raise BrokenError(str(what))


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def stranger_records(root: Path) -> list[dict]:
    anchor, records, parent = (root / "zarr.json").read_bytes(), [], None
    check(json.loads(anchor)["attributes"]["epvf_data"]["format_version"] == 1, "a newer format")
    for number, file in enumerate(sorted((root / "commits").glob("*[0-9].json"))):
        data = file.read_bytes()
        body, _, tail = data.rpartition(b',"sha256":"')
        check(tail == sha(body).encode() + b'"}', f"{file} is not what was sealed")
        record = json.loads(data)
        check(file.name == f"{number:08d}.json" and record["number"] == number, f"{file} is out of order")
        check(record["parent"] == parent and record["root"] == sha(anchor), f"{file} belongs to another chain")
        records.append(record)
        parent = sha(data)
    return records


def stranger_array(folder: Path) -> np.ndarray:
    meta = json.loads((folder / "zarr.json").read_bytes())
    sharding = meta["codecs"][0]["configuration"]
    shape, (rows, *_) = meta["shape"], sharding["chunk_shape"]
    data = (folder / "/".join(["c", *["0"] * len(shape)])).read_bytes()
    count = -(-shape[0] // rows)
    table, chunks = data[-16 * count - 4 : -4], []
    check(google_crc32c.value(table) == int.from_bytes(data[-4:], "little"), f"{folder}: index")
    for offset, length in np.frombuffer(table, "<u8").reshape(-1, 2).tolist():
        stored, checksum = data[offset : offset + length - 4], data[offset + length - 4 : offset + length]
        check(google_crc32c.value(stored) == int.from_bytes(checksum, "little"), f"{folder}: chunk at {offset}")
        packed = any(codec["name"] == "zstd" for codec in sharding["codecs"])
        chunks.append(Zstd().decode(stored) if packed else stored)
    dtype = np.dtype(meta["data_type"]).newbyteorder("<")
    return np.frombuffer(b"".join(chunks), dtype).reshape(count * rows, *shape[1:])[: shape[0]]


def stranger_group(folder: Path, files: dict[str, list]) -> tuple[dict, dict[str, np.ndarray]]:
    found = {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    check({name: [len(data), sha(data)] for name, data in found.items()} == files, f"{folder}: other files")
    names = {name.split("/")[0] for name in files} - {"zarr.json"}
    attributes = json.loads(found["zarr.json"])["attributes"]["epvf_data"]
    return attributes, {name: stranger_array(folder / name) for name in names}


def stranger_parts(root: Path) -> Iterator[tuple[dict, dict[str, np.ndarray], np.ndarray | None]]:
    """Attributes, columns and probing states of each part, in row order, after all checks."""
    environment = json.loads((root / "zarr.json").read_bytes())["attributes"]["epvf_data"]["env"]["digest"]
    parts: list[dict] = []
    probes: dict[str, dict] = {}
    for record in stranger_records(root):
        place = min((i for i, part in enumerate(parts) if part["id"] in record["remove"]), default=len(parts))
        check(set(record["remove"]) <= {part["id"] for part in parts}, "removes what is not there")
        kept = [part for part in parts[place:] if part["id"] not in record["remove"]]
        parts, probes = [*parts[:place], *record["add"], *kept], {**probes, **record["probes"]}
    for part in parts:
        attributes, columns = stranger_group(root / "parts" / part["id"], part["files"])
        check(attributes["architecture"] == sha(canonical(attributes["policy"])), "architecture")
        check(all(attributes[key] == part[key] for key in ("architecture", "probe", "rows")), "attributes")
        check(attributes["environment"] == environment, "environment")
        check({len(column) for column in columns.values()} == {part["rows"]}, "lengths")
        for name, words in attributes["vocabularies"].items():
            lowest = -1 if name in ("base", "run") else 0
            check(lowest <= columns[name].min() and columns[name].max() < len(words), f"vocabulary of {name}")
        states = None
        if part["probe"] is not None:
            known, arrays = stranger_group(root / "probes" / part["probe"], probes[part["probe"]])
            states = arrays["states"]
            check(sha(canonical(list(states.shape)) + states.tobytes()) == part["probe"] == known["probe"], "probe")
        yield attributes, columns, states


def stranger_policy_id(architecture: str, params: np.ndarray) -> str:
    return sha(architecture.encode() + params.astype("<f4").tobytes())


def stranger_actions(policy: dict, params: np.ndarray, states: np.ndarray) -> np.ndarray:
    """The actions [states, actions] of one policy."""
    functions: dict[str, Callable] = {
        "tanh": np.tanh,
        "relu": lambda x: np.maximum(x, 0),
        "clip": lambda x: x.clip(-1, 1),
    }
    if (normaliser := policy["normaliser"]) is not None:
        states = ((states - normaliser["mean"]) / normaliser["std"]).clip(-normaliser["clip"], normaliser["clip"])
    for layer in policy["layers"]:
        kernel, bias = (
            params[slot["offset"] : slot["offset"] + np.prod(slot["shape"])].reshape(slot["shape"])
            for slot in (layer["tensors"]["kernel"], layer["tensors"]["bias"])
        )
        states = functions[layer["activation"]](states @ kernel + bias)
    return states


# ---- The others ----


def with_zarr(folder: Path) -> Any:
    return zarr.open_array(folder, mode="r")


def with_zarrs(folder: Path) -> Any:
    pytest.importorskip("zarrs")
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "codec_pipeline.strict": True}):
        array = zarr.open_array(folder, mode="r")
    assert type(array.async_array.codec_pipeline).__name__ == "ZarrsCodecPipeline"
    return array


class WithTensorStore:
    """A TensorStore array under NumPy's own syntax."""

    def __init__(self, folder: Path) -> None:
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(folder)}, "fill_missing_data_reads": False}
        self._array = tensorstore.open(spec).result()

    def __getitem__(self, where: Any) -> np.ndarray:
        return self._array[where].read().result()


READERS = {"zarr": with_zarr, "zarrs": with_zarrs, "tensorstore": WithTensorStore}
DEEP = PolicySpec(4, 2, (5,), activation="relu", output="clip", normaliser=Normaliser((0.1,) * 4, (0.5,) * 4, 2.0))


@pytest.fixture(params=[None, 3], ids=["plain", "zstd"])
def path(request, quick_path, make_rows, env, spec) -> Path:
    """Parts of 1 to 200 rows (all chunk sizes, with and without a shorter tail), two architectures, one replacement."""
    path = quick_path / "set.zarr"
    with Writer.open(path, env, request.param) as writer:
        first = make_rows(20, 0, probes=3, discount=0.9)
        bases = [policy_id(spec, params) for params in first.params[:3]]
        lineage = Lineage.build(
            130, source="perturbed", base=[bases[i % 3] for i in range(130)], run="läuft 1", sign=-1, iteration=3
        )
        writer.commit([first, replace(make_rows(130, 1, probes=3, discount=0.9), lineage=lineage)], {"step": 0})
        small = [with_actions(make_rows(count, count, spec=DEEP, episodes=1, probes=2)) for count in (1, 48)]
        old = writer.commit(small, {"step": 1}).add
        writer.commit([make_rows(count, count) for count in (64, 33)], {"step": 2})
        writer.replace([part.id for part in old], [with_actions(make_rows(49, 5, spec=DEEP, probes=2))], {"step": 3})
        writer.commit(make_rows(200, 7, episodes=3), {"step": 4})
    assert validate(path, deep=True) == []
    return path


def with_actions(rows):
    """The same rows with the actions that their policies really take."""
    actions = [stranger_actions(rows.spec.to_dict(), params, rows.probe_states) for params in rows.params]
    return replace(rows, probe_actions=np.stack(actions).astype(np.float32))


def ours(path: Path) -> Iterator[tuple[Path, np.ndarray]]:
    """Every array of a data set: its folder and what our reader says."""
    seen = set()
    for part in epvf_data.open(path).parts:
        for name in part.names:
            layout = part.layout(name)
            values = np.empty(layout.shape, layout.dtype)
            part.open(name).read(0, len(values), values)
            yield part.group.path / name, values
        if part.probe_states is not None and part.entry.probe not in seen:
            seen.add(part.entry.probe)
            yield path / "probes" / str(part.entry.probe) / "states", part.probe_states


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("reader", READERS)
def test_every_array_is_byte_equal(path, reader):
    dtypes, chunk_rows, tails = set(), set(), set()
    for folder, expected in ours(path):
        array = READERS[reader](folder)
        found = array[:]
        assert found.dtype == expected.dtype
        assert found.shape == expected.shape
        assert found.tobytes() == expected.tobytes(), folder
        middle = slice(len(expected) // 3, len(expected) // 2 + 1)
        assert array[middle].tobytes() == expected[middle].tobytes()
        meta = json.loads((folder / "zarr.json").read_bytes())
        rows = meta["codecs"][0]["configuration"]["chunk_shape"][0]
        dtypes.add(str(found.dtype))
        chunk_rows.add(rows)
        tails.add(len(expected) % rows > 0)
    assert dtypes == {"float32", "int32", "bool", "uint32", "uint16", "int8"}
    assert chunk_rows == {16, 32, 48, 64}
    assert tails == {True, False}


@pytest.mark.parametrize("compression", [None, 3], ids=["plain", "zstd"])
@pytest.mark.parametrize("reader", [*READERS, "ours"])
@pytest.mark.parametrize("name", ["params", "source", "finite"])
def test_a_flipped_bit_raises(quick_path, make_rows, env, reader, compression, name):
    """zarrs verifies a chunk only if it reads the whole shard, so the rows fill theirs here; see docs/format.md."""
    with Writer.open(quick_path / "a", env, compression) as writer:
        record = writer.commit(make_rows(128, 0), {})
    folder = quick_path / "a" / "parts" / record.add[0].id / name

    def read(folder: Path) -> np.ndarray:
        if reader == "ours":
            return epvf_data.open(quick_path / "a").table().column(name)
        return READERS[reader](folder)[:]

    shard = next(file for file in (folder / "c").rglob("*") if file.is_file())
    sound = shard.read_bytes()
    rng = np.random.default_rng(0)
    index = len(sound) - 2 * 16 - 4
    for place in [0, index - 1, index, index + 9, len(sound) - 1, *rng.integers(0, len(sound), 8).tolist()]:
        damaged = bytearray(sound)
        damaged[place] ^= 1 << rng.integers(8)
        shard.write_bytes(damaged)
        with pytest.raises(
            CorruptDatasetError if reader == "ours" else Exception, match=r"(?i)checksum|crc|range|shard"
        ):
            read(folder)


def test_a_reader_written_from_the_documentation_agrees(path):
    dataset = epvf_data.open(path)
    found = list(stranger_parts(path))
    assert len(found) == len(dataset.parts)
    assert [len(columns["params"]) for _, columns, _ in found] == [20, 130, 49, 64, 33, 200]
    ids, bases = set(), set()
    for part, (attributes, columns, states) in zip(dataset.parts, found, strict=True):
        assert attributes == part.group.attributes
        assert PolicySpec.from_dict(attributes["policy"]) == part.spec
        assert set(columns) == set(part.names)
        for name, values in columns.items():
            expected = np.empty(part.layout(name).shape, part.layout(name).dtype)
            part.open(name).read(0, part.entry.rows, expected)
            assert values.dtype == expected.dtype
            assert values.tobytes() == expected.tobytes()
        assert (states is None) == (part.probe_states is None)
        if states is not None:
            assert states.tobytes() == part.probe_states.tobytes()
        mine = [stranger_policy_id(attributes["architecture"], params) for params in columns["params"]]
        assert mine == [policy_id(part.spec, params) for params in columns["params"]]
        ids |= set(mine)
        bases |= {word for word in attributes["vocabularies"]["base"] if len(word) == 64}
        if part.spec == DEEP:
            expected = [stranger_actions(attributes["policy"], params, states) for params in columns["params"]]
            np.testing.assert_allclose(columns["probe_actions"], expected, atol=1e-6)
    assert len(bases) == 3
    assert bases <= ids
    assert found[1][0]["vocabularies"]["run"] == ["läuft 1"]


def test_a_reader_written_from_the_documentation_finds_damage(path):
    """One flipped bit in any file that counts."""
    dataset = epvf_data.open(path)
    live = {part.entry.id for part in dataset.parts}
    files = [path / "zarr.json", *(path / "commits").glob("*[0-9].json")]
    files += [file for part in sorted(live) for file in (path / "parts" / part).rglob("*") if file.is_file()]
    probes = {str(part.entry.probe) for part in dataset.parts if part.entry.probe}
    files += [file for probe in sorted(probes) for file in (path / "probes" / probe).rglob("*") if file.is_file()]
    rng = np.random.default_rng(0)
    for file in rng.permutation(np.array(files, object))[:60]:
        sound = file.read_bytes()
        damaged = bytearray(sound)
        damaged[rng.integers(len(sound))] ^= 1 << rng.integers(8)
        file.write_bytes(damaged)
        with pytest.raises((BrokenError, ValueError, KeyError)):
            list(stranger_parts(path))
        file.write_bytes(sound)
    for file in (path / "commits" / "00000000.json", path / "parts" / min(live) / "scale" / "c" / "0"):
        sound = file.read_bytes()
        file.unlink()
        with pytest.raises(BrokenError):
            list(stranger_parts(path))
        file.write_bytes(sound)
    assert len(list(stranger_parts(path))) == len(dataset.parts)
