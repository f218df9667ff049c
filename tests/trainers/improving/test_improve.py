"""From a data set to a better policy and an honest sentence; where the truth is known, and end to end on CartPole."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import epvf_data
from epvf_data import code
from epvf_data.collectors.resimulate import resimulate
from epvf_data.curation.select import withhold
from epvf_data.errors import ConfigError, DatasetError, FileError, RunError
from epvf_data.improvement.methods import METHODS
from epvf_data.scoring.estimate import estimate
from epvf_data.trainers.improving.propose import Critics, propose
from epvf_data.trainers.improving.report import Final, Tried, verdict
from epvf_data.trainers.improving.settings import ImproveConfig, plan
from epvf_data.trainers.offline.run import load_run, train_offline
from epvf_data.trainers.offline.settings import OfflineConfig


@given(st.integers(1, 20_000), st.integers(1, 30), st.integers(1, 200))
def test_a_plan_keeps_to_its_budget(budget, screen, starts):
    if budget < 7 * screen:
        with pytest.raises(ConfigError, match="too small"):
            ImproveConfig(budget=budget, screen=screen, starts=starts)
        return
    config = ImproveConfig(budget=budget, screen=screen, starts=starts)
    found = plan(config)
    assert found.episodes <= budget
    assert min(found) >= 1
    assert found.final >= screen or budget < 20 * screen
    assert plan(config, varies=False).screen == 1


@pytest.fixture(scope="module")
def known(toy, tmp_path_factory):
    """Critics of returns that are linear in θ, the best rows, and the truth."""
    folder, random = tmp_path_factory.mktemp("known"), np.random.default_rng(0)
    slope = random.normal(size=toy.SPEC.size)
    theta = random.normal(size=(400, toy.SPEC.size))
    path = toy.write(folder / "toy.zarr", theta, (theta @ slope)[:, None], np.arange(400) % 20)
    settings = {
        "split": "iid",
        "epochs": 40,
        "learning_rate": 0.03,
        "weight_decay": 0.0,
        "resamples": 20,
        "seeds": 4,
        "batch_size": 64,
    }
    train_offline(path, OfflineConfig(critic="linear", **settings), folder / "run")
    best = theta[np.argsort(-(theta @ slope))[:8]].astype(np.float32)
    return Critics(load_run(folder / "run").fitted["iid"], 0), best, slope, theta.std(0).astype(np.float32)


@pytest.mark.parametrize("name", ["ascent", "mean", "min", "lower", "coms", "cma-es"])
def test_every_climb_of_right_critics_helps(known, name):
    critics, starts, slope, spread = known
    config = ImproveConfig(method=name, steps=(1, 10), step=0.05)
    pool = propose(config, starts, spread, 8, critics, None, 0)
    assert len(pool.theta) == len(pool.origin) == len(pool.distance) == 8
    gain = pool.theta @ slope - starts[pool.origin] @ slope
    assert (gain > 0).all()
    assert set(pool.steps) == {pool.stop, 10}  # these judges know that it goes on, but not that they may be believed
    for step in set(pool.steps):
        assert (np.diff(pool.judged[pool.steps == step]) <= 1e-6).all()
    np.testing.assert_allclose(pool.promised, pool.theta @ slope, rtol=0.1)
    if name in ("mean", "coms"):
        assert (pool.distance <= config.radius * spread.size**0.5 + 1e-3).all()


def test_the_controls_know_no_critic(known):
    _, starts, slope, spread = known
    pool = propose(ImproveConfig(method="average"), starts, spread, 4, None, None, 0)
    np.testing.assert_allclose(pool.theta[1], starts[:2].mean(0), rtol=1e-5)
    assert pool.judged is pool.promised is pool.stop is None
    spent = []

    def returns(theta, generation):
        spent.append(len(theta))
        return theta @ slope

    pool = propose(ImproveConfig(method="es"), starts, spread, 4, None, returns, 1280)
    assert pool.spent == sum(spent) == 1280
    assert pool.theta[0] @ slope > starts[0] @ slope


def test_random_steps_are_a_method_of_their_own(known):
    _, starts, _, spread = known
    config = ImproveConfig(method="random", steps=(1, 10), step=0.05)
    pool = propose(config, starts, spread, 16, None, None, 0)
    np.testing.assert_allclose(pool.distance / spread.size**0.5, [0.05] * 8 + [0.5] * 8, rtol=1e-5)
    away = np.linalg.norm((pool.theta - starts[pool.origin]) / spread, axis=1)
    np.testing.assert_allclose(away, pool.distance, rtol=1e-3)


def test_critics_of_two_seeds_side_by_side_are_two_pairs(known):
    critics, starts, *_ = known
    first, second = (critics._replace(own=own) for own in ((0, 2), (2, 4)))
    climbed, judging = critics.table(starts)
    np.testing.assert_allclose(first.table(starts)[0][0], climbed[0], rtol=1e-5)
    np.testing.assert_allclose(second.table(starts)[0][0], judging[0], rtol=1e-5)
    assert first.climbers == slice(0, 1)
    assert second.climbers == slice(2, 3)


def test_the_sentence_does_not_flatter():
    random = np.random.default_rng(0)
    low, high = random.normal(100, 5, 30), random.normal(200, 5, 30)
    tried = Tried(3, 1.0, 900.0, 800.0, None)

    def final(mine, row):
        gains = [estimate(mine - row), estimate(mine - low)]
        return Final(estimate(mine), estimate(row), estimate(low), *gains)

    better = verdict("mean", tried, final(high, low), 500.0, 9, (1.0, 2.0, 3.0))
    assert "better by" in better
    assert "stored as 500.00" in better
    assert ": worse, -" in verdict("mean", tried, final(low, high), 500.0, 9, (1.0, 2.0, 3.0))
    same = random.normal(200, 5, 30)
    assert "no better as far as can be told" in verdict("mean", tried, final(high, same), 5.0, 9, (1.0, 2.0, 3.0))
    assert verdict("mean", tried, None, 5.0, 9, (0.0, 0.0, 0.0)).startswith("Nothing was rolled out")


@pytest.fixture(scope="module")
def poles(tmp_path_factory):
    """A small CartPole data set, and a run on it."""
    folder = tmp_path_factory.mktemp("poles")
    settings = {"policy.hidden": [8], "probes": 8, "perturbed.bases": ["random"], "episodes": 1}
    epvf_data.collect(epvf_data.collect_config("cartpole", envs=200, horizon=60, **settings), folder / "poles.zarr")
    fit = OfflineConfig(critic="mlp", split="iid", epochs=3, seeds=2, widths=(16,), resamples=20)
    train_offline(folder / "poles.zarr", fit, folder / "run")
    return SimpleNamespace(folder=folder, data=folder / "poles.zarr", run=folder / "run", fit=fit)


SMALL = {"budget": 120, "screen": 4, "starts": 8, "steps": (1, 2), "keep": 2}


def test_a_data_set_becomes_policies_and_a_sentence(poles, in_tmp):
    config = ImproveConfig(method="mean", fit=poles.fit, **SMALL)
    found = epvf_data.improve(poles.data, "better", config, into="more.zarr")
    assert json.loads((in_tmp / "better" / "improvement.json").read_text()) == found.to_dict()
    assert (in_tmp / "better" / "improvement.png").read_bytes().startswith(b"\x89PNG")
    assert found.episodes <= 120
    assert found.final.improved.episodes == 6
    means = [one.screened.mean for one in found.candidates]
    assert means == sorted(means, reverse=True)
    assert len(found.candidates) == len(found.random)
    assert [one.distance for one in found.candidates] == [one.distance for one in found.random]
    _, theta = epvf_data.load_policy(found.policies[0])
    table = epvf_data.open("more.zarr").table()
    assert table.rows == found.recorded == 2 * len(found.candidates)
    assert set(table.vocabulary("source")) == {"improve-mean", "improve-random"}
    assert any(np.array_equal(theta, row) for row in table.column("params"))
    assert resimulate(epvf_data.open("more.zarr"), 6).max_error == 0.0  # rows are of the task itself
    with pytest.raises(RunError, match="exists already"):
        epvf_data.improve(poles.data, "better", config)
    with pytest.raises(RunError, match="is finished"):
        epvf_data.improve(poles.data, "better", config, resume=True)
    (in_tmp / "better" / "improvement.json").unlink()  # as if it had been interrupted
    again = epvf_data.improve(poles.data, "better", config, resume=True)
    assert again.verdict == found.verdict


def test_critics_of_an_order_are_climbed_in_units_of_the_return(poles, in_tmp):
    """Nobody has asked for their calibration before the climb, which is compiled."""
    config = ImproveConfig(method="rank", fit=poles.fit, **{**SMALL, "steps": (1,)})
    found = epvf_data.improve(poles.data, "ranked", config, rollouts=False)
    assert all(0 < one.promised < 100 for one in found.candidates)  # of 60 steps at most


def test_a_run_is_improved_on_without_rollouts(poles, in_tmp):
    config = ImproveConfig(method="lower", **SMALL)
    found = epvf_data.improve(poles.run, "better", config, rollouts=False)
    assert (found.episodes, found.final, found.starts) == (0, None, None)
    assert all(one.screened is None for one in found.candidates)
    assert "Nothing was rolled out" in found.verdict
    assert len(found.policies) == 2


def test_what_cannot_be_improved_on_is_said(poles, in_tmp):
    withhold(poles.data, "bare.zarr")
    with pytest.raises(DatasetError, match="withheld"):
        epvf_data.improve("bare.zarr", "x")
    with pytest.raises(RunError, match="fitted without conservative"):
        epvf_data.improve(poles.run, "x", ImproveConfig(method="coms"))
    with pytest.raises(ConfigError, match="plays episodes itself"):
        epvf_data.improve(poles.data, "x", ImproveConfig(method="es"), rollouts=False)
    with pytest.raises(ConfigError, match="at least 1"):
        ImproveConfig(budget=0)
    with pytest.raises(ConfigError, match="too small"):
        ImproveConfig(budget=10)
    with pytest.raises(ConfigError, match="no method 'coma'; did you mean coms"):
        ImproveConfig(method="coma")
    assert not (in_tmp / "x").exists()


OWN = """
def further(problem):
    assert problem.theta.shape == (len(problem.returns), problem.spec.size)
    return problem.starts + 0.1 * problem.spread

def fails(problem):
    raise ValueError("no idea")
"""


def test_a_method_of_ones_own(poles, in_tmp):
    (in_tmp / "own.py").write_text(OWN)
    found = epvf_data.improve(poles.data, "own", ImproveConfig(method="own.py:further", **SMALL), into="more.zarr")
    assert "proposals by 'own.py:further'" in found.verdict
    assert all(one.distance > 0 for one in found.candidates)
    assert set(epvf_data.open("more.zarr").table().vocabulary("source")) == {"improve-further", "improve-random"}
    with pytest.raises(ConfigError, match=r"own.py:fails gives no proposals: ValueError in line 7 of own.py: no idea"):
        epvf_data.improve(poles.data, "bad", ImproveConfig(method="own.py:fails", **SMALL))
    kept = json.loads((in_tmp / "bad" / "rows.json").read_text())["rows"]
    assert [one["screened"]["episodes"] for one in kept] == [4] * len(kept)  # what was rolled out stays
    with pytest.raises(FileError, match="there is no such file"):
        ImproveConfig(method="none.py:further")
    with pytest.raises(ConfigError, match="no file's word runs code"):
        code.check_stated({"method": "own.py:further"}, {}, "evil.toml")


def test_the_verb_prints_the_sentence(poles, in_tmp, shell):
    words = ("--method", "average", "--budget", "120", "--set", "screen=4", "--set", "starts=8", "-q")
    told = shell("improve", poles.data, *words).stdout
    assert "proposals by 'average'" in told
    assert "against the best of as many random steps" in told.lower()
    assert (in_tmp / "poles-average" / "improved-1.safetensors").is_file()
    assert set(METHODS) >= {"ascent", "mean", "min", "lower", "coms", "rank", "average", "cma-es", "es"}
    found = json.loads(shell("improve", poles.run, "--method", "mean", "--no-rollouts", "--json", "-q").stdout)
    assert {"verdict", "policies", "candidates", "final", "looks"} <= set(found)
