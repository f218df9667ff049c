"""PyTorch: a data set as an `IterableDataset` whose ranks and workers read disjoint rows. Needs the extra `torch`."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from epvf_data.errors import ConfigError, DatasetError, require
from epvf_data.policies.kinds import Spec
from epvf_data.store.commit import CommitRecord
from epvf_data.store.loader import Loader
from epvf_data.store.reader import Dataset
from epvf_data.store.reader import open as open_dataset
from epvf_data.store.root import read_root

_torch: Any = importlib.import_module("torch") if importlib.util.find_spec("torch") else None
_Base: Any = object if _torch is None else _torch.utils.data.IterableDataset


def worker_shard(rank: int, ranks: int, worker: int, workers: int) -> tuple[int, int]:
    """The loader's shard (i, n) of one worker of one rank. Raises ConfigError where that is no worker or no rank."""
    if not (0 <= rank < ranks and 0 <= worker < workers):
        raise ConfigError(f"rank {rank} of {ranks} and worker {worker} of {workers} must each count from 0.")
    return rank * workers + worker, ranks * workers


@dataclass(frozen=True)
class Source:
    """What every worker needs to make its loader: one state of a data set, and the loader's settings. Picklable.

    `commits` are those that were there at the start, so that all workers read the same rows while others add some.
    """

    path: Path
    commits: tuple[CommitRecord, ...]
    architecture: str
    rows: np.ndarray | None
    settings: Mapping[str, Any]
    rank: int = 0
    ranks: int = 1

    def loader(self, worker: int = 0, workers: int = 1, **settings: Any) -> Loader:
        """The loader of one worker of this rank. `settings` override the own ones; none of them changes the order."""
        shard = worker_shard(self.rank, self.ranks, worker, workers)
        table = Dataset(self.path, read_root(self.path), self.commits).table(self.architecture)
        threads = None if shard[1] == 1 else 1  # several processes are threads enough
        return Loader(table, self.rows, shard=shard, threads=threads, **{**self.settings, **settings})

    def batches(self, epoch: int, workers: int) -> int:
        """How many batches the workers of this rank yield in one epoch, all together."""
        loader = self.loader(columns=())  # reads no rows
        seek(loader, epoch)
        shards = [worker_shard(self.rank, self.ranks, worker, workers) for worker in range(workers)]
        return sum(loader.batches(shard) for shard in shards)


def seek(loader: Loader, epoch: int) -> None:
    """Goes to the beginning of an epoch."""
    loader.restore({**loader.state(), "epoch": epoch, "batch": 0})


class Stream:
    """One process's place in the data set: its loader is made when it is needed first, and never pickled."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._pending: dict[str, Any] | None = None  # a loaded state that no iterator has taken up yet
        self._loader: Loader | None = None
        self._place = (0, 1)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loader": None}

    def batches(self, epoch: int, worker: int = 0, workers: int = 1) -> Iterator[dict[str, np.ndarray]]:
        """The worker's batches of an epoch, or the rest of the one that a loaded state stands in."""
        if self._loader is None or self._place != (worker, workers):
            self._loader, self._place = self.source.loader(worker, workers), (worker, workers)
        if self._pending is None:
            seek(self._loader, epoch)
        else:
            self._loader.restore(self._pending)
            self._pending = None
        yield from self._loader

    def state(self, epoch: int) -> dict[str, Any]:
        """Where this process stands, as JSON values; the beginning of `epoch` if it has not begun."""
        if self._pending is not None:
            return self._pending
        if self._loader is not None:
            return self._loader.state()
        loader = self.source.loader(columns=())
        seek(loader, epoch)
        return loader.state()

    def load(self, state: Mapping[str, Any]) -> None:
        """The next iterator goes on from `state`."""
        self._pending = dict(state)

    def seek(self, epoch: int) -> None:
        """The next iterator begins with `epoch`, unless a loaded state stands in that one already."""
        if self._pending is not None and self._pending["epoch"] != epoch:
            self._pending = None
        if self._loader is not None and self._loader.state()["batch"] == 0:
            seek(self._loader, epoch)


def _own_rank(rank: int | None, ranks: int | None) -> tuple[int, int]:
    """The given rank of so many, or else this process's in `torch.distributed`, or else 0 of 1."""
    if rank is not None and ranks is not None:
        return rank, ranks
    if rank is not None or ranks is not None:
        raise ConfigError("rank and ranks come together; one of them is missing.")
    distributed = _torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


class TorchDataset(_Base):
    """Batches of a data set's rows as dictionaries of tensors, for `DataLoader(TorchDataset(…), batch_size=None)`.

    Ranks and workers share out the blocks of one order, so each row comes once an epoch over all of them; they may
    differ by some batches, and each has its own last, smaller batch (left out with `drop_last`). The order depends on
    the seed and on `set_epoch`: as with PyTorch's own samplers, call it before each epoch, or all epochs are alike.
    The rows are those that were committed when this was made.

    `architecture`, `rows`, `columns`, `block_rows`, `pool_blocks`, `shuffle` and `seed` are as in `Dataset.table` and
    `Loader`. `rank` and `ranks` come from `torch.distributed` if that runs already. With `workers`, which must equal
    the DataLoader's `num_workers`, `len()` works. Every worker holds up to three pools in memory.

    Raises MissingPackageError without PyTorch, DatasetError or CorruptDatasetError as `epvf_data.open` and `Loader` do.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        batch_size: int,
        columns: Sequence[str] = ("params", "returns"),
        architecture: str | Spec | None = None,
        rows: np.ndarray | None = None,
        block_rows: int = 64,
        pool_blocks: int = 64,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        verify: bool = True,
        rank: int | None = None,
        ranks: int | None = None,
        workers: int | None = None,
    ) -> None:
        require("torch")
        super().__init__()
        settings = {
            "columns": tuple(columns),
            "batch_size": batch_size,
            "block_rows": block_rows,
            "pool_blocks": pool_blocks,
            "shuffle": shuffle,
            "seed": seed,
            "drop_last": drop_last,
            "verify": verify,
        }
        dataset = open_dataset(path)
        identity = dataset.table(architecture).spec.id
        source = Source(dataset.path.absolute(), dataset.commits, identity, rows, settings, *_own_rank(rank, ranks))
        source.loader(columns=())  # settings that make no sense are told here, not in a worker
        self._stream, self._workers = Stream(source), workers
        # Workers that stay alive between epochs see this change.
        self._epoch = _torch.zeros((), dtype=_torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Names the epoch that iterators made from now on yield; workers that live on learn of it."""
        if epoch < 0:
            raise ConfigError(f"the epoch is {epoch}; it counts from 0.")
        self._stream.seek(epoch)
        self._epoch.fill_(epoch)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """This worker's batches: column → tensor [batch, …]."""
        info = _torch.utils.data.get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        if self._workers is not None and max(1, self._workers) != workers:
            raise ConfigError(f"there are {workers} workers, but TorchDataset was told workers={self._workers}.")
        for batch in self._stream.batches(int(self._epoch), worker, workers):
            yield {name: _torch.from_numpy(value) for name, value in batch.items()}

    def __len__(self) -> int:
        """Batches that this rank's workers yield in the epoch that is set; epochs may differ by some.

        Raises TypeError without `workers`.
        """
        if self._workers is None:
            raise TypeError("TorchDataset has a length only if it is told `workers`, the DataLoader's num_workers.")
        return self._stream.source.batches(int(self._epoch), max(1, self._workers))

    def state_dict(self) -> dict[str, Any]:
        """Where this copy stands, as JSON values: meant for `num_workers=0`, or to be asked inside of the worker."""
        return self._stream.state(int(self._epoch))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The next iterator goes on from there, bit for bit. Raises DatasetError at that point if settings differ."""
        if not isinstance(state.get("epoch"), int):
            raise DatasetError("this is no state of a TorchDataset; it names no epoch.")
        self._stream.load(state)
        self._epoch.fill_(state["epoch"])
