"""V(θ) as the loop uses it: fitted a little in every iteration, asked for gradients after that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from epvf_data.code import Origin
from epvf_data.critics.base import Scale, make_row
from epvf_data.critics.families import Family, family_of, name_of, resolve
from epvf_data.critics.losses import Loss, make_loss
from epvf_data.critics.mlp import dead_units
from epvf_data.critics.probing import ActionPlane, action_value, ridge_on_actions
from epvf_data.critics.value import combine
from epvf_data.critics.zoo import make_critic
from epvf_data.envs import Env
from epvf_data.errors import ConfigError
from epvf_data.policies.kinds import Spec
from epvf_data.recording.probes import SHIPPED, probing_states
from epvf_data.trainers.fit import Batch, FitState, augment, critic_step, init_state
from epvf_data.trainers.mesh import make_layout
from epvf_data.trainers.online.settings import CLOSED, CriticConfig, OnlineConfig
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


PROBING = ("probing", "probing+raw")  # read actions in states that are learned

Own = str | Family | Callable[[Any], Any]  # a critic: its name, file.py:function, or make(made) itself
Draw = Callable[[PRNGKeyArray], Rows]


class Learner(NamedTuple):
    """`init(key)`; `fit(state, draw, context, key) → (state, metrics)` does the K steps on rows that `draw` gives;
    `value(state, θ)` is V in units of the target. `states` is how many observations a fit wants."""

    init: Callable[[PRNGKeyArray], Any]
    fit: Callable[[Any, Draw, Context, PRNGKeyArray], tuple[Any, Metrics]]
    value: Callable[[Any, Float[Array, "P"]], Float[Array, ""]]
    states: int = 0


class Fitted(NamedTuple):
    """Critics (one, or an ensemble) that are trained by gradient steps, and where their inputs are centred."""

    fit: FitState  # leading axis: members
    centre: Float[Array, "P"]
    unit: Float[Array, ""]


def with_critic(config: OnlineConfig, critic: Own | None) -> OnlineConfig:
    """The settings with this critic in place of theirs, or with theirs, once the code that it names is loaded."""
    named = config.critic.name if critic is None else critic
    if named == CLOSED:
        return config
    return replace(config, critic=replace(config.critic, name=resolve(named)))


def origin_of(config: OnlineConfig) -> Origin | None:
    """The file that the settings' critic comes from; None for those of this package."""
    return None if config.critic.name == CLOSED else family_of(config.critic.name).origin


def make_learner(config: OnlineConfig, env: Env, spec: Spec, steps: int | None = None) -> Learner:
    """The learner that the settings name; a fit takes `steps` critic steps, by default those of the settings."""
    if config.critic.name == CLOSED:
        return _closed_form(config, spec)
    return _by_gradient(config, env, spec, steps or config.critic.steps)


def online_loss(config: OnlineConfig, env: Env) -> Loss:
    """The loss of the settings; a histogram spans all that the targets can be, and some room above."""
    best = {"raw": float(env.horizon), "scaled": 1.0}.get(config.critic.target)
    support = (
        (-0.1 * best, 1.1 * best) if best else (-4.0, 6.0) if config.critic.target == "standardised" else (-0.6, 0.6)
    )
    return make_loss(config.critic.loss, support, config.critic.bins)


def critic_optimiser(config: CriticConfig) -> optax.GradientTransformation:
    """Adam at a constant rate; with weight decay on matrices and a limit on the gradient's norm where they are set."""
    clip = [] if config.clip is None else [optax.clip_by_global_norm(config.clip)]
    if not config.weight_decay:
        return optax.chain(*clip, optax.adam(config.learning_rate))
    matrices = lambda tree: jax.tree.map(lambda leaf: leaf.ndim > 1, tree)  # noqa: E731
    return optax.chain(*clip, optax.adamw(config.learning_rate, weight_decay=config.weight_decay, mask=matrices))


def _by_gradient(config: OnlineConfig, env: Env, spec: Spec, steps: int) -> Learner:
    chosen, loss = config.critic, online_loss(config, env)
    family = family_of(chosen.name)
    if family.reads != "params":
        raise ConfigError(f"critic {name_of(chosen.name)} reads stored actions, of which an iteration has none.")
    learned = (chosen.name in PROBING or family.make is not None) and chosen.probe_start == "states"
    states = probing_states(env, min(chosen.probes, SHIPPED)) if learned else None
    critic = make_critic(chosen.name, chosen, spec, loss.outputs, states=states)
    optimiser, centred, members = critic_optimiser(chosen), chosen.inputs == "centred", chosen.ensemble
    layout = make_layout(config.seeds, [config.batch_size], config.devices)

    def scale_of(state: Fitted) -> Scale:
        return Scale(state.centre, jnp.full(spec.size, state.unit), jnp.zeros(()), jnp.ones(()))

    def init(key: PRNGKeyArray) -> Fitted:
        keys = jax.random.split(key, members) if members > 1 else key[None]
        fit = jax.vmap(lambda own: init_state(critic, optimiser, own))(keys)
        return Fitted(fit, jnp.zeros(spec.size), jnp.ones(()))

    def fit(state: Fitted, draw: Draw, context: Context, key: PRNGKeyArray) -> tuple[Fitted, Metrics]:
        if centred:
            state = state._replace(centre=context.theta, unit=context.noise)
        scale = scale_of(state)

        def body(carry: FitState, own: PRNGKeyArray) -> tuple[FitState, Metrics]:
            rows = layout.rows(draw(own))
            theta = augment(chosen.augment, spec, rows.theta, jax.random.fold_in(own, 1))
            seen = jax.vmap(lambda vector: make_row(scale, vector, spec))(theta)
            batch = Batch((seen,), rows.target, rows.weight, (jnp.asarray(scale.theta_std),))
            return _members(lambda one: critic_step(critic, optimiser, one, batch, loss, chosen), carry)

        fitted, metrics = jax.lax.scan(body, state.fit, jax.random.split(key, steps))
        found = {
            "critic_loss_before": metrics["loss"][0].mean(),
            "critic_loss": metrics["loss"][-1].mean(),
            "critic_gradient_norm": metrics["gradient_norm"].mean(),
        }
        if chosen.name == "mlp":
            inputs = (draw(key).theta - state.centre) / state.unit
            found["critic_dead_units"] = dead_units(jax.tree.map(lambda leaf: leaf[0], fitted.params), inputs)
        return state._replace(fit=fitted), found

    def value(state: Fitted, theta: Float[Array, "P"]) -> Float[Array, ""]:
        row = make_row(scale_of(state), theta, spec)
        return combine(_members(lambda params: loss.read(critic.apply(params, row)), state.fit.params), chosen.bound, 0)

    return Learner(init, fit, value)


def _members(function: Callable[[Any], Any], state: Any) -> Any:
    """`vmap` over members; one by itself is spared the batched products."""
    if len(jax.tree.leaves(state)[0]) > 1:
        return jax.vmap(function)(state)
    return jax.tree.map(lambda leaf: leaf[None], function(jax.tree.map(lambda leaf: leaf[0], state)))


def _closed_form(config: OnlineConfig, spec: Spec) -> Learner:
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
