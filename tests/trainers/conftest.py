"""Small data sets with a known signal, written by the real store."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from epvf_data.policies.spec import PolicySpec
from epvf_data.store.lineage import Lineage
from epvf_data.store.schema import EnvIdentity, Rows
from epvf_data.store.writer import Writer

ENV = EnvIdentity("toy", "1", "0" * 64, 3, 2, horizon=100, timestep=0.02, substeps=1, details={})
SPEC = PolicySpec(3, 2, hidden=(6,))  # 38 parameters


def write(path, theta, returns, families, env=ENV, spec=SPEC, parts=1):
    """Commits rows with parameters theta [n, P] and returns [n, E]; `families` [n] name the bases, −1 for none."""
    flags = np.zeros(returns.shape, bool)
    for rows in np.array_split(np.arange(len(theta)), parts):
        lineage = Lineage.build(
            len(rows),
            source=["random" if families[row] < 0 else "perturbed" for row in rows],
            base=[None if families[row] < 0 else f"base{families[row]}" for row in rows],
        )
        batch = Rows(
            spec=spec,
            params=theta[rows].astype(np.float32),
            returns=returns[rows].astype(np.float32),
            lengths=np.full(returns[rows].shape, 100, np.int32),
            terminated=flags[rows],
            truncated=~flags[rows],
            finite=~flags[rows],
            reset_seed=np.zeros((len(rows), 2), np.uint32),
            lineage=lineage,
            simulation={"backend": "none"},
        )
        Writer.open(path, env).commit(batch, {"made": "by a test"})
    return path


def linear_rows(rows=600, families=12, noise=0.3, episodes=1, seed=0):
    """θ around base policies, returns linear in θ: (theta [n, P], returns [n, E], families [n])."""
    random = np.random.default_rng(seed)
    family = random.integers(0, families, rows)
    bases = random.normal(size=(families, SPEC.size))
    theta = bases[family] + random.normal(size=(rows, SPEC.size))
    signal = theta @ random.normal(size=SPEC.size) / np.sqrt(SPEC.size)
    returns = 50.0 + 10.0 * (signal[:, None] + noise * random.normal(size=(rows, episodes)))
    return theta, returns, family


@pytest.fixture(scope="session")
def toy():
    """The functions that make data sets: `toy.write`, `toy.linear_rows`, and `toy.SPEC`."""
    return SimpleNamespace(write=write, linear_rows=linear_rows, SPEC=SPEC, ENV=ENV)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """Path of 600 rows of 12 families whose returns are linear in θ, with a little noise."""
    return write(tmp_path_factory.mktemp("data") / "toy.zarr", *linear_rows())
