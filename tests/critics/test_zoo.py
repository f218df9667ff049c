"""Every critic of the table: shapes, gradients, what it reads, and that it can be told apart from nothing learned."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from epvf_data.critics.base import Row, Scale, make_row
from epvf_data.critics.cost import cost
from epvf_data.critics.families import CRITICS, MEASURED_ON
from epvf_data.critics.losses import make_loss
from epvf_data.critics.settings import CriticSettings
from epvf_data.critics.value import value
from epvf_data.critics.zoo import MAKERS, make_critic
from epvf_data.errors import ConfigError
from epvf_data.policies import mlp
from epvf_data.policies.spec import PolicySpec
from epvf_data.policies.symmetry import flip, permute

SPEC = PolicySpec(3, 2, (6,))
SMALL = CriticSettings(widths=(12, 12), probes=7, channels=4, layers=2)
STATES = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
READS_THETA = [name for name, family in CRITICS.items() if family.reads == "params"]
# All are in `make test` where their values are compared, and in what follows one of each way to read a policy.
FEW = ("mlp", "probing")  # test_unf.py has UNF's
SHAPES = ("mlp", "stored-probing")
THETA = [pytest.param(name, marks=[pytest.mark.soak] * (name not in FEW)) for name in READS_THETA]
SYMMETRIC = ("statistics", "probing", "unf")


def policies(count, seed=0):
    return jax.vmap(lambda key: mlp.init(key, SPEC))(jax.random.split(jax.random.key(seed), count))


def unit(size):
    return Scale(jnp.zeros(size), jnp.ones(size), jnp.zeros(()), jnp.ones(()))


def moved(params, seed=9):
    """Random in every entry, so that nothing vanishes because it starts at zero."""
    flat, restore = ravel_pytree(params)
    return restore(flat + 0.1 * jax.random.normal(jax.random.key(seed), flat.shape))


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        *(pytest.param(name, "hl-gauss", marks=[pytest.mark.soak] * (name not in SHAPES)) for name in CRITICS),
        ("mlp", "mse"),
        ("mlp", "rank"),
    ],
)
def test_every_critic_maps_a_policy_to_the_numbers_of_its_loss(name, loss):
    chosen = make_loss(loss, bins=11)
    size = 14 if CRITICS[name].reads == "probe_actions" else SPEC.size
    critic = make_critic(name, SMALL, SPEC, chosen.outputs, size, STATES)
    vectors = jax.random.normal(jax.random.key(1), (5, size))

    @jax.jit
    def evaluate(vectors):
        rows = jax.vmap(lambda vector: make_row(unit(size), vector, SPEC))(vectors)
        return jax.vmap(critic.apply, in_axes=(None, 0))(critic.init(jax.random.key(0)), rows)

    outputs = evaluate(vectors)
    if critic.many is not None:
        rows = jax.vmap(lambda vector: make_row(unit(size), vector, SPEC))(vectors)
        together = critic.many(critic.init(jax.random.key(0)), rows)
        np.testing.assert_allclose(together, outputs, rtol=1e-4, atol=1e-5)
    assert outputs.shape == (5, chosen.outputs)
    assert chosen.read(outputs).shape == (5,)
    assert np.isfinite(outputs).all()


@pytest.mark.parametrize("seed", [5, pytest.param(77, marks=pytest.mark.soak)])
@pytest.mark.parametrize("name", THETA)
def test_the_gradient_is_that_of_finite_differences(name, seed):
    # Scaled to return units, so that standardisation is differentiated too. float64 tells kinks from rounding.
    with jax.enable_x64(True):
        ones = jnp.ones(SPEC.size, jnp.float64)
        scale = Scale(0.1 * ones, 0.5 * ones, jnp.asarray(3.0), jnp.asarray(7.0))
        critic, loss = make_critic(name, SMALL, SPEC), make_loss("mse")
        params = jax.jit(lambda key: moved(critic.init(key)))(jax.random.key(seed))
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
        theta = policies(1, seed)[0].astype(jnp.float64)
        direction = jax.random.normal(jax.random.key(seed + 1), (SPEC.size,), jnp.float64)

        read = jax.jit(lambda params, theta: value(critic, loss, params, scale, theta, SPEC))
        slope, step = float(jax.jit(jax.grad(read, argnums=1))(params, theta) @ direction), 1e-7
        here, before, after = (read(params, theta + move * direction) for move in (0.0, -step, step))
        left, right = (here - before) / step, (after - here) / step
        assert min(abs(slope - left), abs(slope - right)) < 1e-4 * max(1.0, abs(slope))


@pytest.mark.parametrize("name", THETA)
def test_who_reads_the_policy_sees_no_change_that_leaves_it_as_it_is(name):
    critic = make_critic(name, SMALL, SPEC)
    params = jax.jit(lambda key: moved(critic.init(key)))(jax.random.key(0))
    theta = policies(1)[0]
    read = jax.jit(lambda params, vector: critic.apply(params, Row(vector, vector, SPEC))[0])
    before = float(read(params, theta))
    for change in (permute, flip):
        after = float(read(params, change(SPEC, theta, jax.random.key(5))))
        if name in SYMMETRIC and (change is permute or name == "probing"):
            assert after == pytest.approx(before, abs=1e-5)
        else:
            assert abs(after - before) > 1e-4


@pytest.mark.parametrize("name", THETA)
def test_all_take_policies_with_layer_norm_and_a_gaussian_output(name):
    spec = PolicySpec(3, 2, (6,), layer_norm=True, gaussian="sampled")
    critic, theta = make_critic(name, replace(SMALL, layers=1), spec), mlp.init(jax.random.key(1), spec)
    read = lambda params, vector: critic.apply(params, Row(vector, vector, spec))[0]  # noqa: E731
    params = jax.jit(lambda key: moved(critic.init(key)))(jax.random.key(0))
    slope = np.asarray(jax.jit(jax.grad(read, argnums=1))(params, theta))
    assert np.isfinite(slope).all()
    for tensor in ("layer_0/norm_scale", "layer_0/norm_bias"):
        slot = spec.tensors[tensor]
        assert np.abs(slope[slot.offset : slot.offset + slot.size]).max() > 0
    assert (np.abs(slope[-2:]).max() > 0) == (name != "probing")  # actions without noise do not tell its size


def test_probing_reads_policies_of_other_widths_and_depths():
    critic = make_critic("probing", SMALL, SPEC)
    params = critic.init(jax.random.key(0))
    for hidden in ((4,), (9, 9, 9)):
        spec = PolicySpec(3, 2, hidden)
        theta = mlp.init(jax.random.key(1), spec)
        assert np.isfinite(critic.apply(params, make_row(unit(spec.size), theta, spec))).all()


def test_learned_states_start_at_the_given_ones_or_at_noise():
    started = make_critic("probing", SMALL, SPEC, states=STATES).init(jax.random.key(0))["states"]
    assert started.shape == (7, 3)
    assert {tuple(row) for row in np.asarray(started).tolist()} == {tuple(row) for row in STATES.tolist()}
    noise = CriticSettings(widths=(12,), probes=7, probe_start="noise")
    free = make_critic("probing", noise, SPEC, states=STATES).init(jax.random.key(0))["states"]
    assert not np.isin(np.asarray(free), STATES).any()
    with pytest.raises(ConfigError, match="observe 3 numbers"):
        make_critic("probing", SMALL, SPEC, states=STATES[:, :2])


def test_generated_states_have_the_spread_of_the_given_ones():
    many = CriticSettings(probes=4000, probe_generator=True, widths=(4,))
    given_states = STATES * 3 + 10
    critic = make_critic("probing", many, SPEC, states=given_states)
    params = critic.init(jax.random.key(0))
    assert params["states"]["codes"].shape == (4000, 32)
    found = params["states"]["codes"]
    for matrix in params["states"]["layers"]:
        found = found @ matrix
    assert 0.5 < float(found.std()) < 2.0


def test_unknown_names_get_the_nearest_one():
    with pytest.raises(ConfigError, match="did you mean probing"):
        make_critic("probin", SMALL, SPEC)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "msee"}, "did you mean mse"),
        ({"bound": "max"}, "choose one of"),
        ({"ensemble": 0}, "at least 1"),
        ({"bins": 1}, "at least 2"),
        ({"gradient_penalty": -1.0}, "at least 0"),
        ({"augment": "rotate"}, "choose one of"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        CriticSettings(**changes)


def test_every_family_can_be_made():
    assert set(MAKERS) == set(CRITICS)


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.soak] * (name not in FEW)) for name in CRITICS])
def test_the_table_of_critics_says_what_they_cost(name):
    found = cost(name, CriticSettings(), MEASURED_ON)
    assert found.parameters == CRITICS[name].parameters
    assert found.operations == pytest.approx(CRITICS[name].operations, rel=0.05)  # versions of XLA count differently
