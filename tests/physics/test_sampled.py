"""Policies with LayerNorm and with sampled actions: to the bit the same again, and noise from the start key alone."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from epvf_data import envs
from epvf_data.physics import mjx
from epvf_data.physics.episode import act, begin
from epvf_data.physics.loop import World, control_step, start
from epvf_data.physics.play import play
from epvf_data.physics.trajectory import replay, trajectory
from epvf_data.policies import mlp
from epvf_data.policies.spec import PolicySpec
from epvf_data.rollout import rollout

ANT = envs.make("ant").with_horizon(40)
CARTPOLE = envs.make("cartpole")
WIDE = {"hidden": (13, 7), "layer_norm": True}  # widths that no vector of the processor divides


def policies(spec, count, scale=1.0, seed=0):
    keys = jax.random.split(jax.random.key(seed), count)
    return np.array(jax.vmap(lambda key: mlp.init(key, spec, scale))(keys))


def seeds(count, seed=0):
    return np.asarray(jax.random.key_data(jax.random.split(jax.random.key(seed), count)))


CASES = [(ANT, "native"), (CARTPOLE, "mjx")]


@pytest.mark.parametrize(("env", "backend"), CASES, ids=["native", "mjx"])
@pytest.mark.parametrize(
    "gaussian", [*(pytest.param(kind, marks=pytest.mark.soak) for kind in (None, "mean")), "sampled"]
)
def test_results_depend_on_nothing_but_policy_and_seed(env, backend, gaussian):
    spec = PolicySpec(env.observation_size, env.action_size, **WIDE, gaussian=gaussian)
    params, keys = policies(spec, 150), seeds(150)
    whole = rollout(env, spec, params, reset_seed=keys, episodes=2, backend=backend)
    order = np.random.default_rng(0).permutation(150)[:61]
    some = rollout(env, spec, params[order], reset_seed=keys[order], episodes=3, backend=backend)
    for one, other in zip(whole[:-1], some[:-1], strict=True):
        np.testing.assert_array_equal(one[order], other[:, :2])
    assert len(np.unique(whole.returns)) > 20
    if not env.random_start:  # only sampled actions tell episodes apart
        assert (whole.returns[:, 0] != whole.returns[:, 1]).mean() == (gaussian == "sampled")


@pytest.mark.parametrize(
    ("env", "backend"),
    [pytest.param(*CASES[0], id="native", marks=pytest.mark.soak), pytest.param(*CASES[1], id="mjx")],
)
def test_sampled_is_not_the_mean_and_without_noise_it_is(env, backend):
    sizes = (env.observation_size, env.action_size, (8,))
    specs = {kind: PolicySpec(*sizes, gaussian=kind) for kind in ("mean", "sampled")}
    params = policies(specs["mean"], 64)
    params[:, -env.action_size :] = 0.0  # a deviation of 1
    found = {kind: rollout(env, spec, params, reset_seed=seeds(64), backend=backend) for kind, spec in specs.items()}
    assert (found["mean"].returns != found["sampled"].returns).mean() > 0.5
    params[:, -env.action_size :] = -100.0
    quiet = {kind: rollout(env, spec, params, reset_seed=seeds(64), backend=backend) for kind, spec in specs.items()}
    np.testing.assert_array_equal(quiet["mean"].returns, found["mean"].returns)
    np.testing.assert_allclose(quiet["sampled"].lengths, found["mean"].lengths, atol=1)
    plain = PolicySpec(*sizes)
    bare = rollout(env, plain, params[:, : plain.size], reset_seed=seeds(64), backend=backend)
    np.testing.assert_array_equal(bare.returns, found["mean"].returns)


@pytest.mark.parametrize("number", [0, 2])
def test_a_replay_is_the_rollout_to_the_bit(number):
    spec = PolicySpec(34, 8, **WIDE, gaussian="sampled")
    params, keys = policies(spec, 5), seeds(5)
    rolled = play(ANT, spec, params, keys, backend="native", episodes=3)
    for row in range(5):
        played = replay(ANT, spec, params[row], keys[row], number)
        assert float(played.episode.returns) == rolled.returns[row, number]
        assert int(played.episode.length) == rolled.lengths[row, number]
        plain = trajectory(ANT, spec, params[row], keys[row], number)
        np.testing.assert_allclose(played.actions[:5], plain.actions[:5], atol=1e-4)


def test_noise_is_standard_normal_new_in_every_step_and_episode():
    spec = PolicySpec(4, 3, (5,), output="identity", gaussian="sampled")
    env = replace(CARTPOLE, action_size=3, control=lambda action: action[:1])
    tensors = mlp.unflatten(spec, jnp.asarray(policies(spec, 1)[0]))
    tensors["log_std"] = jnp.log(jnp.array([0.1, 1.0, 3.0]))

    def noise(seed, number, length):
        episode = start(env, spec, seed, number)._replace(length=length)
        action = act(env, spec, tensors, episode)[1]
        return (action - mlp.apply(spec, tensors, env.observe(episode.physics))) / jnp.exp(tensors["log_std"])

    over = jax.vmap(jax.vmap(jax.vmap(noise, (None, None, 0)), (None, 0, None)), (0, None, None))
    drawn = np.asarray(over(seeds(40), jnp.arange(8), jnp.arange(25)))  # [seeds, episodes, steps, 3]
    assert drawn.shape == (40, 8, 25, 3)
    np.testing.assert_allclose(drawn.std(axis=(0, 1, 2)), 1.0, atol=0.03)
    np.testing.assert_allclose(drawn.mean(axis=(0, 1, 2)), 0.0, atol=0.03)
    assert len(np.unique(drawn[..., 1])) > 0.999 * drawn[..., 1].size  # 23 random bits repeat now and then
    for one, other in ((drawn[:, :, 1:], drawn[:, :, :-1]), (drawn[:, 1:], drawn[:, :-1]), (drawn[1:], drawn[:-1])):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.03


def test_the_documented_formula_gives_the_noise():
    """docs/format.md tells strangers how to draw it."""
    spec = PolicySpec(4, 1, (5,), gaussian="sampled")
    tensors, seed = mlp.unflatten(spec, jnp.asarray(policies(spec, 1)[0])), jnp.array([7, 9], jnp.uint32)
    for number, step in ((0, 0), (3, 11)):
        episode = start(CARTPOLE, spec, seed, jnp.asarray(number))._replace(length=jnp.asarray(step, jnp.int32))
        key = jax.random.fold_in(jax.random.wrap_key_data(seed, impl="threefry2x32"), number)
        key = jax.random.fold_in(jax.random.fold_in(key, 2**32 - 1), step)
        expected = mlp.sample(spec, tensors, CARTPOLE.observe(episode.physics), key)
        np.testing.assert_array_equal(act(CARTPOLE, spec, tensors, episode)[1], expected)


@pytest.mark.parametrize("spec", [PolicySpec(4, 1), PolicySpec(4, 1, layer_norm=True, gaussian="mean")], ids=str)
def test_deterministic_policies_draw_nothing(spec):
    episode = begin(CARTPOLE, jax.random.key(0))
    assert episode.noise is None
    tensors = mlp.unflatten(spec, jnp.zeros(spec.size))
    traced = str(jax.make_jaxpr(lambda tensors, episode: act(CARTPOLE, spec, tensors, episode))(tensors, episode))
    assert "random" not in traced
    assert "threefry" not in traced
    step = control_step(CARTPOLE, spec, mjx.stepper(CARTPOLE))
    world = World(episode, jnp.zeros(0))
    assert jax.tree.structure(jax.eval_shape(step, tensors, world)) == jax.tree.structure(world)
