"""Critics that use time: segments, rows, stored policies, targets and gradients, and whole runs."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import signal
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

import epvf_data
from epvf_data.collectors.resimulate import resimulate
from epvf_data.config import to_dict
from epvf_data.errors import ConfigError, RunError
from epvf_data.physics.play import stepper_of
from epvf_data.policies import mlp
from epvf_data.policies.probe import probe
from epvf_data.rollout import rollout
from epvf_data.store.validate import validate
from epvf_data.trainers import checkpoint
from epvf_data.trainers.online import loop, pavf, run, step_iteration, step_loop
from epvf_data.trainers.online.loop import evaluation_seeds, iteration_of
from epvf_data.trainers.online.representation import represent
from epvf_data.trainers.online.run import resolve
from epvf_data.trainers.online.segments import begin_worlds, make_segment, world_keys
from epvf_data.trainers.online.settings import online_config
from epvf_data.trainers.online.state import fold
from epvf_data.trainers.online.step_loop import make_step_loop
from epvf_data.trainers.online.transitions import Rows, folded, n_step, policy, push

SLIDE = f"{Path(__file__).with_name('slide.py')}:make"
TINY = {
    "env": SLIDE,
    "envs": 8,
    "seed": 1,
    "iterations": 6,
    "env_steps": None,
    "log_every": 1,
    "checkpoint_seconds": 0.0,
    "policy.hidden": [8],
    "critic.widths": [16, 16],
    "critic.loss": "hl-gauss",
    "critic.bins": 11,
    "critic.ensemble": 2,
    "critic.bound": "min",
    "critic.steps": 4,
    "replay.capacity": 256,
    "replay.batch_size": 16,
    "time.segment": 8,
    "time.hold": 3,
    "time.n_step": 3,
    "time.warmup": 64,
    "time.critic_first": 0,
    "time.probes": 4,
    "time.projection": 6,
    "time.record_every": 3,
    "time.reward_range": [0.0, 1.0],
    "time.anneal_at": None,
    "time.redraw": 2,
    "time.average": 3,
}
PAIR = {"seed": 0, "seeds": 2, "log_every": 4}  # the second chunk is shorter
PLAIN = {"critic.loss": "mse", "critic.ensemble": 1}
LEARNS = {
    **PLAIN,
    "seed": 0,
    "time.hold": 2,
    "time.average": 4,
    "time.redraw": None,
    "critic.steps": 64,
    "envs": 16,
    "time.segment": 16,
    "time.warmup": 512,
    "replay.capacity": 8192,
    "replay.batch_size": 64,
    "log_every": 10,
    "iterations": 60,
}


def tiny(**changes):
    return online_config("ant-pavf", **{**TINY, **changes})


@functools.cache
def loop_of(config):
    return run.make_step_loop(config, *resolve(config))  # the runs' own: conftest.py


@functools.cache
def chunks_of(config):
    """The chunks of a run, the state before them, and what was compiled after the first one."""
    loop, found, compiled = loop_of(config), [], []
    first = state = loop.init()

    def listen(event, seconds, **_):
        if "backend_compile" in event:
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        while not found or iteration_of(state) < config.iterations:
            found.append(loop.advance(state, np.ones(config.seeds, bool), False))
            state = found[-1].state
            if len(found) == 1:
                compiled.clear()
    finally:
        jax.monitoring.clear_event_listeners()
    return found, first, compiled


def states_of(config):
    found, first, _ = chunks_of(config)
    return [first_seed(state) for state in (first, *(chunk.state for chunk in found))]


def first_seed(state):
    return jax.tree.map(lambda leaf: leaf[0], state)


def anyhow(function):
    """As the loop calls its functions: shapes broadcast as in NumPy."""

    def call(*arguments):
        with jax.numpy_rank_promotion("allow"):
            return jax.jit(function)(*arguments)

    return call


@given(st.data())
def test_n_step_sums_are_those_of_a_plain_loop(data):
    length, steps = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 6))
    flags = st.lists(st.booleans(), min_size=length, max_size=length)
    terminated = np.array(data.draw(flags))
    done = terminated | np.array(data.draw(flags))
    reward = np.array(data.draw(st.lists(st.floats(-2, 2, width=32), min_size=length, max_size=length)), np.float32)
    padded = [np.pad(leaf, (0, 9 - length)) for leaf in (reward, terminated, done)]
    padded[2][length:] = True  # one shape for all: what comes behind is another episode
    padded[2][length - 1] = True
    sums, factors, lasts = _n_step(*padded, steps)
    done[-1] = True
    for start in range(length):
        total, factor, at = 0.0, 1.0, start
        for at in range(start, min(start + steps, length)):
            total += factor * reward[at]
            factor = 0.0 if terminated[at] else factor * 0.9
            if done[at]:
                break
        np.testing.assert_allclose(sums[start], total, atol=1e-5)
        np.testing.assert_allclose(factors[start], factor, atol=1e-6)
        assert lasts[start] == at


_n_step = jax.jit(functools.partial(n_step, discount=0.9))  # for any number of steps


def test_sums_end_with_the_segment():
    nothing = jnp.zeros(4, bool)
    sums, factors, lasts = n_step(jnp.ones(4), nothing, nothing, 3, 0.5)
    assert sums.tolist() == [1.75, 1.75, 1.5, 1.0]
    assert factors.tolist() == [0.125, 0.125, 0.25, 0.5]  # the value of the state there counts
    assert lasts.tolist() == [2, 3, 3, 3]


def test_the_replay_is_a_list_of_the_newest_rows():
    one, two = jnp.zeros(6), jnp.zeros((6, 2))
    put, blank = jax.jit(push), Rows(two, two, one, one, two, two, jnp.zeros(6, jnp.int32))
    expected: list[float] = []
    for iteration in range(7):
        block = jax.tree.map(lambda leaf, i=iteration: jnp.full_like(leaf[:2], 10 * i), blank)
        block = block._replace(reward=block.reward + jnp.arange(2))
        blank = put(blank, block, iteration)
        expected = [*expected, 10.0 * iteration, 10.0 * iteration + 1][-6:]
        filled = min(2 * (iteration + 1), 6)
        assert sorted(blank.reward[:filled].tolist()) == sorted(expected)
        np.testing.assert_array_equal(blank.policy[:filled] // 10, blank.reward[:filled] // 10)


def test_worlds_start_again_and_keep_going():
    config = tiny()
    env, spec, backend = resolve(config)
    stepper = stepper_of(env, backend)
    worlds = begin_worlds(env, stepper, jax.random.key(0), 8)
    assert len(np.unique(worlds.episode.length)) > 3  # their clocks are spread
    params = jax.vmap(lambda key: mlp.init(key, spec, 8.0))(jax.random.split(jax.random.key(1), 8))
    segment_of = anyhow(make_segment(env, spec, stepper, 48, True))
    found = segment_of(params, worlds, jnp.zeros(8), world_keys(jax.random.key(2), 8))
    (ended, segment), worlds = jax.tree.map(np.asarray, (found, worlds))
    terminated, done = segment.terminated, segment.done
    assert terminated.any()
    assert (done & ~terminated).any()
    assert ended.episode.running.all()
    acted = jax.vmap(lambda own, seen: probe(spec, own, seen), in_axes=(0, 1), out_axes=1)
    np.testing.assert_allclose(acted(params, segment.observation), segment.action, atol=1e-5)
    for world in range(8):
        age, total = int(worlds.episode.length[world]), 0.0
        for time in range(48):
            age, total = age + 1, total + segment.reward[time, world]
            np.testing.assert_allclose(segment.returns[time, world], total, rtol=1e-4, atol=1e-5)
            beyond = abs(segment.after[time, world, 0]) > 2.0
            assert (bool(terminated[time, world]), bool(done[time, world])) == (beyond, beyond or age == env.horizon)
            if time < 47 and not done[time, world]:
                np.testing.assert_array_equal(segment.after[time, world], segment.observation[time + 1, world])
            elif time < 47:  # a fresh start: in the middle of the track and at rest
                assert abs(segment.observation[time + 1, world, 0]) <= 1.5
                assert segment.observation[time + 1, world, 1] == 0.0
            if done[time, world]:
                age, total = 0, 0.0


@pytest.mark.parametrize(
    ("redraw", "shuffled"),
    [(2, False), *(pytest.param(*pair, marks=pytest.mark.soak) for pair in ((None, False), (3, True)))],
)
def test_stored_policies_are_given_again_by_their_keys(redraw, shuffled):
    """What a row says its policy does, and that policy's z, are those of the policy made from its number.

    Where z is shuffled as a control, it is the neighbour's.
    """
    config = tiny(**{"time.redraw": redraw, "time.shuffled": shuffled})
    _, spec, _ = resolve(config)
    state = states_of(config)[-1]
    inner, total = state.inner, 6 * step_iteration.steps_of(config)
    assert len(inner.replay.reward) == 256
    rows = np.random.default_rng(0).choice(256, 24, replace=False)
    assert total > 256  # the ring has gone round

    def again(row):
        number = inner.replay.policy[row]
        params = folded(config, spec, inner.policies, number)
        action = mlp.apply(spec, mlp.unflatten(spec, params), inner.replay.after[row])
        other = number // config.envs * config.envs + (number + shuffled) % config.envs
        z = represent(config, spec, inner.representation, *policy(config, inner.policies, other))
        return action, z, inner.policies.z[number // config.envs, number % config.envs]

    action, z, stored = anyhow(jax.vmap(again))(rows)
    np.testing.assert_allclose(action, inner.replay.next_action[rows], atol=1e-5)
    np.testing.assert_allclose(z, stored, atol=1e-5)
    assert np.std(stored) > 0.01


def test_perturbations_last_as_long_as_they_shall():
    inners = [state.inner for state in states_of(tiny())[1:]]
    seen = [[np.asarray(leaf) for leaf in (one.policy, one.left, one.worlds.episode.length)] for one in inners]
    for before, after in itertools.pairwise(seen):
        ended = before[1] <= 0
        np.testing.assert_array_equal(before[0] != after[0], ended)
        assert (after[2][~ended & (after[1] > 0)] > 0).all()  # worlds run on
    assert any((before[0] == after[0]).any() for before, after in itertools.pairwise(seen))


def test_the_average_of_theta_is_the_mean_first_and_then_an_exponential_one():
    config = tiny()
    theta = expected = np.zeros(0)
    since = -step_iteration.warm_iterations(config)
    for state in states_of(config)[1:]:
        since += 1
        theta = np.asarray(state.theta[0], np.float64)
        expected = theta if since <= 1 else expected + (theta - expected) / min(since, 3)
        np.testing.assert_allclose(state.inner.average, expected, atol=1e-6)
    assert since > 3
    assert np.abs(state.inner.average - theta).max() > 1e-5


def test_best_is_chosen_by_the_mean_of_tiny_disturbances(tmp_path):
    """An exact return hangs on rounding, so the highest of many is luck."""
    report = run.train_online(tiny(), tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    means = [line["return_disturbed"] for line in lines]
    assert len(means) == 6
    assert report.return_best == pytest.approx(max(means))
    assert report.return_disturbed == pytest.approx(means[-1])
    assert report.return_best != max(line["return_unperturbed"] for line in lines)
    kept = checkpoint.restore(tmp_path / "run" / "checkpoints")
    assert kept["best_score"] == pytest.approx(max(means))


@pytest.mark.parametrize("worlds", [16, 4096])
def test_the_running_mean_of_returns_tells_of_now_however_many_worlds_there_are(worlds):
    """It decides when noise falls: over one episode of each of 4,096 worlds it lay four million steps behind."""
    rng = np.random.default_rng(0)
    mean, ended, within = jnp.zeros(()), 0, min(worlds, 128)
    for level in (100.0, 900.0):
        start = ended
        while ended - start < 5 * within:
            done = rng.random((16, worlds)) < 0.05 / (worlds / 16)
            mean = step_iteration.recent(mean, jnp.full(done.shape, level), jnp.asarray(done))
            ended += done.sum()
    assert 850 < mean < 900
    assert step_iteration.recent(mean, jnp.ones((2, worlds)), jnp.zeros((2, worlds), bool)) == mean


def test_noise_and_rates_fall_over_the_budget(tmp_path):
    config = tiny(**{"time.anneal_after": 0.5, "time.anneal_to": 0.1, "iterations": 8})
    report = run.train_online(config, tmp_path / "run")
    assert report.finished
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    # Of the k-th iteration (k - 1) / 8 of the budget were spent before; what it leaves holds for the next one.
    wanted = [0.1 ** max(0.0, (k / 8 - 0.5) / 0.5) for k in range(8)]
    assert [line["anneal_factor"] for line in lines] == pytest.approx([1.0, *wanted[:-1]])
    with pytest.raises(RunError, match="iterations 8, over which its noise and rates fall"):
        run.train_online(dataclasses.replace(config, iterations=16), tmp_path / "run", resume=True)


def test_the_control_of_q_s_rank_is_a_rank_by_the_size_of_the_noise():
    """A small perturbation of a good θ is better than a large one, and no critic is needed to say so."""
    config = tiny(**PAIR)
    chunk = loop_of(config).advance(loop_of(config).init(), np.ones(2, bool), True)
    outcomes, scale = chunk.rollouts[0].outcomes, chunk.rollouts[0].proposal.scale
    returns = outcomes.discounted.mean(axis=1).reshape(2, 8)
    wanted = [spearmanr(-np.asarray(scale[seed]), returns[seed]).statistic for seed in range(2)]
    assert all(0.0 < abs(one) < 1.0 for one in wanted)
    np.testing.assert_allclose(chunk.metrics["size_rank_perturbed"], wanted, atol=1e-6)


def test_theta_of_random_starts_is_judged_in_more_episodes_than_its_disturbances():
    config = tiny(**{"env": "hopper", "horizon": 40, "iterations": 1, "time.reward_range": None, "critic.loss": "mse"})
    env, spec, backend = resolve(config)
    chunk = make_step_loop(config, env, spec, backend).advance(loop_of(config).init(), np.ones(1, bool), False)
    judged = functools.partial(rollout, env, spec, backend=backend)
    key = evaluation_seeds(17)
    assert chunk.unperturbed[0, 0] == pytest.approx(
        judged(chunk.candidates[0], reset_seed=key[:1], episodes=8).returns.mean()
    )
    inner, noise = first_seed(chunk.state).inner, jax.random.normal(jax.random.key(0), (16, spec.size))
    normaliser = first_seed(chunk.state).normaliser
    around = jnp.stack([fold(spec, normaliser, inner.average + 0.0025 * one) for one in noise])
    key[1:, 1] += np.arange(1, 17, dtype=np.uint32)  # each from starts of its own
    returns = judged(np.asarray(around), reset_seed=key[1:], episodes=2).returns
    assert len(np.unique(returns)) == 32
    assert chunk.metrics["return_disturbed"][0] == pytest.approx(returns.mean(), rel=1e-3)


def numpy_critic(params, x, member=0):
    tree = jax.tree.map(lambda leaf: np.asarray(leaf[member], np.float64), params)["params"]
    for layer in range(2):
        x = x @ tree[f"Dense_{layer}"]["kernel"] + tree[f"Dense_{layer}"]["bias"]
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        x = np.maximum(x * tree[f"LayerNorm_{layer}"]["scale"] + tree[f"LayerNorm_{layer}"]["bias"], 0)
    return (x @ tree["Dense_2"]["kernel"] + tree["Dense_2"]["bias"])[:, 0]


def numpy_policy(spec, params, x):
    tensors = {name: np.asarray(leaf) for name, leaf in mlp.unflatten(spec, params).items()}
    for layer in range(2):
        x = np.tanh(x @ tensors[f"layer_{layer}/kernel"] + tensors[f"layer_{layer}/bias"])
    return x


def known_of(config, state):
    inner = state.inner
    return pavf.Known(
        *(inner.replay, inner.policies, inner.representation, state.normaliser, jnp.int32(256), jnp.int32(32)),
        *(jnp.float32(1.0), jnp.float32(1e-3)),
    )


def test_a_random_z_tells_nothing_of_the_row():
    """Rows of one policy get the z of many, others in the next batch; without the control they get that policy's."""
    state = states_of(tiny())[-1]
    rows = jax.tree.map(lambda leaf: jnp.repeat(leaf[:1], 16, axis=0), state.inner.replay)
    stored = np.asarray(state.inner.policies.z).reshape(-1, 6)
    got = {}
    for drawn in (False, True):
        config = tiny(**{**PLAIN, "time.own": 1.0, "time.random_z": drawn})
        _, spec, _ = resolve(config)
        known, learner = known_of(config, state), pavf.make_learner(config, spec)
        learned = pavf.init(learner, jax.random.key(3), state.theta[0], 6)
        given = lambda key: pavf.targets(learner, known, learned, rows, key)[1]  # noqa: B023, E731
        got[drawn] = [np.asarray(anyhow(given)(jax.random.key(seed))) for seed in (0, 1)]
    np.testing.assert_array_equal(got[False], np.broadcast_to(stored[int(rows.policy[0])], (2, 16, 6)))
    assert not np.array_equal(*got[True])
    assert min(len(np.unique(z, axis=0)) for z in got[True]) >= 8
    assert all((stored == z).all(axis=1).any() for batch in got[True] for z in batch)


@pytest.mark.parametrize("members", [1, 2])
def test_targets_are_what_numpy_computes(members):
    config = tiny(
        **{"critic.loss": "mse", "critic.ensemble": members, "time.smoothing": 0.0},
        **{"time.own": 0.5, "time.cross": 0.25, "time.reward_range": [0.0, 0.1]},
    )
    _, spec, _ = resolve(config)
    state = states_of(tiny())[-1]
    known, learner = known_of(config, state), pavf.make_learner(config, spec)
    learned = pavf.init(learner, jax.random.key(3), state.theta[0], 6)
    target = jax.tree.map(lambda leaf: leaf + 0.1, learned.target)
    learned = learned._replace(target=target)
    rows = jax.tree.map(lambda leaf: leaf[:16], known.replay)
    key = jax.random.key(5)
    found, z = anyhow(lambda learned, known: pavf.targets(learner, known, learned, rows, key))(learned, known)

    other = int(jax.random.randint(jax.random.split(key)[0], (), 0, known.stored))
    stored = np.asarray(known.policies.z).reshape(-1, 6)
    now = np.asarray(represent(config, spec, known.representation, state.theta[0], state.normaliser))
    expected_z = np.stack([*stored[np.asarray(rows.policy[:8])], *[stored[other]] * 4, *[now] * 4])
    np.testing.assert_allclose(z, expected_z, atol=1e-6)
    acts = [folded(config, spec, known.policies, jnp.int32(other)), fold(spec, state.normaliser, state.theta[0])]
    after = np.asarray(rows.after)
    acted = [numpy_policy(spec, acts[0], after[8:12]), numpy_policy(spec, acts[1], after[12:])]
    action = np.concatenate([np.asarray(rows.next_action[:8]), *acted])
    mean, variance = np.asarray(state.normaliser.mean), np.asarray(state.normaliser.squares / state.normaliser.count)
    std = np.sqrt(variance)
    seen = np.clip((after - mean) / np.maximum(std, 1e-2), -5, 5)
    x = np.concatenate([seen, action, expected_z], axis=1)
    said = np.stack([numpy_critic(target, x, member) for member in range(members)])
    value = np.concatenate([said.mean(0)[:12], said.min(0)[12:]])  # the smaller one counts where θ chose the action
    bound = 0.1 * 0.1 / (1 - 0.99)
    expected = np.clip(0.1 * np.asarray(rows.reward) + np.asarray(rows.discount) * value, 0.0, bound)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert 0 < np.mean((expected > 0) & (expected < bound)) < 1  # some are clipped, some are not


def test_theta_climbs_through_actions_and_through_z():
    config, state = tiny(), states_of(tiny())[-1]
    _, spec, _ = resolve(config)
    known, theta = known_of(config, state), state.theta[0]
    states = known.replay.observation[:16]

    def check(config, critic, weight):
        learner = pavf.make_learner(config, spec)

        def plain(theta, other):
            params = fold(spec, state.normaliser, theta)
            action, sums = pavf.acts(spec, params, states)
            z = represent(config, spec, known.representation, other, state.normaliser)
            q = pavf.value(learner, critic, pavf.seen(state.normaliser, states), action, z)
            return q.mean() - config.time.action_penalty * jnp.square(sums).mean()

        first, second = anyhow(jax.grad(plain, argnums=(0, 1)))(theta, theta)
        lengths = [np.linalg.norm(part) for part in (first, second)]
        assert lengths[1] > 1e-5
        # The part through z is never the longer one; of V(s, θ) it is all there is, but for the penalty.
        limit = min(1.0, lengths[0] / lengths[1]) if config.algorithm == "pavf" else 1.0
        climb = lambda theta: pavf.policy_gradient(learner, known, critic, theta, states)  # noqa: E731
        found, metrics = anyhow(climb)(theta)
        np.testing.assert_allclose(found, first + weight * limit * second, atol=1e-6)
        np.testing.assert_allclose(metrics["gradient_z"], lengths[1], rtol=1e-3)
        return limit * lengths[1] / lengths[0]

    for weight in (1.0, 0.0):
        check(tiny(**{"time.z_gradient": weight}), state.inner.critic, weight)
    psvf = tiny(**{"algorithm": "psvf", "time.own": 1.0, "time.z_gradient": 1.0})
    critic = pavf.init(pavf.make_learner(psvf, spec), jax.random.key(7), theta, 6).critic  # it reads no action
    noise = lambda leaf: leaf + 0.3 * jax.random.normal(jax.random.key(leaf.size), leaf.shape)  # noqa: E731
    assert check(psvf, jax.tree.map(noise, critic), 1.0) > 1.0  # the last layer of a fresh one is zero


def test_nothing_is_compiled_after_the_first_chunk():
    found, _, compiled = chunks_of(tiny(**PAIR))
    assert [chunk.state.iteration.tolist() for chunk in found] == [[4, 4], [6, 6]]
    assert compiled == []


class Stop(Exception):
    pass


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(None, id="SIGKILL"),
        *(pytest.param(one, marks=pytest.mark.soak) for one in (KeyboardInterrupt, Stop)),
    ],
)
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path, kill_at, error):
    """Killed, interrupted, or ended by whatever `progress` raises."""
    config, files = tiny(**PAIR), [tmp_path / name for name in ("whole", "stopped")]

    def stop(event):
        if event["iteration"] == 4:
            raise error

    run.train_online(config, files[0], record=tmp_path / "whole.zarr")
    if error is None:
        kill_at(4, "ant-pavf", to_dict(config), files[1], tmp_path / "stopped.zarr")
    else:
        with pytest.raises(error):
            run.train_online(config, files[1], record=tmp_path / "stopped.zarr", progress=stop)
    run.train_online(config, files[1], record=tmp_path / "stopped.zarr", resume=True)
    check_same_end(*files)
    clock = lambda line: {key: value for key, value in json.loads(line).items() if "seconds" not in key}  # noqa: E731
    told = [[clock(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in files]
    assert told[0] == told[1]
    for name in ("whole", "stopped"):
        dataset = epvf_data.open(tmp_path / f"{name}.zarr")
        assert dataset.rows == 2 * 2 * config.envs  # two chunks
        assert validate(tmp_path / f"{name}.zarr", deep=True) == []
    assert resimulate(dataset, 10, env=config.env).max_error == 0
    scale = np.asarray(dataset.table().column("scale"))
    assert (scale >= 0.01 - 1e-6).all()
    assert len(np.unique(scale)) > 8


def check_same_end(*runs):
    """The last checkpoints are the same to the bit but for the clock."""
    first, second = (checkpoint.restore(run / "checkpoints") for run in runs)
    first.pop("seconds"), second.pop("seconds")
    assert jax.tree.all(jax.tree.map(lambda a, b: np.array_equal(a, b, equal_nan=True), first, second))


def test_ctrl_c_stops_within_a_chunk(tmp_path, monkeypatch):
    """Between two calls of a few iterations, not after the minute that a chunk of another body takes."""
    config, files, calls = tiny(log_every=4), [tmp_path / name for name in ("whole", "stopped")], []
    run.train_online(config, files[0])

    def timed(seconds, name, *work):
        calls.append(name)
        if len(calls) == 6:  # the first call of the second chunk
            signal.raise_signal(signal.SIGINT)
        return loop.timed(seconds, name, *work)

    with monkeypatch.context() as patch:
        patch.setattr(step_loop, "PIECE", 1)
        patch.setattr(step_loop, "timed", timed)
        with pytest.raises(KeyboardInterrupt):
            run.train_online(config, files[1])
        assert calls == ["training"] * 4 + ["evaluation", "training"]
        assert checkpoint.latest(files[1] / "checkpoints") == 4
        run.train_online(config, files[1], resume=True)  # in calls of one iteration each
    check_same_end(*files)


def test_seeds_are_the_runs_by_themselves():
    both, alone = (chunks_of(config)[0][-1] for config in (tiny(**PAIR), tiny()))
    np.testing.assert_allclose(both.candidates[1], alone.candidates[0], rtol=1e-3, atol=1e-4)
    assert not np.allclose(both.candidates[0], both.candidates[1])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"env": "cartpole"}, "discrete actions"),
        ({"horizon": 4}, "segment of 8 control steps is longer"),
        ({"time.segment": 64, "replay.capacity": 4096}, "ends after 40 control steps"),
        ({"replay.batch_size": 512}, "a batch of 512"),
        ({"replay.capacity": 32}, "an iteration of 8 worlds"),
        ({"critic.steps": 3}, "multiple of time.delay"),
        ({"time.own": 0.8, "time.cross": 0.4}, "shares of a batch"),
        ({"time.n_step": 9}, "sums end with the segment"),
        ({"time.sigma": [0.1, 0.01]}, "the smaller one first"),
        ({"time.discount": 1.0}, "bootstraps without end"),
        ({"time.representation": "probbing"}, "did you mean probing"),
        ({"critic.loss": "rank"}, "learns values"),
        ({"critic.loss": "hl-gauss", "time.reward_range": None}, "learns values"),
        ({"exploration.antithetic": True}, "by itself"),
        ({"policy.gaussian": "sampled"}, "adds noise to actions"),
        ({"algorithm": "psvf"}, "through z alone"),
    ],
)
def test_what_makes_no_sense_gets_one_sentence(changes, sentence):
    def attempt():
        config = tiny(**changes)
        make_step_loop(config, *resolve(config))

    with pytest.raises(ConfigError, match=sentence) as caught:
        attempt()
    assert "\n" not in str(caught.value)


def test_rewards_beyond_the_range_end_the_run(tmp_path):
    """As the loop asks; and, exhaustively, in a run."""
    config, metrics = tiny(**{"time.reward_range": [0.0, 0.1]}), chunks_of(tiny())[0][-1].metrics
    with pytest.raises(ConfigError, match="widen it"):
        step_loop.check_rewards(config, metrics)
    step_loop.check_rewards(tiny(), metrics)


@pytest.mark.soak
def test_a_run_ends_where_rewards_leave_their_range(tmp_path):
    with pytest.raises(ConfigError, match="widen it"):
        run.train_online(tiny(**{"time.reward_range": [0.0, 0.1]}), tmp_path / "run")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        *(
            pytest.param(changes, marks=pytest.mark.soak)
            for changes in (
                {"time.representation": "raw", "time.cross": 0.25},
                {"time.representation": "none", "normalise_observations": False},
                {"algorithm": "psvf", "time.own": 1.0, "time.z_gradient": 1.0},
            )
        ),
    ],
    ids=["probing", "raw", "none", "psvf"],
)
def test_every_kind_of_critic_takes_its_steps(changes):
    found = chunks_of(tiny(**changes))[0][-1]
    assert np.isfinite(found.metrics["critic_loss"]).all()
    assert found.metrics["policy_step"] > 0
    assert np.isfinite(found.candidates).all()


def test_it_learns():
    found = chunks_of(tiny(**LEARNS))[0]
    assert found[0].unperturbed[0, 0] < 25 < 33 < found[-1].unperturbed[0, 0]
