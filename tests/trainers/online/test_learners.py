"""Every critic that the loop can use is fitted to an iteration's rows and gives gradients with respect to θ."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from epvf_data.critics.families import CRITICS
from epvf_data.envs import make
from epvf_data.errors import ConfigError
from epvf_data.policies import mlp
from epvf_data.policies.spec import PolicySpec
from epvf_data.trainers.online.learners import Context, Rows, make_learner
from epvf_data.trainers.online.settings import CLOSED, LEARNERS, UNSCALED, online_config

SPEC = PolicySpec(4, 1, (5,))
BASE = mlp.init(jax.random.key(0), SPEC)
NOISE = 0.1


def rows(count=64):
    """Perturbations of one policy with targets that are linear in the noise."""
    noise = jax.random.normal(jax.random.key(1), (count, SPEC.size))
    slope = jax.random.normal(jax.random.key(2), (SPEC.size,)) / np.sqrt(SPEC.size)
    return Rows(BASE[None] + NOISE * noise, noise @ slope, jnp.ones(count))


def fitted(name, **changes):
    inputs = "raw" if name in UNSCALED else "centred"
    small = {"widths": [16], "probes": 6, "channels": 4, "layers": 1, "learning_rate": 1e-2, "steps": 80}
    chosen = {"name": name, "inputs": inputs, "target": "standardised", **small, **changes}
    config = online_config(
        "cartpole-paper",
        envs=64,
        **{f"critic.{key}": value for key, value in chosen.items()},
        **{"replay.capacity": 64, "replay.batch_size": 64},
    )
    learner, seen = make_learner(config, make("cartpole"), SPEC), rows()
    states = jax.random.normal(jax.random.key(3), (6, 4)) if learner.states else None
    context = Context(BASE, jnp.asarray(NOISE), states)

    @jax.jit
    def run(key):
        state, metrics = learner.fit(learner.init(key), lambda _: seen, context, key)
        values = jax.vmap(partial(learner.value, state))(seen.theta)
        return metrics, values, jax.grad(partial(learner.value, state))(BASE)

    with jax.numpy_rank_promotion("allow"):
        metrics, values, gradient = run(jax.random.key(4))
    return metrics, np.asarray(values), np.asarray(gradient), np.asarray(seen.target)


def test_all_families_but_those_without_parameters_or_steps_are_here():
    assert set(LEARNERS) == {*CRITICS, CLOSED} - {"ridge", "ridge-actions", "stored-probing"}


MANY = ("unf", "unf+raw", "probing+raw", "simba", "statistics")  # the others stand for them in `make test`


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.soak] * (name in MANY)) for name in LEARNERS])
def test_the_critic_is_fitted_and_has_a_slope(name):
    metrics, values, gradient, targets = fitted(name)
    assert float(metrics["critic_loss"]) < float(metrics["critic_loss_before"])
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0
    assert np.corrcoef(values, targets)[0, 1] > (0.2 if name in ("statistics", "probing", CLOSED) else 0.5)


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "hl-gauss", "bins": 21},
        pytest.param({"loss": "rank"}, marks=pytest.mark.soak),
        {"ensemble": 3, "bound": "lower"},
        pytest.param({"ensemble": 2, "bound": "min", "zero_last": True}, marks=pytest.mark.soak),
        {"gradient_penalty": 0.01},
        pytest.param({"block": 24}, marks=pytest.mark.soak),
    ],
)
def test_switches_of_the_critic_work_in_the_loop(changes):
    _, values, gradient, targets = fitted("mlp", **changes)
    assert np.isfinite(gradient).all()
    assert np.corrcoef(values, targets)[0, 1] > 0.5


def test_an_ensembles_lower_bound_lies_below_its_mean():
    mean, lower = (fitted("mlp", ensemble=3, bound=bound, steps=5)[1] for bound in ("mean", "lower"))
    assert (lower < mean).all()


def test_what_cannot_be_is_refused():
    for changes, message in (
        ({"critic.name": "ridge"}, "there is no critic 'ridge'"),
        ({"critic.name": "unf", "critic.inputs": "centred"}, "reads policies as they are"),
        ({"critic.loss": "rank"}, "closed form"),
    ):
        with pytest.raises(ConfigError, match=message):
            online_config("ant-cpu", **changes)
