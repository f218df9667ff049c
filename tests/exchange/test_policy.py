"""A row's policy in a file of its own does what the row says, in this package and in a dozen lines of NumPy."""

from __future__ import annotations

import contextlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import epvf_data
from epvf_data.curation.select import withhold
from epvf_data.errors import ConfigError, DatasetError
from epvf_data.exchange.policy import export_policy
from epvf_data.policies import mlp
from epvf_data.policies.spec import ACTIVATIONS, OUTPUTS, Normaliser, PolicySpec
from epvf_data.recording.rows import probe_actions
from epvf_data.store.writer import Writer

NORMALISER = Normaliser((0.1, -0.2, 0.3, 0.0), (1.0, 2.0, 0.5, 1.0), 1.5)
KINDS = [PolicySpec(4, 2, (5, 3), activation=name) for name in ACTIVATIONS]
KINDS += [PolicySpec(4, 2, (5,), output=name, bias=False) for name in OUTPUTS]
KINDS += [PolicySpec(4, 2, (5,), normaliser=NORMALISER), PolicySpec(4, 2, ())]
KINDS += [PolicySpec(4, 2, (5, 3), bias=bias, layer_norm=True, gaussian="mean") for bias in (True, False)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind}-{kind.activation}-{kind.output}")
def test_the_snippet_acts_as_the_policy(in_tmp, env, make_rows, kind):
    with Writer.open("data.zarr", env) as writer:
        writer.commit(make_rows(20, 0, spec=kind), {})
    report = export_policy("data.zarr", "chosen.safetensors", row="3")
    spec, flat = epvf_data.load_policy("chosen.safetensors")
    assert spec == kind
    np.testing.assert_array_equal(flat, epvf_data.open("data.zarr").table().column("params")[3])
    text = (in_tmp / "chosen.py").read_text()
    assert len(text.splitlines()) <= 15
    (in_tmp / "elsewhere").mkdir()
    with contextlib.chdir("elsewhere"):  # it finds its file from anywhere
        act = runpy.run_path(f"../{report.snippet}")["act"]
    states = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    expected = probe_actions(kind, flat[None], states)[0]
    np.testing.assert_allclose(act(states), expected, atol=1e-5)
    np.testing.assert_allclose(act(states[0]), expected[0], atol=1e-5)


@pytest.mark.parametrize("output", OUTPUTS)
def test_the_snippet_takes_the_noise_of_a_sampled_policy(in_tmp, env, make_rows, output):
    kind = PolicySpec(4, 2, (5,), output=output, gaussian="sampled")
    with Writer.open("data.zarr", env) as writer:
        writer.commit(make_rows(20, 0, spec=kind), {})
    report = export_policy("data.zarr", "chosen.safetensors", row="3")
    spec, flat = epvf_data.load_policy("chosen.safetensors")
    act, state, key = runpy.run_path(report.snippet)["act"], np.full(4, 0.03, np.float32), jax.random.key(1)
    expected = mlp.sample(spec, mlp.unflatten(spec, jnp.asarray(flat)), jnp.asarray(state), key)
    np.testing.assert_allclose(act(state, np.asarray(jax.random.normal(key, (2,)))), expected, atol=1e-5)
    assert np.abs(act(state) - expected).max() > 1e-3


def test_the_best_is_the_best(in_tmp, env, make_rows):
    with Writer.open("data.zarr", env) as writer:
        writer.commit([make_rows(30, 0), make_rows(30, 1, spec=PolicySpec(4, 2, (5,)))], {})
    dataset = epvf_data.open("data.zarr")
    every = np.concatenate([dataset.table(item.id).mean_returns() for item in dataset.architectures])
    for row, value in (("best", every.max()), ("worst", every.min()), ("median", np.sort(every)[30])):
        assert export_policy("data.zarr", f"{row}.safetensors", row=row).mean_return == value


@pytest.mark.parametrize("episodes", [1, 3])
def test_a_mean_of_few_episodes_comes_with_its_standard_error(in_tmp, env, make_rows, episodes):
    with Writer.open("data.zarr", env) as writer:
        writer.commit(make_rows(9, 0, episodes=episodes), {})
    report = export_policy("data.zarr", "p.safetensors")
    returns = epvf_data.open("data.zarr").table().column("returns")[report.row].astype(np.float64)
    assert report.episodes == episodes
    error = None if episodes == 1 else pytest.approx(returns.std(ddof=1) / np.sqrt(episodes))
    assert report.standard_error == error


def test_refusals(in_tmp, env, make_rows):
    with Writer.open("data.zarr", env) as writer:
        writer.commit(make_rows(5, 0, probes=2), {})
    withhold("data.zarr", "bare.zarr")
    with pytest.raises(ConfigError, match="expected best, median, worst or a number"):
        export_policy("data.zarr", "p.safetensors", row="nicest")
    with pytest.raises(DatasetError, match="rows 0 to 4"):
        export_policy("data.zarr", "p.safetensors", row="5")
    with pytest.raises(DatasetError, match="withheld"):
        export_policy("bare.zarr", "p.safetensors")
    assert not (in_tmp / "p.safetensors").exists()
    export_policy("data.zarr", "p.safetensors")
    with pytest.raises(DatasetError, match="exists already"):
        export_policy("data.zarr", "p.safetensors")
