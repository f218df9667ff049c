"""The loop on both backends: what it rolls out, what it compiles, and that it learns."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

import epvf_data
from epvf_data.rollout import rollout
from epvf_data.trainers.online import run
from epvf_data.trainers.online.loop import evaluation_seeds, make_loop
from epvf_data.trainers.online.run import resolve, train_online

BUDGET = {"seeds": 2, "iterations": None, "env_steps": 10_000}


def loop_of(config):
    return run.make_loop(config, *resolve(config))  # the runs' own: conftest.py


def chunks(config, count, keep=True, active=None):
    loop = loop_of(config)
    state, found = loop.init(), []
    active = np.ones(config.seeds, bool) if active is None else np.array(active)
    for _ in range(count):
        found.append(loop.advance(state, active, keep))
        state = found[-1].state
    return found


@pytest.mark.parametrize("task", ["cartpole", "ant"])
def test_returns_are_those_of_the_rollouts_door(request, task):
    config = request.getfixturevalue(task)(**BUDGET)
    env, spec, backend = resolve(config)
    chunk = chunks(config, 2)[-1]
    assert [item.iteration for item in chunk.rollouts] == list(range(config.log_every, 2 * config.log_every))
    for item in chunk.rollouts:
        params = item.proposal.params.reshape(-1, spec.size)
        reset = item.proposal.seeds.reshape(-1, 2)
        again = rollout(env, spec, params, reset_seed=reset, episodes=config.episodes, backend=backend)
        np.testing.assert_allclose(item.outcomes.returns, again.returns, rtol=1e-5)
        np.testing.assert_array_equal(item.outcomes.lengths, again.lengths)
    mean = np.mean([item.outcomes.returns.reshape(2, -1).mean(axis=1) for item in chunk.rollouts], axis=0)
    np.testing.assert_allclose(chunk.metrics["return_perturbed"], mean, rtol=1e-5)
    episodes = 8 if env.random_start else 1
    judged = rollout(
        env, spec, chunk.candidates[:, 0], reset_seed=evaluation_seeds(2), episodes=episodes, backend=backend
    )
    np.testing.assert_allclose(chunk.unperturbed[:, 0], judged.returns.mean(axis=1), rtol=1e-5)


@pytest.mark.parametrize("task", ["cartpole", "ant"])
def test_nothing_is_compiled_after_the_first_chunk(request, task):
    config = request.getfixturevalue(task)(**BUDGET)
    loop = make_loop(config, *resolve(config))
    counted = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: counted.append(event) if "backend_compile" in event else None
    )
    try:
        first = loop.advance(loop.init(), np.array([True, True]), True)
        assert counted
        counted.clear()
        second = loop.advance(first.state, np.array([True, True]), True)
        loop.advance(second.state, np.array([True, False]), True)
    finally:
        jax.monitoring.clear_event_listeners()
    assert counted == []


def test_seeds_side_by_side_are_the_runs_by_themselves(cartpole):
    both = chunks(cartpole(**BUDGET), 2)[-1]
    alone = chunks(cartpole(**BUDGET | {"seeds": 1}, seed=1), 2)[-1]
    np.testing.assert_allclose(both.candidates[1], alone.candidates[0], rtol=1e-3, atol=1e-4)
    assert not np.allclose(both.candidates[0], both.candidates[1])


@pytest.mark.parametrize("task", [pytest.param("cartpole", marks=pytest.mark.soak), "ant"])
def test_the_last_chunk_has_what_is_left_of_the_iterations(request, tmp_path, task):
    config = request.getfixturevalue(task)(iterations=3, log_every=2)
    first, last = chunks(config, 2)
    assert [item.iteration for item in first.rollouts + last.rollouts] == [0, 1, 2]
    if task == "ant":
        report = train_online(config, tmp_path / "run")
        assert (report.iterations, report.env_steps) == (3, int(first.steps.sum() + last.steps.sum()))


def test_several_policies_share_one_critic(ant):
    config = ant("ant-cpu-paper", **{"exploration.policies": 4, "policy.hidden": [8], "critic.widths": [8]})
    first, second = chunks(config, 2)
    assert first.candidates.shape[1] == 4
    assert first.unperturbed.shape == (1, 4)
    moved = np.abs(second.candidates - first.candidates).max(axis=2)
    assert (moved > 0).all()


def test_trust_cuts_the_climb(ant):
    free, cut = (
        chunks(ant(**{"improvement.trust": trust, "improvement.learning_rate": 0.03}), 1) for trust in (1e6, 0.1)
    )
    assert free[0].metrics["trusted_share"][0] == 1.0
    share = cut[0].metrics["trusted_share"][0]
    assert 0.0 < share < 1.0
    np.testing.assert_allclose(cut[0].metrics["policy_step"], share * free[0].metrics["policy_step"], rtol=1e-4)


@pytest.mark.parametrize(
    ("algorithm", "iterations"),
    [("epvf", 120), *(pytest.param(name, 100, marks=pytest.mark.soak) for name in ("es", "random"))],
)
def test_every_algorithm_learns_to_balance(cartpole, algorithm, iterations):
    changes = {
        "epvf": {"critic.steps": 10, "improvement.steps": 10, "critic.widths": [32, 32]},
        "es": {"improvement.steps": 1, "improvement.learning_rate": 0.1, "exploration.antithetic": True},
        "random": {},
    }[algorithm]
    config = cartpole(
        algorithm=algorithm,
        envs=16,
        seeds=3,
        iterations=iterations,
        log_every=iterations // 10,
        horizon=200,
        **{"policy.hidden": [16], "replay.capacity": 16 * iterations, "replay.batch_size": 16, **changes},
    )
    found = chunks(config, 10)
    first, best = found[0].metrics["return_perturbed"], np.max([chunk.unperturbed[:, 0] for chunk in found], axis=0)
    last = found[-1].metrics["return_perturbed"]
    assert np.median(best) > 150
    if algorithm != "random":
        assert np.median(last / first) > 1.5


def test_random_search_never_loses_ground(ant):
    """Its start is fixed, so θ has the return that it was chosen for, and stays where nothing is better."""
    found = chunks(ant(algorithm="random", iterations=8, horizon=30, normalise_observations=False), 8)
    best = [chunk.metrics["return_max"][0] for chunk in found]
    assert (np.diff(best) >= 0).all()
    assert best[-1] > best[0]


@pytest.mark.parametrize("task", ["cartpole", "ant"])
def test_a_seed_whose_budget_is_spent_stays_as_it_is(request, task):
    config = request.getfixturevalue(task)(**BUDGET)
    before, after = chunks(config, 2, active=[True, True])
    held = chunks(config, 1, active=[True, True])[0]
    held = loop_of(config).advance(held.state, np.array([False, True]), True)
    np.testing.assert_array_equal(held.candidates[0], before.candidates[0])
    np.testing.assert_array_equal(held.candidates[1], after.candidates[1])
    assert held.steps.tolist() == [0, after.steps[1]]
    for item in held.rollouts:
        assert item.seeds.tolist() == [1]
        assert len(item.proposal.theta) == 1
        assert len(item.outcomes.returns) == config.envs


@pytest.mark.soak
def test_every_seed_ends_with_its_own_budget(cartpole, tmp_path):
    """Policies of another seed fall earlier or later; nobody trains on for them."""
    config = cartpole(seeds=3, iterations=None, env_steps=1_000, horizon=200)
    train_online(config, tmp_path / "run", record=tmp_path / "rows.zarr")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    of = {seed: [line["env_steps"] for line in lines if line["seed"] == seed] for seed in range(3)}
    assert len({len(steps) for steps in of.values()}) > 1, "all seeds took as many iterations; nothing was tested"
    for steps in of.values():
        assert steps[-2] < 1_000 <= steps[-1]
    rows = epvf_data.open(tmp_path / "rows.zarr").table().to_numpy()
    recorded = [rows["lengths"][rows["run"] == run].sum() for run in np.unique(rows["run"])]
    assert sorted(recorded) == sorted(steps[-1] for steps in of.values())
