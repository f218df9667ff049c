"""Small data sets with a known signal, written by the real store."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from epvf_data.policies import mlp
from epvf_data.policies.probe import probe
from epvf_data.policies.spec import PolicySpec
from epvf_data.store.lineage import Lineage
from epvf_data.store.schema import EnvIdentity, Rows
from epvf_data.store.writer import Writer

ENV = EnvIdentity("toy", "1", "0" * 64, 3, 2, horizon=100, timestep=0.02, substeps=1, details={})
SPEC = PolicySpec(3, 2, hidden=(6,))  # 38 parameters


def write(path, theta, returns, families, env=ENV, spec=SPEC, parts=1, states=None):
    """Commits rows with parameters theta [n, P] and returns [n, E]; `families` [n] name the bases, −1 for none.

    With probing `states` [K, 3], the actions in them are stored too.
    """
    actions = (
        None
        if states is None
        else np.asarray(jax.vmap(lambda one: probe(spec, one, jnp.asarray(states)))(jnp.asarray(theta)))
    )
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
            probe_states=states,
            probe_actions=None if actions is None else actions[rows],
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


STATES = np.random.default_rng(5).normal(size=(6, 3)).astype(np.float32)
TRUTH = np.random.default_rng(6).normal(size=12)


def acting_rows(spec, rows=300, seed=0, families=10):
    """Policies of any architecture, returns linear in their actions in `STATES`: what probing can know of them."""
    keys = jax.random.split(jax.random.key(seed), rows)
    theta = jax.vmap(lambda key: mlp.init(key, spec, 3.0))(keys)
    actions = np.asarray(jax.vmap(lambda one: probe(spec, one, jnp.asarray(STATES)))(theta)).reshape(rows, -1)
    returns = 50.0 + 10.0 * actions @ TRUTH
    return np.asarray(theta), returns[:, None], np.random.default_rng(seed).integers(-1, families, rows)


@pytest.fixture(scope="session")
def toy():
    """The functions that make data sets: `toy.write`, `toy.linear_rows`, `toy.acting_rows`, and what goes with them."""
    return SimpleNamespace(
        write=write, linear_rows=linear_rows, acting_rows=acting_rows, SPEC=SPEC, ENV=ENV, STATES=STATES
    )


@pytest.fixture(scope="session")
def mixed(tmp_path_factory):
    """Path of 300 rows of each of three architectures, whose returns depend on their actions alone."""
    path = tmp_path_factory.mktemp("data") / "mixed.zarr"
    for seed, hidden in enumerate(((6,), (9,), (5, 5))):
        spec = PolicySpec(3, 2, hidden)
        write(path, *acting_rows(spec, 300 - 20 * seed, seed), spec=spec, states=STATES)
    return path


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """Path of 600 rows of 12 families whose returns are linear in θ, with a little noise."""
    return write(tmp_path_factory.mktemp("data") / "toy.zarr", *linear_rows())
