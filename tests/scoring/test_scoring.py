"""Scores of policies: intervals that cover, starts that are shared, rows that were lucky, and the verbs."""

from __future__ import annotations

import json
from dataclasses import replace

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import epvf_data
from epvf_data import envs
from epvf_data.curation.select import withhold
from epvf_data.errors import ArchitectureMismatchError, ConfigError, DatasetError
from epvf_data.policies.spec import PolicySpec
from epvf_data.scoring.estimate import difference, estimate
from epvf_data.scoring.inputs import best_rows
from epvf_data.scoring.settings import START_NOISE, ScoreConfig
from epvf_data.scoring.world import World

SPEC = PolicySpec(4, 1, (8,))


@pytest.fixture(scope="module")
def poles(tmp_path_factory):
    """A small CartPole data set of single episodes, whose best rows were lucky, and a policy file."""
    folder = tmp_path_factory.mktemp("poles")
    settings = {"policy.hidden": [8], "probes": 8, "perturbed.bases": ["random"], "episodes": 1}
    epvf_data.collect(epvf_data.collect_config("cartpole", envs=200, horizon=80, **settings), folder / "poles.zarr")
    return folder


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=40))
def test_intervals_are_students(values):
    found = estimate(np.array(values))
    assert found.least <= found.mean + 1e-9
    assert found.mean <= found.greatest + 1e-9
    if np.std(values) > 1e-6:
        wanted = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
        np.testing.assert_allclose(found.interval, [wanted.low, wanted.high], rtol=1e-6, atol=1e-6)
        assert found.standard_error == pytest.approx(stats.sem(values))


def test_an_interval_covers_the_truth_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(3.0, 2.0, (4000, 5))
    inside = [low <= 3.0 <= high for low, high in (estimate(one).interval for one in draws)]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.015)


def test_pairs_cancel_what_the_starts_give():
    starts, own = np.random.default_rng(1).normal(0, 50, 30), np.random.default_rng(2).normal(0, 1, 30)
    found = difference(starts + 5 + own, starts)
    assert found.mean == pytest.approx(5, abs=1)
    assert found.standard_error < 0.3


def test_one_episode_has_no_error():
    assert estimate(np.array([4.0])).interval is estimate(np.array([4.0, 4.0]), varies=False).standard_error is None


def test_a_fixed_start_is_disturbed_and_the_same_for_every_policy():
    poles = envs.make("cartpole").with_horizon(60)
    still = poles.reset(jax.random.key(7))
    env = replace(poles, reset=lambda key: still, random_start=False)
    theta = np.random.default_rng(0).normal(size=(2, SPEC.size)).astype(np.float32)
    theta = np.concatenate([theta, theta[:1]])
    world = World(env, start_noise=0.1)
    lengths = world.outcomes(SPEC, theta, 12).lengths
    np.testing.assert_array_equal(lengths[0], lengths[2])  # equal policies, equal starts
    assert len(set(lengths[0].tolist())) > 1
    assert lengths[0].tolist() != world.outcomes(SPEC, theta[:1], 12, stream=1).lengths[0].tolist()
    exact = World(env, start_noise=0.0)
    assert (exact.varies(SPEC), world.varies(SPEC), World(env).noise) == (False, True, START_NOISE)
    assert set(exact.outcomes(SPEC, theta[:1], 3).returns[0]) == set(exact.returns(SPEC, theta[:1]))
    assert World(poles).noise == 0.0  # its own starts are random


def test_files_and_rows_are_scored_alike(poles, in_tmp):
    opened = epvf_data.open(poles / "poles.zarr")
    table = opened.table()
    best = int(table.mean_returns().argmax())
    theta = table.take("params", np.array([best]))[0]
    epvf_data.save_policy("best.safetensors", table.spec, theta, env="cartpole", horizon="80")
    report = epvf_data.score([poles / "poles.zarr", "best.safetensors"], ScoreConfig(episodes=6))
    row, file = report.scores
    assert row.found == file.found
    assert (row.row, row.stored) == (best, table.mean_returns()[best])
    assert (file.horizon, file.over_first.mean, file.stored) == (80, 0.0, None)
    assert report.start_noise == 0.0
    assert "random ones" in report.starts
    again = epvf_data.score("best.safetensors", ScoreConfig(episodes=6, seed=1)).scores[0].found
    assert again.mean != file.found.mean
    epvf_data.save_policy("longer.safetensors", table.spec, theta, env="cartpole")  # of the usual horizon
    with pytest.raises(ArchitectureMismatchError, match="different tasks"):
        epvf_data.score([poles / "poles.zarr", "longer.safetensors"])


def test_the_best_rows_are_rolled_out_again_and_not_believed(poles, in_tmp):
    report = epvf_data.top(poles / "poles.zarr", "top", 10, ScoreConfig(episodes=20))
    means = [one.again.mean for one in report.rows]
    assert means == sorted(means, reverse=True)
    table = epvf_data.open(poles / "poles.zarr").table()
    stored = np.sort(table.mean_returns())[::-1][:10]
    assert sorted((one.stored for one in report.rows), reverse=True) == stored.tolist()
    assert np.mean(means) < stored.mean()  # they were chosen by one lucky episode
    assert "too high on average" in report.verdict
    assert json.loads((in_tmp / "top" / "top.json").read_text()) == report.to_dict()
    first = report.rows[0]
    spec, theta = epvf_data.load_policy(first.policy)
    assert spec == table.spec
    np.testing.assert_array_equal(theta, table.take("params", np.array([first.row]))[0])
    scored = epvf_data.score(first.policy, ScoreConfig(episodes=20)).scores[0]
    assert scored.found == first.again  # the file remembers environment and horizon
    with pytest.raises(DatasetError, match="--force"):
        epvf_data.top(poles / "poles.zarr", "top", 2)
    believed = epvf_data.top(poles / "poles.zarr", "top", 2, reroll=False, force=True)
    assert [one.stored for one in believed.rows] == stored[:2].tolist()
    assert believed.starts is None


def test_rows_without_parameters_have_no_policies(poles, in_tmp):
    withhold(poles / "poles.zarr", "bare.zarr")
    with pytest.raises(DatasetError, match="withheld"):
        epvf_data.top("bare.zarr", "top", 2)
    with pytest.raises(ConfigError, match="1 to"):
        best_rows(epvf_data.open("bare.zarr"), 0)


def test_the_verbs_say_what_they_found(poles, in_tmp, shell):
    told = json.loads(shell("score", poles / "poles.zarr", "--row", "worst", "--episodes", "4", "--json", "-q").stdout)
    (one,) = told["scores"]
    assert {"policy", "mean", "standard_error", "interval", "episodes", "row", "stored"} <= set(one)
    assert one["episodes"] == 4
    text = shell("top", poles / "poles.zarr", "-n", "3", "--reroll", "4", "--out", "best", "-q").stdout
    assert "4 episodes a row" in text
    assert "95 %" in text
    assert len(list((in_tmp / "best").glob("*.safetensors"))) == 3
    files = sorted((in_tmp / "best").glob("*.safetensors"))
    text = shell("score", *files[:2], "--episodes", "4", "-q").stdout
    assert "over the first" in text
    assert "cartpole, horizon 80" in text
