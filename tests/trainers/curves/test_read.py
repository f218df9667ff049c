"""Reading what seeds logged, and meeting on one axis without inventing anything."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epvf_data.trainers.curves.read import (
    CELLS,
    Curve,
    align,
    cell_means,
    first_pass,
    mean_between,
    read_curves,
    shared_range,
)


def curve(steps, returns, seed=0, iterations=None):
    count = len(steps)
    at = np.arange(1.0, count + 1) if iterations is None else np.asarray(iterations, float)
    values = np.asarray(returns, float)
    return Curve(seed, at, np.asarray(steps, float), values, values + 1, np.full_like(values, np.nan), at / 60)


POINTS = st.lists(st.tuples(st.floats(0.1, 100.0), st.floats(-50.0, 50.0)), min_size=1, max_size=20).map(
    lambda pairs: (np.cumsum([step for step, _ in pairs]), np.array([value for _, value in pairs]))
)


def test_lines_are_read_as_training_writes_them(tmp_path):
    lines = [
        {"seed": seed, "iteration": at, "env_steps": 10 * at + seed, "return_unperturbed": 2.0 * at, "seconds": 30 * at}
        for at in (5, 10)
        for seed in range(3)
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    curves = read_curves(tmp_path)
    assert [found.seed for found in curves] == [0, 1, 2]
    assert curves[1].env_steps.tolist() == [51, 101]
    assert curves[1].return_unperturbed.tolist() == [10, 20]
    assert curves[1].minutes.tolist() == [2.5, 5]
    assert np.isnan(curves[1].return_perturbed).all()
    assert read_curves(tmp_path / "nothing") == []


def test_torn_repeated_and_missing_values(tmp_path):
    lines = [
        {"seed": 1, "iteration": 2, "env_steps": 20, "return_perturbed": 3.0, "return_unperturbed": 4.0},
        {"seed": 1, "iteration": 1, "env_steps": 10, "return_perturbed": 1.0, "return_unperturbed": None},
        {"seed": 1, "iteration": 2, "env_steps": 20, "return_perturbed": 5.0, "return_unperturbed": 6.0},
        {"seed": 1, "iteration": 3, "env_steps": 30, "return_perturbed": None},
    ]
    text = "\n".join(json.dumps(line) for line in lines) + '\n{"seed": 1, "iteration": 4, "env_st'
    (tmp_path / "metrics.jsonl").write_text(text)
    (found,) = read_curves(tmp_path)
    assert found.iteration.tolist() == [1, 2, 3]
    assert found.return_perturbed[:2].tolist() == [1.0, 5.0]  # the later of two lines
    assert np.isnan(found.return_perturbed[2])
    x, y = found.points("return_unperturbed", "env_steps")
    assert (x.tolist(), y.tolist()) == ([20.0], [6.0])


def test_seeds_meet_between_the_last_start_and_the_first_end():
    curves = [curve([10, 20, 50], [0, 10, 40]), curve([15, 40], [5, 30], seed=1)]
    assert shared_range(curves, "return_perturbed") == (15.0, 40.0)
    grid, values = align(curves, "return_perturbed", cells=5)
    assert grid.tolist() == [17.5, 22.5, 27.5, 32.5, 37.5]
    # Both logged return = steps − 10, so that interpolation is exact wherever the points lie.
    assert values == pytest.approx(np.stack([grid - 10, grid - 10]))
    assert mean_between(curves, "return_perturbed", 36.0, 40.0) == pytest.approx([28.0, 28.0])


@pytest.mark.parametrize("others", [[], [curve([100, 200], [1, 2], seed=1)]])
def test_seeds_that_share_nothing_have_no_common_curve(others):
    short = [curve([], [])] if not others else [curve([10, 20], [0, 1])]
    grid, values = align([*short, *others], "return_perturbed")
    assert grid.shape == (0,)
    assert values.shape == (1 + len(others), 0)


def test_a_single_point_is_a_curve():
    grid, values = align([curve([10], [3.0])], "return_perturbed")
    assert (grid.tolist(), values.tolist()) == ([10.0], [[3.0]])
    assert mean_between([curve([10], [3.0])], "return_perturbed", 10.0, 10.0).tolist() == [3.0]


@given(st.lists(POINTS, min_size=1, max_size=4))
def test_a_common_axis_never_leaves_any_seed(found):
    curves = [curve(steps, returns, seed) for seed, (steps, returns) in enumerate(found)]
    grid, values = align(curves, "return_perturbed")
    if not len(grid):
        assert max(steps[0] for steps, _ in found) > min(steps[-1] for steps, _ in found)
        return
    assert len(grid) in (1, CELLS)
    assert grid[0] >= max(steps[0] for steps, _ in found) - 1e-9
    assert grid[-1] <= min(steps[-1] for steps, _ in found) + 1e-9
    for (_, returns), row in zip(found, values, strict=True):
        assert row.min() >= returns.min() - 1e-6
        assert row.max() <= returns.max() + 1e-6


@given(POINTS, st.integers(1, 30))
def test_cells_together_are_the_whole_curve(points, cells):
    steps, returns = points
    edges = np.linspace(steps[0], steps[-1], cells + 1)
    area = float(np.sum(np.diff(steps) * (returns[1:] + returns[:-1]) / 2))
    assert float(np.sum(cell_means(steps, returns, edges) * np.diff(edges))) == pytest.approx(area, abs=1e-6)


def test_the_first_pass_is_of_the_smoothed_return():
    values = [0, 500, 0, 480, 480, 480, 480]
    found = curve([10 * place for place in range(1, 8)], values, iterations=range(10, 80, 10))
    assert first_pass(found, "return_perturbed", 475, 10) == (20.0, 20.0)  # one entry alone
    assert first_pass(found, "return_perturbed", 475, 20) == (50.0, 50.0)  # the mean of two
    assert first_pass(found, "return_perturbed", 475, 30) == (60.0, 60.0)
    assert first_pass(found, "return_perturbed", 475, 80) == (np.inf, np.inf)  # not that many iterations were run
    assert first_pass(found, "return_perturbed", 490, 20) == (np.inf, np.inf)
    assert first_pass(curve([], []), "return_perturbed", 1, 10) == (np.inf, np.inf)
