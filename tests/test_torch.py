"""PyTorch adapter: which worker reads what (needs no PyTorch), and the real thing where it is installed."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import epvf_data
import epvf_data.torch
from epvf_data.errors import ConfigError, DatasetError, MissingPackageError
from epvf_data.policies.spec import PolicySpec
from epvf_data.store.lineage import Lineage
from epvf_data.store.schema import EnvIdentity, Rows
from epvf_data.store.writer import Writer
from epvf_data.torch import Source, Stream, TorchDataset, seek, worker_shard

ENV = EnvIdentity("toy", "1", "d" * 64, 3, 1, 10, 0.1, 1, {})
COUNTS = (100, 1, 64, 200)
TOTAL = sum(COUNTS)
COLUMNS = ("params", "iteration", "finite", "noise_seed")


def build(count: int, first: int) -> Rows:
    """Rows that carry their number in `params` and `iteration`."""
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
        lineage=Lineage.build(count, source="count", iteration=numbers, noise_seed=[7, 2**32 - 1]),
        simulation={},
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    path: Path = tmp_path_factory.mktemp("torch") / "set.zarr"
    with Writer.open(path, ENV) as writer:
        for index, count in enumerate(COUNTS):
            writer.commit(build(count, sum(COUNTS[:index])), {})
    return path


def source(path: Path, *, rank: int = 0, ranks: int = 1, rows: np.ndarray | None = None, **settings) -> Source:
    dataset = epvf_data.open(path)
    settings = {"columns": COLUMNS, "batch_size": 16, "block_rows": 64, "pool_blocks": 2, **settings}
    return Source(path, dataset.commits, dataset.table().spec.id, rows, settings, rank, ranks)


def numbers(batches) -> list[int]:
    """The row numbers of some batches, after checking that `params` tells the same."""
    found = [np.asarray(batch["iteration"]) for batch in batches]
    for batch, expected in zip(batches, found, strict=True):
        np.testing.assert_array_equal(np.asarray(batch["params"])[:, 0], expected * 10)
    return np.concatenate([np.zeros(0, int), *found]).tolist()


@given(ranks=st.integers(1, 5), workers=st.integers(1, 5))
def test_every_worker_of_every_rank_has_its_own_shard(ranks, workers):
    shards = [worker_shard(rank, ranks, worker, workers) for rank in range(ranks) for worker in range(workers)]
    assert shards == [(index, ranks * workers) for index in range(ranks * workers)]
    for wrong in ((ranks, ranks, 0, workers), (0, ranks, workers, workers), (-1, ranks, 0, workers)):
        with pytest.raises(ConfigError, match="count from 0"):
            worker_shard(*wrong)


@settings(max_examples=25)
@given(
    ranks=st.integers(1, 3),
    workers=st.integers(1, 3),
    epoch=st.integers(0, 3),
    batch_size=st.integers(1, 90),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
    chosen=st.one_of(st.none(), st.sets(st.integers(0, TOTAL - 1), min_size=1)),
)
def test_each_row_once_an_epoch_over_all_workers(path, ranks, workers, epoch, batch_size, shuffle, drop_last, chosen):
    rows = None if chosen is None else np.array(sorted(chosen))
    found = []
    for rank in range(ranks):
        one = source(
            path, rank=rank, ranks=ranks, rows=rows, batch_size=batch_size, shuffle=shuffle, drop_last=drop_last
        )
        count = 0
        for worker in range(workers):
            stream = pickle.loads(pickle.dumps(Stream(one)))  # as a worker gets it
            batches = list(stream.batches(epoch, worker, workers))
            assert not drop_last or all(len(batch["params"]) == batch_size for batch in batches)
            count += len(batches)
            found += numbers(batches)
        assert one.batches(epoch, workers) == count
    assert len(set(found)) == len(found)
    if drop_last:
        assert set(found) <= (set(range(TOTAL)) if chosen is None else chosen)
    else:
        assert sorted(found) == (list(range(TOTAL)) if chosen is None else sorted(chosen))


def test_the_order_depends_on_the_epoch_alone(path):
    stream = Stream(source(path))
    first, again, second = (numbers(list(stream.batches(epoch))) for epoch in (0, 0, 1))
    assert first == again
    assert first != second
    assert numbers(list(Stream(source(path)).batches(1))) == second
    next(iter(stream.batches(1)))  # one who stops early
    assert numbers(list(stream.batches(0))) == first


@pytest.mark.parametrize("stop", [0, 1, 7, 23])
def test_a_state_goes_on_in_another_process(path, stop):
    first = Stream(source(path))
    running = first.batches(3)
    for _ in range(stop):
        next(running)
    state = json.loads(json.dumps(first.state(3)))
    second = pickle.loads(pickle.dumps(Stream(source(path))))
    second.load(state)
    assert second.state(0) == state
    second.seek(state["epoch"])  # the epoch that the state stands in changes nothing
    rest = numbers(list(running))
    assert numbers(list(second.batches(state["epoch"]))) == rest
    assert first.state(0) == second.state(0)
    assert second.state(0)["epoch"] == 4
    second.load(state)
    second.seek(9)  # another one forgets the state
    assert numbers(list(second.batches(9))) == numbers(list(Stream(source(path)).batches(9)))
    other = Stream(source(path, seed=5))
    other.load(state)
    with pytest.raises(DatasetError, match="another seed"):
        next(other.batches(0))


def test_rows_that_come_later_are_not_seen(tmp_path):
    with Writer.open(tmp_path / "a", ENV) as writer:
        writer.commit(build(70, 0), {})
        before = Stream(source(tmp_path / "a"))
        writer.commit(build(70, 70), {})
    assert sorted(numbers(list(before.batches(0)))) == list(range(70))
    assert sorted(numbers(list(Stream(source(tmp_path / "a")).batches(0)))) == list(range(140))


def test_counting_batches_reads_no_rows(path):
    loader = source(path).loader(columns=())
    seek(loader, 5)
    assert len(loader) == -(-TOTAL // 16)
    assert loader.state()["epoch"] == 5
    assert not any(len(part.mapped) for part in loader.table.parts)


@pytest.mark.skipif(epvf_data.torch._torch is not None, reason="PyTorch is installed")
def test_without_pytorch_there_is_one_clear_sentence(path):
    with pytest.raises(MissingPackageError, match=r"pip install 'epvf-data\[torch\]'"):
        TorchDataset(path, batch_size=8)


class TestWithPyTorch:
    """Runs where PyTorch is installed."""

    @pytest.fixture(autouse=True)
    def torch(self):
        return pytest.importorskip("torch")

    @staticmethod
    def dataset(path, **settings):
        return TorchDataset(path, columns=COLUMNS, batch_size=16, pool_blocks=2, **settings)

    def test_tensors_have_the_columns_dtypes_and_values(self, torch, path):
        dataset = self.dataset(path)
        batch = next(iter(torch.utils.data.DataLoader(dataset, batch_size=None)))
        assert {name: value.dtype for name, value in batch.items()} == {
            "params": torch.float32,
            "iteration": torch.int32,
            "finite": torch.bool,
            "noise_seed": torch.uint32,
        }
        assert batch["params"].shape == (16, 4)
        assert batch["noise_seed"].numpy().tolist() == [[7, 2**32 - 1]] * 16
        batch["params"] += 1  # the caller's to change

    def test_one_process(self, torch, path):
        dataset = self.dataset(path, workers=0)
        loader = torch.utils.data.DataLoader(dataset, batch_size=None)
        assert len(loader) == -(-TOTAL // 16)
        first, again = numbers(list(loader)), numbers(list(loader))
        dataset.set_epoch(1)
        second = numbers(list(loader))
        assert first == again
        assert first != second
        assert sorted(first) == sorted(second) == list(range(TOTAL))

    def test_state(self, torch, path):
        dataset = self.dataset(path)
        dataset.set_epoch(2)
        running = iter(torch.utils.data.DataLoader(dataset, batch_size=None))
        for _ in range(7):
            next(running)
        state = json.loads(json.dumps(dataset.state_dict()))
        other = self.dataset(path)
        other.load_state_dict(state)
        assert numbers(list(torch.utils.data.DataLoader(other, batch_size=None))) == numbers(list(running))
        with pytest.raises(DatasetError, match="no epoch"):
            other.load_state_dict({})

    def test_workers_of_two_ranks_read_each_row_once(self, torch, path):
        epochs = [[], []]
        for rank in range(2):
            dataset = self.dataset(path, rank=rank, ranks=2, workers=2)
            loader = torch.utils.data.DataLoader(
                dataset, batch_size=None, num_workers=2, persistent_workers=True, multiprocessing_context="spawn"
            )
            for epoch, found in enumerate(epochs):
                dataset.set_epoch(epoch)
                expected = len(loader)
                batches = list(loader)
                assert len(batches) == expected
                found.append(numbers(batches))
        for found in epochs:
            assert sorted(found[0] + found[1]) == list(range(TOTAL))
        assert epochs[0] != epochs[1]  # workers that live on learn of the new epoch

    def test_distributed_ranks_are_found(self, torch, path, tmp_path):
        if not torch.distributed.is_available():
            pytest.skip("this PyTorch has no torch.distributed")
        torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
        try:
            found = self.dataset(path)._stream.source
        finally:
            torch.distributed.destroy_process_group()
        assert (found.rank, found.ranks) == (0, 1)

    def test_wrong_settings(self, torch, path):
        with pytest.raises(ConfigError, match="come together"):
            self.dataset(path, rank=0)
        with pytest.raises(ConfigError, match="count from 0"):
            self.dataset(path, rank=2, ranks=2)
        with pytest.raises(ConfigError, match="counts from 0"):
            self.dataset(path).set_epoch(-1)
        with pytest.raises(TypeError, match="workers"):
            len(self.dataset(path))
        with pytest.raises(ConfigError, match="told workers=3"):
            next(iter(self.dataset(path, workers=3)))
        with pytest.raises(DatasetError, match="does not exist"):
            self.dataset(path / "nothing")
