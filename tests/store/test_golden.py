"""Golden stores: one of every format version that was ever released, committed as files, must open for ever.

`python tests/store/test_golden.py` writes the one of the present version again. It gives the same bytes on every
machine: all values are exact in float32, names and times are fixed. A store of an older version is never written again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, tzinfo
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from unittest import mock
from uuid import UUID

import numpy as np
import pytest

import epvf_data
from epvf_data.policies.spec import Normaliser, PolicySpec
from epvf_data.store.digest import content_hash
from epvf_data.store.garbage import collect_garbage
from epvf_data.store.lineage import Lineage
from epvf_data.store.part import Part
from epvf_data.store.schema import FORMAT_VERSION, EnvIdentity, Rows, policy_id
from epvf_data.store.shard import Layout, Shard
from epvf_data.store.validate import validate
from epvf_data.store.writer import Writer

GOLDEN = Path(__file__).parents[1] / "golden"
CONTENT = {1: "4b6e1dd53c22efa741fa02a44816755dcf76ec17f00d03e8fe34ea21f62690f3"}  # format version → content hash
HORIZON = 8
ENV = EnvIdentity(
    "golden", "1", hashlib.sha256(b"golden").hexdigest(), 3, 2, HORIZON, 0.25, 2, {"größe": [1, 0.5, None]}
)
FIRST = PolicySpec(3, 2, (2,), "relu", "clip", normaliser=Normaliser((0.5, 0.0, -0.25), (2.0, 1.0, 0.5), 4.0))
SECOND = PolicySpec(3, 2, (), "tanh", "identity", bias=False)
ZSTD = 3


def noise(label: str, *shape: int) -> np.ndarray:
    """Whole numbers from 0 to 255 that depend on the label alone."""
    data = hashlib.shake_256(label.encode()).digest(int(np.prod(shape)))
    return np.frombuffer(data, np.uint8).astype(np.int64).reshape(shape)


def numbers(label: str, *shape: int) -> np.ndarray:
    """Multiples of 1/64 from −2 to 2, so that sums of a few products are exact in float32."""
    return ((noise(label, *shape) - 128) / 64).astype(np.float32)


def actions(spec: PolicySpec, params: np.ndarray, states: np.ndarray) -> np.ndarray:
    """Actions [rows, states, actions] of two-layer policies."""
    tensor = {name: params[:, slot.offset : slot.offset + slot.size] for name, slot in spec.tensors.items()}
    assert spec.normaliser is not None
    x = ((states - spec.normaliser.mean) / spec.normaliser.std).clip(-spec.normaliser.clip, spec.normaliser.clip)
    kernels = [tensor[f"layer_{i}/kernel"].reshape(-1, *spec.tensors[f"layer_{i}/kernel"].shape) for i in range(2)]
    x = np.maximum(np.einsum("ki,nij->nkj", x, kernels[0].astype(float)) + tensor["layer_0/bias"][:, None], 0)
    x = np.einsum("nki,nij->nkj", x, kernels[1].astype(float)) + tensor["layer_1/bias"][:, None]
    return x.clip(-1, 1).astype(np.float32)


def build(label: str, rows: int, spec: PolicySpec, lineage: Lineage, episodes: int, sparse: bool = False) -> Rows:
    params = numbers(f"{label} params", rows, spec.size)
    if sparse:
        params *= noise(f"{label} sparse", rows, spec.size) < 40
    kind = noise(f"{label} kind", rows, episodes) % 4  # 0 terminated, 1 and 2 truncated, 3 diverged
    returns = numbers(f"{label} returns", rows, episodes) * np.float32(16)
    lengths = np.where((kind == 1) | (kind == 2), HORIZON, noise(f"{label} lengths", rows, episodes) % HORIZON)
    result = Rows(
        spec=spec,
        params=params,
        returns=returns,
        lengths=lengths.astype(np.int32),
        terminated=kind == 0,
        truncated=(kind == 1) | (kind == 2),
        finite=kind != 3,
        reset_seed=(noise(f"{label} reset", rows, 2) * 16_843_009).astype(np.uint32),
        lineage=lineage,
        simulation={"backend": "none", "device": "paper", "dtype": "float32", "matmul_precision": "exact"},
    )
    if spec != FIRST:
        return result
    states = numbers("states", 3, 3)
    return replace(
        result,
        probe_states=states,
        probe_actions=actions(spec, params, states),
        discounted_returns=returns / np.float32(2),
        discount=0.5,
    )


def golden_rows() -> list[Rows]:
    """What the four parts that were written first hold: 5, 4 and 20 rows of one architecture, 2 of another."""
    plain = {"run": ["läuft", None] * 2, "iteration": [0, 1, 2, -1]}
    a = build("a", 5, FIRST, Lineage.build(5, source="random"), 2)
    b = build("b", 4, FIRST, Lineage.build(4, source=["random", "trained"] * 2, **plain), 2)
    c = build("c", 2, SECOND, Lineage.build(2, source="random", noise_seed=[1, 2**32 - 1]), 1)
    bases = [policy_id(FIRST, params) for params in a.params[:2]]
    lineage = Lineage.build(
        20,
        source="perturbed",
        law=["gaussian", "sparse"] * 10,
        base=[[*bases, None][i % 3] for i in range(20)],
        scale=0.125,
        sign=[1, -1, 0, 0] * 5,
        noise_seed=(noise("noise", 20, 2) * 16_843_009).astype(np.uint32),
    )
    return [a, b, c, build("d", 20, FIRST, lineage, 2, sparse=True)]


class FixedTime(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> FixedTime:
        return cls(2026, 1, 2, 3, 4, 5, tzinfo=tz)


def write_golden(path: Path) -> None:
    """Three commits: three parts; two of them joined into one; a compressed part. Replaced parts are gone."""
    a, b, c, d = golden_rows()
    ids = (UUID(bytes=hashlib.sha256(f"golden {number}".encode()).digest()[:16]) for number in count())
    with (
        mock.patch("epvf_data.store.writer.uuid", SimpleNamespace(uuid4=lambda: next(ids))),
        mock.patch("epvf_data.store.commit.datetime", FixedTime),
        mock.patch("epvf_data.store.creation.datetime", FixedTime),
    ):
        with Writer.open(path, ENV) as writer:
            old = writer.commit([a, b, c], {"command": "golden", "seed": 0}).add
            writer.replace([part.id for part in old[:2]], [Rows.concatenate([a, b])], {"joined": 2})
        with Writer.open(path, ENV, ZSTD) as writer:
            writer.commit(d, {"command": "golden", "größe": None})
    collect_garbage(path, grace=0)


def golden(version: int) -> Path:
    return GOLDEN / f"v{version}"


def files(root: Path) -> dict[str, bytes]:
    return {item.relative_to(root).as_posix(): item.read_bytes() for item in root.rglob("*") if item.is_file()}


def values(part: Part) -> Iterator[tuple[str, np.ndarray]]:
    for name in part.names:
        layout = part.layout(name)
        target = np.empty(layout.shape, layout.dtype)
        part.open(name).read(0, len(target), target)
        yield name, target


def test_there_is_one_of_every_version():
    assert sorted(item.name for item in GOLDEN.iterdir()) == [f"v{version}" for version in sorted(CONTENT)]
    assert max(CONTENT) == FORMAT_VERSION


@pytest.mark.parametrize("version", CONTENT)
def test_it_opens_and_says_what_it_said(version):
    assert validate(golden(version), deep=True) == []
    dataset = epvf_data.open(golden(version))
    assert content_hash(dataset) == CONTENT[version]
    assert dataset.env == ENV
    assert len(dataset.commits) == 3
    assert [len(record.remove) for record in dataset.commits] == [0, 2, 0]
    assert dataset.commits[2].provenance == {"command": "golden", "größe": None}


@pytest.mark.parametrize("version", CONTENT)
def test_every_value_is_the_one_that_was_written(version):
    a, b, c, d = golden_rows()
    found = epvf_data.open(golden(version)).parts
    for part, rows in zip(found, [Rows.concatenate([a, b]), c, d], strict=True):
        assert part.spec == rows.spec
        assert part.vocabularies == rows.lineage.vocabularies
        assert part.group.attributes["simulation"] == rows.simulation
        assert part.group.attributes["discount"] == rows.discount
        assert (part.probe_states is None) == (rows.probe_states is None)
        if rows.probe_states is not None:
            assert part.probe_states.tobytes() == rows.probe_states.tobytes()
        columns = dict(values(part))
        assert set(columns) == set(rows.columns())
        for name, expected in rows.columns().items():
            assert columns[name].dtype == expected.dtype
            assert columns[name].tobytes() == expected.tobytes(), name


def test_writing_it_again_gives_the_same_bytes(tmp_path):
    write_golden(tmp_path / "again")
    old, new = files(golden(FORMAT_VERSION)), files(tmp_path / "again")
    assert set(old) == set(new)
    packed = epvf_data.open(golden(FORMAT_VERSION)).parts[-1]
    last = "commits/00000002.json"
    for name in sorted(set(old) - {last}):
        if old[name] != new[name]:  # only what another version of zstd packs in another way may differ
            assert name.startswith(f"parts/{packed.entry.id}/")
            column = name.split("/")[2]
            assert unpack(golden(FORMAT_VERSION) / name, packed.layout(column)) == unpack(
                tmp_path / "again" / name, packed.layout(column)
            )
    records = [json.loads(data[last]) for data in (old, new)]
    for record in records:
        del record["sha256"], record["add"][0]["files"]
    assert records[0] == records[1]


def unpack(path: Path, layout: Layout) -> bytes:
    with path.open("rb") as file:
        shard = Shard(file.fileno(), layout, str(path))
        return b"".join(shard.chunk(chunk).tobytes() for chunk in range(layout.chunks))


@pytest.mark.parametrize("version", CONTENT)
def test_a_copy_can_be_continued(version, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(golden(version), copy)
    rows = build("e", 3, SECOND, Lineage.build(3, source="later"), 1)
    with Writer.open(copy, ENV) as writer:
        writer.commit(rows, {})
    assert validate(copy, deep=True) == []
    dataset = epvf_data.open(copy)
    assert len(dataset) == len(epvf_data.open(golden(version))) + 3
    assert dataset.table(SECOND).column("params")[-3:].tobytes() == rows.params.tobytes()


if __name__ == "__main__":
    shutil.rmtree(golden(FORMAT_VERSION), ignore_errors=True)
    write_golden(golden(FORMAT_VERSION))
    print(f"{golden(FORMAT_VERSION)}: content hash {content_hash(epvf_data.open(golden(FORMAT_VERSION)))}")
