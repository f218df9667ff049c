"""V(θ) as the loop uses it: fitted a little in every iteration, asked for gradients after that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from epvf_data.critics import mlp, ridge
from epvf_data.critics.base import Critic, Scale, value
from epvf_data.critics.mlp import dead_units
from epvf_data.critics.probing import ActionPlane, action_value, probing, ridge_on_actions
from epvf_data.envs import Env
from epvf_data.policies.spec import PolicySpec
from epvf_data.trainers.fit import Batch, FitState, critic_step, init_state
from epvf_data.trainers.online.settings import CriticConfig, OnlineConfig
from epvf_data.trainers.online.state import Metrics


class Rows(NamedTuple):
    """Rows that a critic step sees."""

    theta: Float[Array, "B P"]
    target: Float[Array, "B"]
    weight: Float[Array, "B"]  # 0 marks padding


class Context(NamedTuple):
    """What a fit may know besides rows."""

    theta: Float[Array, "P"]  # the policy that is being improved
    noise: Float[Array, ""]  # typical size of one parameter's perturbation
    states: Float[Array, "K O"] | None  # observations that this iteration's policies acted on


Draw = Callable[[PRNGKeyArray], Rows]


class Learner(NamedTuple):
    """`init(key)`; `fit(state, draw, context, key) → (state, metrics)` does the K steps on rows that `draw` gives;
    `value(state, θ)` is V in units of the target. `states` is how many observations a fit wants."""

    init: Callable[[PRNGKeyArray], Any]
    fit: Callable[[Any, Draw, Context, PRNGKeyArray], tuple[Any, Metrics]]
    value: Callable[[Any, Float[Array, "P"]], Float[Array, ""]]
    states: int = 0


class Fitted(NamedTuple):
    """A critic that is trained by gradient steps, and where its inputs are centred."""

    fit: FitState
    centre: Float[Array, "P"]
    unit: Float[Array, ""]


def make_learner(config: OnlineConfig, spec: PolicySpec, steps: int | None = None) -> Learner:
    """The learner that the settings name; a fit takes `steps` critic steps, by default those of the settings."""
    if config.critic.name == "probing-ridge":
        return _closed_form(config, spec)
    return _by_gradient(config, spec, make_critic(config.critic, spec), steps or config.critic.steps)


def make_critic(config: CriticConfig, spec: PolicySpec) -> Critic:
    """The critic of a gradient learner."""
    if config.name == "mlp":
        return mlp(config.widths, config.zero_last)
    if config.name == "linear":
        return ridge()  # the same plane, trained by the same gradient steps as the others
    return probing(spec, config.probes, config.widths, config.zero_last, raw=config.name == "probing+raw")


def critic_optimiser(config: CriticConfig) -> optax.GradientTransformation:
    """Adam at a constant rate; with weight decay on matrices and a limit on the gradient's norm where they are set."""
    clip = [] if config.clip is None else [optax.clip_by_global_norm(config.clip)]
    if not config.weight_decay:
        return optax.chain(*clip, optax.adam(config.learning_rate))
    matrices = lambda tree: jax.tree.map(lambda leaf: leaf.ndim > 1, tree)  # noqa: E731
    return optax.chain(*clip, optax.adamw(config.learning_rate, weight_decay=config.weight_decay, mask=matrices))


def _by_gradient(config: OnlineConfig, spec: PolicySpec, critic: Critic, steps: int) -> Learner:
    optimiser, centred = critic_optimiser(config.critic), config.critic.inputs == "centred"

    def scale_of(state: Fitted) -> Scale:
        return Scale(state.centre, jnp.full(spec.size, state.unit), jnp.zeros(()), jnp.ones(()))

    def init(key: PRNGKeyArray) -> Fitted:
        return Fitted(init_state(critic, optimiser, key, spec.size), jnp.zeros(spec.size), jnp.ones(()))

    def fit(state: Fitted, draw: Draw, context: Context, key: PRNGKeyArray) -> tuple[Fitted, Metrics]:
        if centred:
            state = state._replace(centre=context.theta, unit=context.noise)

        def body(carry: FitState, own: PRNGKeyArray) -> tuple[FitState, Metrics]:
            rows = draw(own)
            inputs = (rows.theta - state.centre) / state.unit
            return critic_step(critic, optimiser, carry, Batch(inputs, rows.target, rows.weight))

        fitted, metrics = jax.lax.scan(body, state.fit, jax.random.split(key, steps))
        found = {
            "critic_loss_before": metrics["loss"][0],
            "critic_loss": metrics["loss"][-1],
            "critic_gradient_norm": metrics["gradient_norm"].mean(),
        }
        if config.critic.name == "mlp":
            inputs = (draw(key).theta - state.centre) / state.unit
            found["critic_dead_units"] = dead_units(fitted.params, inputs)
        return state._replace(fit=fitted), found

    return Learner(init, fit, lambda state, theta: value(critic, state.fit.params, scale_of(state), theta))


def _closed_form(config: OnlineConfig, spec: PolicySpec) -> Learner:
    probes = config.critic.probes

    def init(key: PRNGKeyArray) -> ActionPlane:
        size = probes * spec.action_size
        return ActionPlane(jnp.zeros((probes, spec.observation_size)), jnp.zeros(size), jnp.zeros(size), jnp.zeros(()))

    def fit(state: ActionPlane, draw: Draw, context: Context, key: PRNGKeyArray) -> tuple[ActionPlane, Metrics]:
        rows = draw(key)
        assert context.states is not None
        pairs = config.exploration.antithetic
        plane = ridge_on_actions(spec, context.states, rows.theta, rows.target, config.critic.penalty, pairs)
        before = jax.vmap(lambda row: action_value(spec, state, row))(rows.theta)
        after = jax.vmap(lambda row: action_value(spec, plane, row))(rows.theta)
        return plane, {
            "critic_loss_before": jnp.mean(jnp.square(before - rows.target)),
            "critic_loss": jnp.mean(jnp.square(after - rows.target)),
            "critic_weight_norm": jnp.linalg.norm(plane.weights),
        }

    return Learner(init, fit, lambda state, theta: action_value(spec, state, theta), probes)


def shape_targets(
    config: OnlineConfig, env: Env, returns: Float[Array, "n"], valid: Float[Array, "n"]
) -> Float[Array, "n"]:
    """Returns as the critic learns them; `valid` is 1 for rows that count.

    `scaled` divides by the horizon, the best return of both tasks; `ranks` are spread evenly over ±0.5.
    """
    kind = config.critic.target
    if kind == "raw":
        return returns
    if kind == "scaled":
        return returns / env.horizon
    if kind == "ranks":
        return centred_ranks(returns, valid)
    count = jnp.maximum(valid.sum(), 1.0)
    mean = jnp.sum(returns * valid) / count
    std = jnp.sqrt(jnp.sum(jnp.square(returns - mean) * valid) / count)
    return (returns - mean) / jnp.maximum(std, 1e-6)


def centred_ranks(returns: Float[Array, "n"], valid: Float[Array, "n"] | None = None) -> Float[Array, "n"]:
    """Mean ranks of ties, spread over [−0.5, 0.5] (Salimans et al. 2017); invalid rows get 0 and rank nobody."""
    valid = jnp.ones_like(returns) if valid is None else valid
    ordered = jnp.sort(jnp.where(valid > 0, returns, jnp.inf))
    low = jnp.searchsorted(ordered, returns, side="left")
    high = jnp.searchsorted(ordered, returns, side="right")
    count = jnp.maximum(valid.sum() - 1.0, 1.0)
    rank = (low + high - 1).astype(jnp.float32) / 2.0
    return jnp.where(valid > 0, rank / count - 0.5, 0.0)
