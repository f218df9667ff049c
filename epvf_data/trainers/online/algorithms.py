"""EPVF, OpenAI-ES and random search: what each does with an iteration's results. One seed; `vmap` for several."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from epvf_data.envs import Env
from epvf_data.improvement.ascent import climb, make_improver, rate_at
from epvf_data.policies.kinds import Spec
from epvf_data.streams import STREAMS
from epvf_data.trainers.online import diagnostics
from epvf_data.trainers.online.exploration import iteration_key, noise_scale
from epvf_data.trainers.online.learners import Context, Rows, centred_ranks, make_learner, shape_targets
from epvf_data.trainers.online.replay import Buffer, make_buffer, push, sample
from epvf_data.trainers.online.settings import OnlineConfig
from epvf_data.trainers.online.state import Metrics, Proposal, Result, State, typed_key


class Algorithm(NamedTuple):
    """`init(key) → inner`; `fit` and then `improve`: (state, proposal, result) → (state, metrics).

    The two are apart so that their times can be told.
    """

    init: Callable[[PRNGKeyArray], Any]
    fit: Callable[[State, Proposal, Result], tuple[State, Metrics]]
    improve: Callable[[State, Proposal, Result], tuple[State, Metrics]]
    observations: bool = False  # whether `fit` needs those of the result


class Critic(NamedTuple):
    """What EPVF keeps between iterations."""

    learner: Any
    buffer: Buffer | None


def make_algorithm(config: OnlineConfig, env: Env, spec: Spec) -> Algorithm:
    """The algorithm that the settings name."""
    return {"epvf": epvf, "es": evolution, "random": random_search}[config.algorithm](config, env, spec)


def improver_of(config: OnlineConfig):
    """The optimiser of θ."""
    chosen = config.improvement
    return make_improver(chosen.weight_clip, chosen.weight_decay, chosen.beta1, chosen.beta2, chosen.optimiser)


def epvf(config: OnlineConfig, env: Env, spec: Spec) -> Algorithm:
    """Algorithm 1 of Bohlinger & Peters: K critic steps on the buffer, then L policy steps up V."""
    learner, improver, chosen = make_learner(config, env, spec), improver_of(config), config.improvement

    def init(key: PRNGKeyArray) -> Critic:
        return Critic(learner.init(key), make_buffer(config, spec.size))

    def fit(state: State, proposal: Proposal, result: Result) -> tuple[State, Metrics]:
        inner: Critic = state.inner
        predicted = jax.vmap(partial(learner.value, inner.learner))(proposal.theta)
        key = jax.random.fold_in(typed_key(iteration_key(state)), STREAMS["critic"])
        buffer, draw = _rows(config, env, state, proposal, result, inner.buffer)
        context = Context(
            state.theta[0], jnp.mean(noise_scale(config, state.theta[0])), _states(learner.states, result, key)
        )
        fitted, metrics = learner.fit(inner.learner, draw, context, key)
        metrics["critic_heldout_correlation"] = diagnostics.correlation(predicted, result.returns)
        return state._replace(inner=Critic(fitted, buffer)), metrics

    def improve(state: State, proposal: Proposal, result: Result) -> tuple[State, Metrics]:
        value = partial(learner.value, state.inner.learner)
        rate = rate_at(chosen.learning_rate, chosen.final_learning_rate, state.fraction, chosen.final_at)
        gradient = jax.grad(value)(state.theta[0])
        move = jax.vmap(lambda theta, moments: climb(value, improver, theta, moments, chosen.steps, rate))
        theta, moments, norms = move(state.theta, state.improver)
        gain = jax.vmap(value)(theta) - jax.vmap(value)(state.theta)
        metrics = {"policy_gradient_norm": norms.mean(), "policy_learning_rate": rate, "predicted_gain": gain.mean()}
        if chosen.trust is not None:
            # Beyond the spread of V over the policies that it was fitted on, V is extrapolation.
            allowed = chosen.trust * jnp.std(jax.vmap(value)(proposal.theta))
            share = jnp.minimum(1.0, allowed / jnp.maximum(jnp.abs(gain), 1e-12))
            theta = state.theta + share[:, None] * (theta - state.theta)
            metrics["trusted_share"] = share.mean()
        if len(state.theta) == 1:
            metrics |= _fidelity(config, gradient, proposal, result)
        return _moved(config, state, theta, moments, metrics)

    return Algorithm(init, fit, improve, observations=learner.states > 0)


def evolution(config: OnlineConfig, env: Env, spec: Spec) -> Algorithm:
    """OpenAI-ES (Salimans et al. 2017): centred ranks times noise, then Adam; one step an iteration."""
    improver, chosen = improver_of(config), config.improvement

    def improve(state: State, proposal: Proposal, result: Result) -> tuple[State, Metrics]:
        theta = state.theta[0]
        scale = noise_scale(config, theta)
        gradient = diagnostics.evolution_gradient(centred_ranks(result.returns), proposal.theta - theta, scale) / scale
        rate = rate_at(chosen.learning_rate, chosen.final_learning_rate, state.fraction, chosen.final_at)
        moved, moments = improver.step(theta, jax.tree.map(lambda leaf: leaf[0], state.improver), gradient, rate)
        metrics = {"policy_gradient_norm": jnp.linalg.norm(gradient), "policy_learning_rate": rate}
        return _moved(config, state, moved[None], jax.tree.map(lambda leaf: leaf[None], moments), metrics)

    return Algorithm(lambda key: None, _no_fit, improve)


def random_search(config: OnlineConfig, env: Env, spec: Spec) -> Algorithm:
    """The best policy of the iteration takes the place of θ, which is one of them: see `exploration.propose`."""

    def improve(state: State, proposal: Proposal, result: Result) -> tuple[State, Metrics]:
        best = jnp.argmax(result.returns)
        return _moved(config, state, proposal.theta[best][None], state.improver, {"improved": (best > 0) * 1.0})

    return Algorithm(lambda key: None, _no_fit, improve)


def _no_fit(state: State, proposal: Proposal, result: Result) -> tuple[State, Metrics]:
    return state, {}


def _moved(config: OnlineConfig, state: State, theta: Array, moments: Any, metrics: Metrics) -> tuple[State, Metrics]:
    metrics["policy_step"] = jnp.sqrt(jnp.mean(jnp.square(theta - state.theta)))
    metrics["policy_size"] = jnp.mean(jnp.abs(theta))
    metrics["clip_share"] = diagnostics.share_at(theta, config.improvement.weight_clip)
    return state._replace(theta=theta, improver=moments), metrics


def _rows(
    config: OnlineConfig, env: Env, state: State, proposal: Proposal, result: Result, buffer: Buffer | None
) -> tuple[Buffer | None, Callable[[PRNGKeyArray], Rows]]:
    """The buffer with this iteration in it, and how a batch is drawn: fresh rows, or uniformly from the buffer."""
    if buffer is None:
        shaped = shape_targets(config, env, result.returns, jnp.ones(config.envs))
        fresh = Rows(proposal.theta, shaped, jnp.ones(config.envs))
        if config.batch_size == config.envs:
            return None, lambda key: fresh

        def some(key: PRNGKeyArray) -> Rows:
            index = jax.random.permutation(key, config.envs)[: config.batch_size]
            return jax.tree.map(lambda leaf: leaf[index], fresh)

        return None, some
    buffer = push(buffer, state.iteration, state.theta[0], iteration_key(state), result.returns)
    everything = buffer.returns.ravel()
    valid = (jnp.arange(len(everything)) < buffer.filled * config.envs).astype(jnp.float32)
    targets = shape_targets(config, env, everything, valid)

    def draw(key: PRNGKeyArray) -> Rows:
        theta, rows, weight = sample(config, buffer, key)
        return Rows(theta, targets[rows], weight)

    return buffer, draw


def _states(count: int, result: Result, key: PRNGKeyArray) -> Float[Array, "K O"] | None:
    """`count` of the observations of the iteration, those of long episodes more often: each control step counts alike.

    Without repeats where there are enough.
    """
    if not count:
        return None
    assert result.observations is not None
    seen = result.observations
    # Gumbel's trick draws without replacement in proportion to the lengths.
    noise = jax.random.gumbel(jax.random.fold_in(key, STREAMS["probe"]), result.lengths.shape)
    order = jnp.argsort(-(jnp.log(jnp.maximum(result.lengths, 1).astype(jnp.float32)) + noise))
    return seen[jnp.resize(order, (count,))]


def _fidelity(config: OnlineConfig, gradient: Float[Array, "P"], proposal: Proposal, result: Result) -> Metrics:
    """How ∇V lies to the ES gradient of the same rollouts, both in units of the noise."""
    scale = noise_scale(config, proposal.base[0])
    es = diagnostics.evolution_gradient(centred_ranks(result.returns), proposal.theta - proposal.base[0], scale)
    return {"gradient_cosine": diagnostics.cosine(gradient * scale, es)}
