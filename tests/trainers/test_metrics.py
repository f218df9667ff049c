"""Metrics against SciPy and brute force, and what they say where there is nothing to say."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from epvf_data.trainers import metrics

numbers = st.integers(-4, 4).map(float) | st.floats(-1e6, 1e6)  # whole numbers make ties


@st.composite
def pairs(draw, least=2):
    size = draw(st.integers(least, 30))
    predicted, true = (np.array(draw(st.lists(numbers, min_size=size, max_size=size))) for _ in range(2))
    return predicted, true


@given(pairs())
def test_rank_correlations_equal_scipy(pair):
    predicted, true = pair
    if np.ptp(predicted) > 0 and np.ptp(true) > 0:
        assert metrics.spearman(*pair) == pytest.approx(stats.spearmanr(*pair).statistic, abs=1e-9)
        assert metrics.kendall(*pair) == pytest.approx(stats.kendalltau(*pair).statistic, abs=1e-9)
    else:
        assert metrics.spearman(*pair) == metrics.kendall(*pair) == 0.0


def test_the_order_within_families_is_what_is_left_without_their_means():
    random = np.random.default_rng(0)
    families = np.repeat([3, 5, 8, 9], [40, 25, 12, metrics.MIN_MEMBERS - 1])
    true = random.normal(size=len(families))
    predicted = true + random.normal(size=(2, len(families)))
    found = metrics.within(predicted, true, families)
    each = [
        np.mean([stats.spearmanr(own[families == name], true[families == name]).statistic for own in predicted])
        for name in (3, 5, 8)  # the last one is too small
    ]
    assert found["each"] == pytest.approx(each)
    assert (found["families"], found["spearman"]) == (3, pytest.approx(np.mean(each)))
    lifted = metrics.within(predicted + 100 * families, true - 100 * families, families)
    assert lifted["each"] == pytest.approx(each)
    assert (
        metrics.spearman(predicted[0] + 100 * families, true - 100 * families) < -0.5
    )  # while all together turn round
    assert metrics.within(predicted, np.zeros(len(families)), families) is None
    low, high = metrics.interval_of_mean(each, 0)
    assert min(each) <= low <= np.mean(each) <= high <= max(each)


@given(pairs())
def test_r2_and_errors_follow_their_formulas(pair):
    predicted, true = pair
    assert metrics.mean_absolute_error(*pair) == pytest.approx(np.mean(np.abs(predicted - true)))
    if np.ptp(true) > 1e-3:
        assert metrics.r2(*pair) == pytest.approx(1 - np.mean((true - predicted) ** 2) / np.var(true), rel=1e-6)
        assert metrics.r2(np.full(len(true), predicted[0]), true) <= 1e-9  # a constant explains nothing
    assert metrics.r2(true, true) in (0.0, 1.0)


@given(pairs(), st.integers(1, 4))
def test_regret_is_the_expectation_over_ties(pair, k):
    predicted, true = np.round(pair[0][:6]), np.round(pair[1][:6])
    k = min(k, len(true))
    order = np.sort(predicted)[::-1]
    outcomes = [
        max(true[list(rows)])
        for rows in itertools.combinations(range(len(true)), k)
        if np.array_equal(np.sort(predicted[list(rows)])[::-1], order[:k])
    ]
    expected = true.max() - np.mean(outcomes)
    assert metrics.regret(predicted, true, k) == pytest.approx(expected, rel=1e-9, abs=1e-6)


def test_top_tenth_takes_ties_and_at_least_one_row():
    assert metrics.top_tenth(np.arange(20.0)).sum() == 2
    assert metrics.top_tenth(np.arange(3.0)).tolist() == [False, False, True]
    assert metrics.top_tenth(np.array([0.0] * 10 + [500.0] * 10)).sum() == 10
    true = np.arange(20.0)
    predicted = true + np.where(true >= 18, 3.0, 100.0)
    assert metrics.top_tenth_error(predicted, true) == pytest.approx(3.0)


def test_the_ceiling_is_the_r2_of_a_perfect_critic():
    random = np.random.default_rng(0)
    for episodes in (2, 5):
        skill = random.normal(size=20_000)
        returns = skill[:, None] + 1.5 * random.normal(size=(20_000, episodes))
        labels = returns.mean(1)
        ceiling, _ = metrics.noise_ceiling(labels, metrics.label_variances(returns), random_start=True)
        assert ceiling == pytest.approx(1 / (1 + 1.5**2 / episodes), abs=0.02)
        assert ceiling == pytest.approx(metrics.r2(skill, labels), abs=0.02)


def test_the_ceiling_of_single_episodes_depends_on_the_start():
    returns = np.random.default_rng(0).normal(size=(50, 1))
    labels, variances = returns[:, 0], metrics.label_variances(returns)
    assert metrics.noise_ceiling(labels, variances, random_start=False)[0] == 1.0
    assert metrics.noise_ceiling(labels, variances, random_start=True)[0] is None
    assert metrics.noise_ceiling(labels, variances, random_start=None)[0] is None
    assert metrics.noise_ceiling(np.ones(50), np.zeros(50), random_start=True)[0] is None


@pytest.mark.parametrize("which", ["predictions", "returns", "both"])
def test_constants_give_zeros_with_a_note_and_valid_json(which):
    varied = np.random.default_rng(0).normal(size=40)
    predicted = varied[None] if which == "returns" else np.ones((1, 40))
    true = varied if which == "predictions" else np.ones(40)
    found = metrics.measure(predicted, true)
    text = json.dumps(found, allow_nan=False)  # raises for NaN and infinities
    assert found["spearman"] == found["kendall"] == 0.0
    assert "constant" in text or "equal" in text
    sampled = metrics.bootstrap(predicted, true, metrics.resample(40, None, 20, 0), 0)
    assert all(math.isfinite(edge) for values in sampled.values() for edge in metrics.interval(values))


def test_measure_averages_over_seeds():
    random = np.random.default_rng(1)
    true, predicted = random.normal(size=50), random.normal(size=(3, 50))
    found = metrics.measure(predicted, true)
    assert found["spearman"] == pytest.approx(np.mean([metrics.spearman(row, true) for row in predicted]))
    assert len(found["per_seed"]["spearman"]) == 3
    assert found["notes"] == []


def test_bootstrap_intervals_cover_the_truth_about_as_often_as_they_claim():
    rho, inside = 0.6, 0
    truth = 6 / np.pi * np.arcsin(rho / 2)  # Spearman of a bivariate normal (Pearson 1907)
    for seed in range(80):
        random = np.random.default_rng(seed)
        true = random.normal(size=80)
        predicted = rho * true + np.sqrt(1 - rho**2) * random.normal(size=80)
        sampled = metrics.bootstrap(predicted[None], true, metrics.resample(80, None, 60, seed), seed)
        low, high = metrics.interval(sampled["spearman"])
        inside += low <= truth <= high
    assert 0.85 < inside / 80 <= 1.0


def test_families_are_resampled_whole_and_widen_the_interval():
    random = np.random.default_rng(0)
    families = np.repeat(np.arange(8), 50)
    samples = metrics.resample(400, families, 50, seed=0)
    for rows in samples:
        counts = np.bincount(rows, minlength=400).reshape(8, 50)
        assert (counts == counts[:, :1]).all()
        assert counts.sum() == 400
    skill = random.normal(size=8)[families]
    true = skill + 0.1 * random.normal(size=400)
    predicted = (random.normal(size=8)[families] + skill)[None]

    def width(groups):
        sampled = metrics.bootstrap(predicted, true, metrics.resample(400, groups, 200, 0), 0)
        low, high = metrics.interval(sampled["spearman"])
        return high - low

    assert width(families) > 2 * width(None)
    few = metrics.resample(400, np.repeat([0, 1], 200), 5, seed=0)  # two families: rows are resampled
    assert all(len(np.unique(rows)) > 200 for rows in few)
