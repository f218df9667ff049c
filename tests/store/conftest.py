"""Small data sets for the tests of the store."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from epvf_data.policies.spec import PolicySpec
from epvf_data.store.lineage import Lineage
from epvf_data.store.schema import EnvIdentity, Rows
from epvf_data.store.writer import Writer

SPEC = PolicySpec(4, 2, (3,))
ENV = EnvIdentity("toy", "1", "d" * 64, 4, 2, 10, 0.1, 1, {"solver": "none"})


def build_rows(
    count: int,
    seed: int = 0,
    *,
    spec: PolicySpec = SPEC,
    episodes: int = 2,
    probes: int = 0,
    discount: float | None = None,
) -> Rows:
    """Random rows that differ from seed to seed; probing states are the same for all seeds."""
    rng = np.random.default_rng(seed)
    terminated = rng.random((count, episodes)) < 0.5
    lengths = np.where(terminated, rng.integers(1, 10, (count, episodes)), 10).astype(np.int32)
    returns = rng.standard_normal((count, episodes), dtype=np.float32)
    return Rows(
        spec=spec,
        params=rng.standard_normal((count, spec.size), dtype=np.float32),
        returns=returns,
        lengths=lengths,
        terminated=terminated,
        truncated=~terminated,
        finite=np.ones((count, episodes), bool),
        reset_seed=rng.integers(0, 2**32, (count, 2), dtype=np.uint32),
        lineage=Lineage.build(
            count,
            source=[("random", "perturbed")[i % 2] for i in range(count)],
            base=[None if i % 3 == 0 else f"base{seed}-{i % 3}" for i in range(count)],
            law="gaussian",
            scale=0.1,
            sign=rng.integers(-1, 2, count),
            noise_seed=rng.integers(0, 2**32, (count, 2), dtype=np.uint32),
        ),
        simulation={"backend": "toy", "dtype": "float32"},
        probe_states=np.random.default_rng(7).standard_normal((probes, 4), dtype=np.float32) if probes else None,
        probe_actions=rng.uniform(-1, 1, (count, probes, 2)).astype(np.float32) if probes else None,
        discounted_returns=None if discount is None else returns * np.float32(discount),
        discount=discount,
    )


@pytest.fixture
def quick_path() -> Iterator[Path]:
    """A folder in memory where there is one: tests of many small commits need no real disk behind fsync."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


@pytest.fixture
def make_rows() -> Callable[..., Rows]:
    return build_rows


@pytest.fixture
def env() -> EnvIdentity:
    return ENV


@pytest.fixture
def spec() -> PolicySpec:
    return SPEC


@pytest.fixture(scope="session")
def scenarios() -> ModuleType:
    """The module scenarios.py: everything that writes, and the faults that may hit it."""
    source = importlib.util.spec_from_file_location("store_scenarios", Path(__file__).with_name("scenarios.py"))
    assert source is not None
    assert source.loader is not None
    module = importlib.util.module_from_spec(source)
    source.loader.exec_module(module)
    return module


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A data set of three commits: 100 and 1 + 20 rows of one architecture with probes, then 5 of another."""
    path = tmp_path / "small.zarr"
    with Writer.open(path, ENV) as writer:
        writer.commit(build_rows(100, 0, probes=3, discount=0.9), {"step": 0})
        writer.commit(
            [build_rows(1, 1, probes=3, discount=0.9), build_rows(20, 2, probes=3, discount=0.9)], {"step": 1}
        )
        writer.commit(build_rows(5, 3, spec=PolicySpec(4, 2, (5,))), {"step": 2})
    return path
