"""Interquartile means and bootstrap intervals against hand-computed cases, properties and simulated truth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epvf_data.trainers.curves.statistics import Estimate, difference, estimate, iqm, median, quotient

SEEDS = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=12).map(np.array)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([7.0], 7.0),
        ([1.0, 5.0], 3.0),
        ([1.0, 5.0, 6.0], 4.0),  # a quarter of three is less than one value
        ([9.0, 2.0, 3.0, 100.0], 6.0),  # of four, the least and the greatest go
        ([5.0, 1.0, 2.0, 3.0, -50.0], 2.0),
        (list(range(10)), 4.5),  # of ten, two at each end
    ],
)
def test_iqm_of_hand_computed_cases(values, expected):
    assert iqm(np.array(values)) == pytest.approx(expected)


@given(SEEDS, st.randoms())
def test_iqm_and_its_interval_stay_within_the_values_in_any_order(values, random):
    found = estimate(values, resamples=200)
    slack = 1e-9 * (1 + np.abs(values).max())
    assert values.min() - slack <= found.low <= found.high <= values.max() + slack
    assert values.min() - slack <= found.value <= values.max() + slack
    shuffled = values.copy()
    random.shuffle(shuffled)
    assert iqm(shuffled) == pytest.approx(iqm(values), abs=slack)


@given(SEEDS)
def test_the_interval_holds_the_iqm(values):
    found = estimate(values)
    slack = 1e-9 * (1 + np.abs(values).max())
    assert found.low - slack <= found.value <= found.high + slack


@given(st.floats(-1e6, 1e6), st.integers(1, 10))
def test_constant_values_have_an_interval_without_width(value, count):
    found = estimate(np.full(count, value), resamples=50)
    assert np.allclose(found, value)


def test_a_curve_is_estimated_point_by_point():
    values = np.random.default_rng(0).normal(size=(6, 4))
    curve = estimate(values)
    assert curve.value.shape == curve.low.shape == curve.high.shape == (4,)
    for place in range(4):
        alone = estimate(values[:, place])
        assert [curve.low[place], curve.value[place], curve.high[place]] == pytest.approx(
            [float(found) for found in (alone.low, alone.value, alone.high)]
        )


@pytest.mark.parametrize(("seeds", "least"), [(5, 0.78), (10, 0.87), (30, 0.91)])
def test_intervals_cover_the_truth_about_as_often_as_they_say(seeds, least):
    """Percentile intervals of few seeds are known to be too narrow; with many they reach 95 %."""
    values = np.random.default_rng(1).normal(3.0, 2.0, size=(seeds, 800))  # 800 studies, of which the IQM is 3
    found = estimate(values, resamples=600)
    assert least <= np.mean((found.low <= 3.0) & (found.high >= 3.0)) <= 0.975


def test_differences_know_both_sides():
    random = np.random.default_rng(2)
    low, high = random.normal(10, 1, 10), random.normal(20, 1, 8)
    gap = difference(high, low)
    assert gap.above(8.0)
    assert gap.below(12.0)
    assert gap.value == pytest.approx(iqm(high) - iqm(low))
    same = difference(low, random.normal(10, 1, 10))
    assert same.low < 0 < same.high
    # Seeds of different variants are drawn independently: even of the same values the interval has a width.
    assert difference(low, low).high > 0


def test_what_is_never_reached_stays_never():
    found = estimate(np.array([10.0, 20.0, np.inf, np.inf, np.inf]), median)
    assert found.value == np.inf
    assert found.low < np.inf
    assert found.high == np.inf
    most = estimate(np.array([10.0, 20.0, 30.0, 40.0, np.inf]), median)
    assert most.value == 30.0
    assert quotient(np.full(5, np.inf), np.full(5, 10.0)).low == np.inf
    assert np.allclose(quotient(np.full(5, np.inf), np.full(5, np.inf)), 1.0)
    assert np.allclose(quotient(np.full(5, 30.0), np.full(5, 10.0)), 3.0)
    assert np.allclose(quotient(np.full(5, 30.0), np.full(5, np.inf)), 0.0)


def test_an_interval_is_compared_by_its_near_end():
    found = Estimate(np.float64(5.0), np.float64(4.0), np.float64(6.0))
    assert found.above(3.9)
    assert not found.above(4.5)
    assert found.below(6.1)
    assert not found.below(5.5)
