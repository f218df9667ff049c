"""The loader: each row once an epoch, the same order every time, and a place to go on from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import epvf_data
from epvf_data.errors import CorruptDatasetError, DatasetError
from epvf_data.policies.spec import PolicySpec
from epvf_data.store.lineage import Lineage
from epvf_data.store.loader import Loader, load_all
from epvf_data.store.schema import EnvIdentity, Rows
from epvf_data.store.splits import folds_by_lineage, split_by_lineage, split_iid
from epvf_data.store.table import Table
from epvf_data.store.writer import Writer

COUNTS = (100, 1, 64, 200)
TOTAL = sum(COUNTS)
COLUMNS = ("params", "returns", "base", "iteration")


def build(count: int, first: int) -> Rows:
    """Rows that carry their number in every column."""
    spec = PolicySpec(3, 1, ())
    numbers = np.arange(first, first + count)
    flags = np.ones((count, 2), bool)
    return Rows(
        spec=spec,
        params=(numbers[:, None] * 10 + np.arange(spec.size)).astype(np.float32),
        returns=np.stack([numbers, -numbers], 1).astype(np.float32),
        lengths=np.ones((count, 2), np.int32),
        terminated=flags,
        truncated=~flags,
        finite=flags,
        reset_seed=np.zeros((count, 2), np.uint32),
        lineage=Lineage.build(
            count, source="count", base=[f"family {number // 7}" for number in numbers], iteration=numbers
        ),
        simulation={},
    )


@pytest.fixture(scope="module", params=[None, 1], ids=["plain", "zstd"])
def table(request, tmp_path_factory) -> Table:
    path: Path = tmp_path_factory.mktemp("loader") / "set.zarr"
    with Writer.open(path, EnvIdentity("toy", "1", "d" * 64, 3, 1, 10, 0.1, 1, {}), request.param) as writer:
        first = 0
        for count in COUNTS:
            writer.commit(build(count, first), {})
            first += count
    return epvf_data.open(path).table()


def numbers(batches: list[dict[str, np.ndarray]]) -> np.ndarray:
    """The row numbers of an epoch, after checking that every column tells the same."""
    found = np.concatenate([batch["iteration"] for batch in batches])
    params = np.concatenate([batch["params"] for batch in batches])
    returns = np.concatenate([batch["returns"] for batch in batches])
    bases = np.concatenate([batch["base"] for batch in batches])
    np.testing.assert_array_equal(params, (found[:, None] * 10 + np.arange(4)).astype(np.float32))
    np.testing.assert_array_equal(returns, np.stack([found, -found], 1).astype(np.float32))
    np.testing.assert_array_equal(bases, found // 7)
    return found


@settings(max_examples=40, deadline=None)
@given(
    batch_size=st.integers(1, 500),
    block_rows=st.sampled_from([1, 64, 130, 1000]),
    pool_blocks=st.integers(1, 9),
    shards=st.integers(1, 4),
    resident=st.sampled_from([0, 1 << 20]),
    verify=st.booleans(),
    chosen=st.one_of(st.none(), st.sets(st.integers(0, TOTAL - 1), min_size=1)),
    seed=st.integers(0, 3),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
)
def test_each_row_once_an_epoch_over_disjoint_shards(
    table, batch_size, block_rows, pool_blocks, shards, resident, verify, chosen, seed, shuffle, drop_last
):
    rows = None if chosen is None else np.array(sorted(chosen))
    wanted = np.arange(TOTAL) if rows is None else rows
    loaders = [
        Loader(
            table,
            rows,
            columns=COLUMNS,
            batch_size=batch_size,
            block_rows=block_rows,
            pool_blocks=pool_blocks,
            shuffle=shuffle,
            seed=seed,
            shard=(index, shards),
            drop_last=drop_last,
            verify=verify,
            resident_bytes=resident,
        )
        for index in range(shards)
    ]
    for _ in range(2):
        parts = []
        lengths = [loaders[0].batches((index, shards)) for index in range(shards)]
        for loader, length in zip(loaders, lengths, strict=True):
            assert len(loader) == length
            batches = list(loader)
            assert len(batches) == length
            assert all(len(batch["params"]) == batch_size for batch in batches[:-1])
            parts.append(numbers(batches) if batches else np.zeros(0, np.int32))
            assert shuffle or (np.diff(parts[-1]) > 0).all()
        found = np.sort(np.concatenate(parts))
        if drop_last:
            assert len(np.unique(found)) == len(found) == sum(lengths) * batch_size
            assert len(wanted) - len(found) <= shards * (batch_size - 1)
            assert np.isin(found, wanted).all()
        else:
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("resident", [0, 1 << 20])
def test_order_depends_on_seed_and_epoch_only(table, resident):
    def epochs(seed, threads):
        loader = Loader(
            table, columns=COLUMNS, batch_size=50, pool_blocks=2, seed=seed, threads=threads, resident_bytes=resident
        )
        return [numbers(list(loader)).tolist() for _ in range(3)]

    one = epochs(5, 1)
    assert one == epochs(5, 4)
    assert one != epochs(6, 1)
    assert one[0] != one[1] != one[2]


def test_resident_and_mapped_columns_come_in_one_order(table):
    orders = [
        numbers(list(Loader(table, columns=COLUMNS, batch_size=32, pool_blocks=3, resident_bytes=size)))
        for size in (0, 500, 1 << 20)
    ]
    np.testing.assert_array_equal(orders[0], orders[1])
    np.testing.assert_array_equal(orders[0], orders[2])


def test_rows_are_mixed_beyond_their_block(table):
    loader = Loader(table, columns=COLUMNS, batch_size=60, pool_blocks=64)
    batches = [numbers([batch]) for batch in loader]
    assert all(len(np.unique(batch // 64)) >= 3 for batch in batches[:-1])
    steps = np.diff(np.concatenate(batches))
    assert np.mean(steps == 1) < 0.05


@settings(max_examples=60, deadline=None)
@given(
    stop=st.integers(0, 30),
    batch_size=st.integers(1, 60),
    block_rows=st.sampled_from([1, 64, 130]),
    pool_blocks=st.integers(1, 4),
    shard=st.sampled_from([(0, 1), (0, 2), (1, 2)]),
    chosen=st.one_of(st.none(), st.sets(st.integers(0, TOTAL - 1), min_size=TOTAL // 2)),
    seed=st.integers(0, 3),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
    resident=st.tuples(*[st.sampled_from([0, 1 << 20])] * 2),
    threads=st.tuples(*[st.integers(1, 3)] * 2),
)
def test_restore_goes_on_bit_for_bit(
    table, stop, batch_size, block_rows, pool_blocks, shard, chosen, seed, shuffle, drop_last, resident, threads
):
    """Also with other threads and other memory than before, which are no part of a loader's identity."""

    def loader(run):
        return Loader(
            table,
            None if chosen is None else np.array(sorted(chosen)),
            columns=COLUMNS,
            batch_size=batch_size,
            block_rows=block_rows,
            pool_blocks=pool_blocks,
            shuffle=shuffle,
            seed=seed,
            shard=shard,
            drop_last=drop_last,
            resident_bytes=resident[run],
            threads=threads[run],
        )

    def endless(source):
        while True:
            yield from source

    first = loader(0)
    assume(shuffle or len(first))  # else this shard never has a full batch
    stream = endless(first)
    for _ in range(stop):
        next(stream)
    state = json.loads(json.dumps(first.state()))
    second = loader(1)
    second.restore(state)
    assert second.state() == state
    resumed = endless(second)
    for _ in range(12):
        a, b = next(stream), next(resumed)
        assert first.state() == second.state()
        assert {name: value.tobytes() for name, value in a.items()} == {k: v.tobytes() for k, v in b.items()}


def test_without_shuffling_rows_come_in_order_each_epoch(table):
    loader = Loader(table, columns=COLUMNS, batch_size=50, pool_blocks=2, shuffle=False)
    rows = np.arange(TOTAL)
    assert [numbers(list(loader)).tolist() for _ in range(2)] == [rows.tolist()] * 2
    chosen = np.array([300, 7, 99, 100])
    assert numbers(list(Loader(table, chosen, columns=COLUMNS, batch_size=3, shuffle=False))).tolist() == [
        7,
        99,
        100,
        300,
    ]


def test_states_without_the_shuffle_setting_are_of_shuffling_loaders(table):
    first = Loader(table, columns=COLUMNS, batch_size=50)
    list(first)
    state = first.state()
    del state["settings"]["shuffle"]
    second = Loader(table, columns=COLUMNS, batch_size=50)
    second.restore(state)
    assert numbers(list(first)).tolist() == numbers(list(second)).tolist()
    with pytest.raises(DatasetError, match="another shuffle"):
        Loader(table, columns=COLUMNS, batch_size=50, shuffle=False).restore(state)


def test_batches_belong_to_the_caller(table):
    loader = Loader(table, columns=COLUMNS, batch_size=37, pool_blocks=1, resident_bytes=0)
    kept = list(loader)
    copies = [{name: value.copy() for name, value in batch.items()} for batch in kept]
    for batch in loader:
        batch["params"] += 1
    for batch, copy in zip(kept, copies, strict=True):
        assert batch["params"].tobytes() == copy["params"].tobytes()
    assert numbers(list(loader)).size == TOTAL


def test_drop_last_and_wrong_settings(table):
    batches = list(Loader(table, columns=COLUMNS, batch_size=100, drop_last=True))
    assert [len(batch["params"]) for batch in batches] == [100, 100, 100]
    for wrong in ({"batch_size": 0}, {"batch_size": 1, "shard": (2, 2)}, {"batch_size": 1, "seed": -1}):
        with pytest.raises(DatasetError, match="must be at least"):
            Loader(table, **wrong)
    for rows in ([], [0, 0], [-1], [TOTAL]):
        with pytest.raises(DatasetError, match="row numbers"):
            Loader(table, np.array(rows, int), batch_size=1)
    with pytest.raises(DatasetError, match="not in all parts"):
        Loader(table, columns=("nothing",), batch_size=1)
    with pytest.raises(DatasetError, match="another seed"):
        Loader(table, batch_size=1).restore(Loader(table, batch_size=1, seed=2).state())
    with pytest.raises(DatasetError, match="no loader state"):
        Loader(table, batch_size=1).restore({})
    with pytest.raises(DatasetError, match="count from 0"):
        Loader(table, batch_size=1).restore({**Loader(table, batch_size=1).state(), "batch": -1})


@pytest.mark.parametrize("resident", [0, 1 << 20])
def test_damage_raises_before_a_row_of_it_is_given(tmp_path, resident):
    with Writer.open(tmp_path / "a", EnvIdentity("toy", "1", "d" * 64, 3, 1, 10, 0.1, 1, {})) as writer:
        record = writer.commit(build(200, 0), {})
    shard = tmp_path / "a" / "parts" / record.add[0].id / "params" / "c" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[64 * 4 * 4 + 4 + 9] ^= 1  # in the second block
    shard.write_bytes(data)
    table = epvf_data.open(tmp_path / "a").table()
    seen: list[int] = []

    def read() -> None:
        for batch in Loader(table, columns=COLUMNS, batch_size=8, pool_blocks=1, resident_bytes=resident):
            seen.extend(batch["iteration"].tolist())

    with pytest.raises(CorruptDatasetError, match="rows from 64"):
        read()
    assert not set(seen) & set(range(64, 128))


def test_load_all(table):
    rows = np.array([5, 300, 100, 99])
    chosen = load_all(table, rows, COLUMNS)
    assert numbers([chosen]).tolist() == rows.tolist()
    assert numbers([load_all(table, columns=COLUMNS)]).tolist() == list(range(TOTAL))


@given(rows=st.integers(2, 300), fraction=st.floats(0.01, 0.99), seed=st.integers(0, 9))
def test_iid_split_is_a_partition(rows, fraction, seed):
    train, test = split_iid(rows, fraction, seed)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(rows))
    assert abs(len(test) - rows * fraction) <= 1
    assert len(train)
    assert len(test)
    again = split_iid(rows, fraction, seed)
    np.testing.assert_array_equal(test, again[1])


@given(
    groups=st.lists(st.integers(0, 20), min_size=2, max_size=300).filter(lambda groups: len(set(groups)) > 1),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 9),
)
def test_lineage_split_keeps_families_whole(groups, fraction, seed):
    labels = np.array(groups)
    train, test = split_by_lineage(labels, fraction, seed)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(len(groups)))
    assert len(train)
    assert len(test)
    assert not set(labels[train]) & set(labels[test])
    largest = np.bincount(labels).max()
    assert abs(len(test) - len(groups) * fraction) <= largest


@given(
    groups=st.lists(st.integers(0, 20), min_size=2, max_size=300).filter(lambda groups: len(set(groups)) > 1),
    folds=st.integers(2, 30),
    seed=st.integers(0, 9),
)
def test_folds_hold_every_family_out_once(groups, folds, seed):
    labels = np.array(groups)
    parts = folds_by_lineage(labels, folds, seed)
    assert len(parts) == min(folds, len(set(groups)))
    for train, test in parts:
        np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(len(groups)))
        assert len(train) > 0 < len(test)
        assert not set(labels[train]) & set(labels[test])
    np.testing.assert_array_equal(np.sort(np.concatenate([test for _, test in parts])), np.arange(len(groups)))
    sizes = [len(test) for _, test in parts]
    assert max(sizes) - min(sizes) <= np.bincount(labels).max()
    if folds >= len(set(groups)):
        assert all(len(set(labels[test])) == 1 for _, test in parts)  # leave one out


def test_split_refuses_one_family():
    with pytest.raises(DatasetError, match="two families"):
        folds_by_lineage(np.zeros(5, int), 3)
    with pytest.raises(DatasetError, match="two families"):
        split_by_lineage(np.zeros(5, int))
    with pytest.raises(DatasetError, match="two rows"):
        split_iid(1)
    with pytest.raises(DatasetError, match="between 0 and 1"):
        split_iid(5, 1.0)
