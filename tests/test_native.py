"""The native backend through the rollout door, against MuJoCo's own `mj_step`."""

import jax
import numpy as np
import pytest

from epvf_data import envs
from epvf_data.errors import ArchitectureMismatchError, BackendError, ConfigError
from epvf_data.physics import native, play
from epvf_data.physics.trajectory import trajectory
from epvf_data.policies import mlp
from epvf_data.policies.spec import PolicySpec
from epvf_data.rollout import resolve_backend, rollout

ANT = envs.make("ant").with_horizon(60)
SPEC = PolicySpec(34, 8, (16, 16))


def policies(count, scale=2.0, seed=0):
    keys = jax.random.split(jax.random.key(seed), count)
    return np.array(jax.vmap(lambda key: mlp.init(key, SPEC, scale))(keys))


def test_returns_are_those_of_plain_mj_step():
    params = policies(12)
    outcomes = rollout(ANT, SPEC, params, backend="native")
    for row, flat in enumerate(params):
        episode = trajectory(ANT, SPEC, flat).episode
        assert outcomes.lengths[row, 0] == episode.length
        assert outcomes.terminated[row, 0] == episode.terminated
        assert outcomes.truncated[row, 0] == episode.truncated
        # Only the warm start's last digit differs (Δqvel / timestep against qacc); a falling ant amplifies it.
        np.testing.assert_allclose(outcomes.returns[row, 0], episode.returns, rtol=1e-4, atol=1e-5)


def test_a_cold_solver_would_give_other_returns(monkeypatch):
    """With one Newton iteration the warm start is part of the physics: the test above would not pass without it."""
    params = policies(12)
    warm = rollout(ANT, SPEC, params, backend="native")

    steps = native.stepper(ANT)

    def forget(state, physics, action, control, running):
        return steps.move(state.at[-2 * 14 :].set(0), physics, action, control, running)  # it ends with the warm start

    monkeypatch.setattr(native, "stepper", lambda env: steps._replace(move=forget))
    play._compiled.cache_clear()
    cold = rollout(ANT, SPEC, params, backend="native")
    play._compiled.cache_clear()
    assert np.abs(cold.returns - warm.returns).max() > 1e-3


def test_results_do_not_depend_on_batch_order_or_threads():
    params = policies(300)
    everyone = rollout(ANT, SPEC, params, backend="native")
    assert len(np.unique(everyone.lengths)) > 5, "episodes of different lengths make slots change hands"
    order = np.random.default_rng(0).permutation(300)[:77]
    some = play.play(ANT, SPEC, params[order], np.zeros((77, 2), np.uint32), backend="native", threads=1)
    assert some.observations is everyone.observations is None
    for part, whole in zip(some[:-1], everyone[:-1], strict=True):
        np.testing.assert_array_equal(part, whole[order])


def test_every_episode_ends_for_one_reason_and_is_counted_once():
    reports = []
    outcomes = rollout(
        ANT,
        SPEC,
        policies(200),
        episodes=2,
        backend="native",
        discount=0.9,
        progress=lambda *seen: reports.append(seen),
    )
    assert outcomes.returns.shape == (200, 2)
    assert (outcomes.terminated | outcomes.truncated).all()
    assert (outcomes.truncated == (outcomes.lengths == 60)).all()
    assert sum(episodes for episodes, _ in reports) == 400
    assert sum(steps for _, steps in reports) == outcomes.env_steps
    np.testing.assert_array_equal(outcomes.returns[:, 0], outcomes.returns[:, 1])  # this start has no noise
    assert (outcomes.discounted <= outcomes.returns + 1e-6).all()
    assert (outcomes.returns >= 0).all()
    assert (outcomes.returns <= outcomes.lengths).all()


@pytest.mark.parametrize(("weight", "finite"), [(1e30, True), (np.nan, False), (np.inf, False)])
def test_a_policy_that_overflows_gives_a_finite_flagged_row_and_disturbs_no_other(weight, finite, in_tmp):
    """Weights of 1e30 only saturate tanh; infinite ones give inf · 0 = NaN."""
    params = policies(20)
    calm = rollout(ANT, SPEC, params, backend="native")
    params[7] = weight
    params[7, ::2] *= -1
    outcomes = rollout(ANT, SPEC, params, backend="native")
    assert np.isfinite(outcomes.returns).all()
    assert outcomes.finite[7, 0] == finite
    if not finite:
        assert outcomes.terminated[7, 0]
        assert not outcomes.truncated[7, 0]
        assert outcomes.lengths[7, 0] == 0
    others = np.arange(20) != 7
    for before, after in zip(calm[:-1], outcomes[:-1], strict=True):  # no observations were asked for
        np.testing.assert_array_equal(after[others], before[others])
    assert not list(in_tmp.iterdir()), "MuJoCo must not write MUJOCO_LOG.TXT"


def test_physics_that_diverges_gives_a_finite_flagged_row(in_tmp, monkeypatch):
    """A start at an absurd speed: MuJoCo's state passes its own bound within a step."""
    from dataclasses import replace

    fast = replace(ANT, reset=lambda key: ANT.reset(key)._replace(qvel=ANT.reset(key).qvel.at[7].set(1e9)))
    outcomes = rollout(fast, SPEC, policies(3), backend="native")
    assert np.isfinite(outcomes.returns).all()
    assert not outcomes.finite.any()
    assert outcomes.terminated.all()
    assert not list(in_tmp.iterdir())


def test_a_failing_progress_report_stops_every_thread():
    def fail(episodes, steps):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rollout(ANT, SPEC, policies(600), backend="native", progress=fail)
    assert np.isfinite(rollout(ANT, SPEC, policies(2), backend="native").returns).all(), "the pool lives on"


def test_wrong_input_is_one_sentence():
    with pytest.raises(ConfigError, match="choose one of auto, mjx, native"):
        resolve_backend(ANT, "cuda")
    with pytest.raises(BackendError, match="not a MuJoCo model"):
        resolve_backend(envs.make("cartpole"), "native")
    with pytest.raises(ArchitectureMismatchError, match="need shape"):
        rollout(ANT, SPEC, policies(2)[:, :-1])
    with pytest.raises(ArchitectureMismatchError, match="environment cartpole has 4 and 1"):
        rollout(envs.make("cartpole"), SPEC, policies(2))
    with pytest.raises(ConfigError, match="at least 1"):
        rollout(ANT, SPEC, policies(2), episodes=0)
    with pytest.raises(ConfigError, match="reset seeds of shape"):
        rollout(ANT, SPEC, policies(2), reset_seed=np.zeros((3, 2), np.uint32))
