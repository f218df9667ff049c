"""A run's critic from Python: values, gradients and intervals where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest

import epvf_data
from epvf_data.errors import ArchitectureMismatchError, ConfigError, RunError
from epvf_data.trainers.offline.run import load_run


@pytest.fixture(scope="module", params=["ridge", "linear"])
def known(request, toy, tmp_path_factory):
    """A critic of rows whose return is linear in θ up to noise of deviation 0.5, those rows, and the slope."""
    folder, random = tmp_path_factory.mktemp("use"), np.random.default_rng(0)
    slope = random.normal(size=toy.SPEC.size)
    theta = random.normal(size=(400, toy.SPEC.size))
    returns = (theta @ slope + 0.5 * random.normal(size=400))[:, None]
    path = toy.write(folder / "toy.zarr", theta, returns, np.arange(400) % 20)
    settings = {"split": "iid", "resamples": 20, "seeds": 2, "test_fraction": 0.25}
    if request.param == "linear":
        settings |= {"epochs": 60, "learning_rate": 0.03, "weight_decay": 0.0}
    epvf_data.train_offline(path, epvf_data.OfflineConfig(critic=request.param, **settings), folder / "run")
    return epvf_data.load_critic(folder / "run"), slope, folder


def test_values_and_gradients_are_those_of_the_plane(known):
    critic, slope, _ = known
    theta = np.random.default_rng(1).normal(size=(300, len(slope))).astype(np.float32)  # more than a batch
    values = critic(theta)
    assert values.shape == (300,)
    assert np.corrcoef(values, theta @ slope)[0, 1] > 0.97
    assert critic(theta[7]) == pytest.approx(values[7], rel=1e-4, abs=1e-4)
    assert isinstance(critic(theta[7]), float)
    assert critic.seeds(theta[:3]).shape[0] == 3
    np.testing.assert_allclose(critic.seeds(theta[:3]).mean(-1), values[:3], rtol=1e-4, atol=1e-4)
    gradient = critic.grad(theta[0])
    assert gradient @ slope / np.linalg.norm(gradient) / np.linalg.norm(slope) > 0.97
    step = 1e-2 * slope.astype(np.float32)
    assert critic(theta[0] + step) - critic(theta[0] - step) == pytest.approx(2 * float(gradient @ step), rel=0.05)
    assert critic(theta[:0]).shape == (0,)


def test_values_are_what_the_report_judged(known):
    critic, _, folder = known
    fitted = load_run(folder / "run").fitted["iid"]
    rows = fitted.ground.test[:20]
    np.testing.assert_allclose(critic(fitted.source.read(0, rows)), fitted.predict(rows).mean(0), rtol=1e-3, atol=1e-3)


def test_intervals_hold_what_they_promise(known):
    critic, slope, _ = known
    random = np.random.default_rng(2)
    theta = random.normal(size=(2000, len(slope))).astype(np.float32)
    truth = theta @ slope + 0.5 * random.normal(size=2000)
    for level in (0.5, 0.9):
        low, high = critic.interval(theta, level)
        assert np.mean((low <= truth) & (truth <= high)) == pytest.approx(level, abs=0.12)  # of 100 held-out rows
    low, high = critic.interval(theta[0], 0.999)
    assert (low, high) == (-np.inf, np.inf)


def test_what_is_no_policy_of_the_run_is_one_sentence(known):
    critic, slope, folder = known
    with pytest.raises(ArchitectureMismatchError, match=r"got 5 parameters a policy; .* was fitted to 3-6-2 \(38"):
        critic(np.zeros(5))
    with pytest.raises(ArchitectureMismatchError, match="shape"):
        critic.grad(np.zeros((1, 1, len(slope))))
    with pytest.raises(ConfigError, match="the level is 90"):
        critic.interval(np.zeros(len(slope)), 90)
    with pytest.raises(RunError, match="no critic of the split 'lineage'; choose one of iid"):
        epvf_data.load_critic(folder / "run", split="lineage")
    with pytest.raises(RunError):
        epvf_data.load_critic(folder)
