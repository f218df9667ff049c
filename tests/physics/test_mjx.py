"""The compiled rollout: its own promises, on CartPole where they can be checked exactly and on a short Ant."""

from dataclasses import replace

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from epvf_data import envs
from epvf_data.errors import BackendError
from epvf_data.physics.loop import SEGMENT, segment_length
from epvf_data.physics.play import play
from epvf_data.policies import mlp
from epvf_data.policies.spec import PolicySpec

CARTPOLE = envs.make("cartpole")
SMALL = PolicySpec(4, 1, hidden=(8,))
ANT = envs.make("ant").with_horizon(50)
WALKER = PolicySpec(34, 8)
CHUNK = 16


def policies(spec, count, scale=1.0, seed=0):
    keys = jax.random.split(jax.random.key(seed), count)
    return np.array(jax.vmap(lambda key: mlp.init(key, spec, scale))(keys))


def seeds(count, seed=0):
    return np.asarray(jax.random.key_data(jax.random.split(jax.random.key(seed), count)))


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def rolled(*arguments, **settings):
    return play(*arguments, backend="mjx", **settings)


def rows(outcomes, index):
    return jax.tree.map(lambda field: field[index], outcomes)


def test_cartpole_episodes_are_gymnasiums():
    """Whole episodes: same start, same policy, same length."""
    params, reset_seed = policies(SMALL, 24, scale=3.0), seeds(24)
    outcomes = rolled(CARTPOLE, SMALL, params, reset_seed, episodes=2, lanes=CHUNK)
    env, lengths = gymnasium.make("CartPole-v1"), np.zeros((24, 2), int)
    for row, flat in enumerate(params):
        kernel0, bias0, kernel1, bias1 = np.split(flat, np.cumsum([32, 8, 8]))
        for episode in range(2):
            env.reset(seed=0)
            key = jax.random.wrap_key_data(jnp.asarray(reset_seed[row]))
            start = CARTPOLE.reset(jax.random.fold_in(key, episode))
            state = np.array(CARTPOLE.observe(start), float)
            env.unwrapped.state, ended, cut = tuple(state), False, False
            while not (ended or cut):
                action = np.tanh(state @ kernel0.reshape(4, 8) + bias0) @ kernel1.reshape(8, 1) + bias1
                state, _, ended, cut, _ = env.step(int(action[0] >= 0))
                lengths[row, episode] += 1
            assert outcomes.terminated[row, episode] == ended
            assert outcomes.truncated[row, episode] == cut
    short = lengths < 100
    np.testing.assert_array_equal(outcomes.lengths[short], lengths[short])
    np.testing.assert_allclose(outcomes.lengths, lengths, rtol=0.05)  # a long balance shows 32-bit rounding
    np.testing.assert_array_equal(outcomes.returns, outcomes.lengths)
    assert outcomes.finite.all()
    assert short.sum() > 30
    assert len(np.unique(lengths)) > 5


def test_a_balancing_policy_is_truncated_at_the_horizon():
    spec = PolicySpec(4, 1, hidden=(), bias=False)
    balance = np.array([[0.05, 0.2, 1.0, 0.4]], np.float32)
    outcomes = rolled(CARTPOLE, spec, balance, seeds(1), episodes=3, discount=0.99, lanes=CHUNK)
    assert outcomes.lengths.tolist() == [[500] * 3]
    assert outcomes.truncated.all()
    assert not outcomes.terminated.any()
    np.testing.assert_array_equal(outcomes.returns, 500.0)
    np.testing.assert_allclose(outcomes.discounted, (1 - 0.99**500) / (1 - 0.99), rtol=1e-5)


def test_start_follows_seed_and_episode_number():
    params = np.repeat(policies(SMALL, 1, scale=3.0), 40, axis=0)
    outcomes = rolled(CARTPOLE, SMALL, params, seeds(40), episodes=3, lanes=CHUNK)
    assert len(np.unique(outcomes.lengths)) > 3
    again = rolled(CARTPOLE, SMALL, params[:7], seeds(40)[:7], episodes=5, lanes=CHUNK)
    same(rows(again, np.s_[:, :3]), rows(outcomes, np.s_[:7]))


def test_progress_adds_up_and_no_policies_are_fine():
    reports = []
    outcomes = rolled(
        CARTPOLE,
        SMALL,
        policies(SMALL, 50),
        seeds(50),
        episodes=2,
        lanes=CHUNK,
        threads=2,
        progress=lambda *report: reports.append(report),
    )
    assert np.sum(reports, axis=0).tolist() == [100, outcomes.env_steps]
    nothing = rolled(CARTPOLE, SMALL, np.zeros((0, SMALL.size), np.float32), np.zeros((0, 2), np.uint32))
    assert nothing.returns.shape == (0, 1)


def test_an_interrupted_rollout_stops_its_threads_and_raises():
    def interrupt(episodes, steps):
        raise KeyboardInterrupt

    params = policies(SMALL, 300)
    with pytest.raises(KeyboardInterrupt):
        rolled(CARTPOLE, SMALL, params, seeds(300), lanes=CHUNK, threads=2, progress=interrupt)


def test_settings_of_jax_stay_as_they_are():
    before = dict(jax.config.values)
    rolled(CARTPOLE, SMALL, policies(SMALL, 3), seeds(3), lanes=CHUNK)
    assert dict(jax.config.values) == before


def test_segments_fill_the_horizon():
    for horizon in (1, 7, 25, 26, 500, 997, 1000):
        length = segment_length(CARTPOLE.with_horizon(horizon))
        assert length <= SEGMENT
        assert -(-horizon // length) * length - horizon < max(2, horizon // SEGMENT + 1)


def test_a_model_that_mjx_cannot_run_is_refused_in_one_sentence():
    env = envs.make("ant")
    other = replace(env, xml=env.xml.replace('integrator="Euler"', 'integrator="implicit"'))
    assert other.digest != env.digest
    with pytest.raises(BackendError, match="MJX cannot run environment ant .*--backend native"):
        rolled(other, WALKER, policies(WALKER, 1), seeds(1))


@pytest.fixture(scope="module")
def ant_policies():
    """40 policies, more than two blocks: some fall early, and rows 5, 17 and 30 overflow or are not numbers."""
    params = policies(WALKER, 40, scale=3.0)
    params[5] *= 1e30
    params[17] = np.nan
    params[30, 100] = np.inf
    return params


@pytest.fixture(scope="module")
def ant_outcomes(ant_policies):
    return rolled(ANT, WALKER, ant_policies, seeds(40), lanes=CHUNK, threads=1)


def test_policies_that_overflow_are_flagged_and_harm_nobody(ant_policies, ant_outcomes):
    broken = np.array([17, 30])
    good = np.setdiff1d(np.arange(40), [5, 17, 30])
    assert np.isfinite(ant_outcomes.returns).all()
    assert np.isfinite(ant_outcomes.discounted).all()
    assert not ant_outcomes.finite[broken].any()
    assert ant_outcomes.terminated[broken].all()
    assert not ant_outcomes.truncated[broken].any()
    assert (ant_outcomes.lengths[broken] == 0).all()
    assert (ant_outcomes.returns[broken] == 0).all()
    assert ant_outcomes.finite[good].all()
    assert (ant_outcomes.lengths[good] >= 1).all()
    healthy = np.where(np.isin(np.arange(40), good)[:, None], ant_policies, ant_policies[good[0]])
    cured = rolled(ANT, WALKER, healthy, seeds(40), lanes=CHUNK, threads=1)
    same(rows(cured, good), rows(ant_outcomes, good))


def test_results_do_not_depend_on_place_neighbours_or_threads(ant_policies, ant_outcomes):
    order = np.random.default_rng(0).permutation(40)
    shuffled = rolled(ANT, WALKER, ant_policies[order], seeds(40), lanes=CHUNK, threads=2)
    same(shuffled, rows(ant_outcomes, order))
    alone = rolled(ANT, WALKER, ant_policies[8:9], seeds(1), lanes=CHUNK)
    same(alone, rows(ant_outcomes, [8]))


@pytest.mark.soak
def test_a_state_that_diverges_keeps_the_return_gathered_before(ant_policies):
    """The physics itself fails: the same walkers, under motors strong enough to throw them out of bounds."""
    env = replace(ANT, xml=ANT.xml.replace('gear="150"', 'gear="1e20"'), version="thrown")
    outcomes = rolled(env, WALKER, ant_policies, seeds(40), lanes=CHUNK)
    assert not outcomes.finite.any()
    assert outcomes.terminated.all()
    assert np.isfinite(outcomes.returns).all()
    assert (outcomes.lengths < 5).all()
    assert (outcomes.returns <= outcomes.lengths).all()
