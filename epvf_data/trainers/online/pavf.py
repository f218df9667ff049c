"""Q(s, a, θ) by temporal differences, and θ by its gradient: PAVF, and PSVF, which is V(s, θ) (Faccio et al. 2021).

A row of the replay trains the critic towards one of three targets, with γⁿ = 0 after a termination:

    own      R + γⁿ Q̄(s', a', z(θ_row))      a' of the policy that made the row: on-policy, whatever the row's age
    cross    R + γⁿ Q̄(s', π_j(s'), z(θ_j))   of another stored policy j
    current  R + γⁿ Q̄(s', π_θ(s') + ε, z(θ)) of the policy that is being improved, smoothed as in TD3

In the last two the n rewards are those of another policy; with n = 1 that is exact, with more it is a bias that n-step
methods off policy live with. θ climbs the mean of Q(s, π_θ(s), z(θ)) over the replay's states, through a and through z.

Of several critics the `bound` (the smaller of two, as in TD3) counts in the third target only: θ was moved to where
they are wrong upwards, and stored policies were not. θ itself climbs their mean.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from epvf_data.critics.losses import Loss, make_loss
from epvf_data.critics.mlp import Network, network
from epvf_data.critics.value import combine
from epvf_data.improvement.ascent import Improver
from epvf_data.policies.acting import acts
from epvf_data.policies.kinds import Spec
from epvf_data.trainers.online.algorithms import improver_of
from epvf_data.trainers.online.diagnostics import cosine
from epvf_data.trainers.online.learners import critic_optimiser
from epvf_data.trainers.online.representation import Representation, represent
from epvf_data.trainers.online.settings import OnlineConfig
from epvf_data.trainers.online.state import Metrics, Normaliser, deviation, fold
from epvf_data.trainers.online.transitions import Policies, Rows, draw, folded

CLIP = 5.0  # of normalised observations that the critic reads
WIDTHS = (256, 256)


class Learned(NamedTuple):
    """What updates change."""

    theta: Float[Array, "P"]
    moments: Any  # of the optimiser of θ
    critic: Any  # leading axis: members
    target: Any
    optimiser: Any


class Known(NamedTuple):
    """What updates read."""

    replay: Rows
    policies: Policies
    representation: Representation
    normaliser: Normaliser | None
    filled: Int[Array, ""]  # rows of the replay
    stored: Int[Array, ""]  # policies that are stored
    factor: Float[Array, ""]  # times the learning rates
    rate: Float[Array, ""]  # of θ, before the factor


class Learner(NamedTuple):
    """The functions of one method, over one seed."""

    config: OnlineConfig
    spec: Spec
    net: Network
    loss: Loss
    optimiser: optax.GradientTransformation
    improver: Improver


def make_learner(config: OnlineConfig, spec: Spec) -> Learner:
    """The learner that the settings name."""
    chosen, values = config.critic, config.time.values()
    room = 0.05 * (values[1] - values[0]) if values else 0.0
    loss = make_loss(chosen.loss, (values[0] - room, values[1] + room) if values else (0.0, 1.0), chosen.bins)
    net = network(chosen.widths or WIDTHS, loss.outputs, chosen.zero_last, layer_norm=config.time.layer_norm)
    return Learner(config, spec, net, loss, critic_optimiser(chosen), improver_of(config))


def init(learner: Learner, key: PRNGKeyArray, theta: Float[Array, "P"], z: int) -> Learned:
    """A fresh critic, its target the same."""
    actions = learner.spec.action_size if learner.config.algorithm == "pavf" else 0
    size = learner.spec.observation_size + actions + z
    keys = jax.random.split(key, learner.config.critic.ensemble)
    critic = jax.vmap(lambda own: learner.net.init(own, size))(keys)
    return Learned(theta, learner.improver.init(theta), critic, critic, learner.optimiser.init(critic))


def seen(normaliser: Normaliser | None, observation: Float[Array, "*B O"]) -> Float[Array, "*B O"]:
    """Observations as critics read them."""
    if normaliser is None:
        return observation
    return jnp.clip((observation - normaliser.mean) / deviation(normaliser), -CLIP, CLIP)


def outputs(learner: Learner, critic: Any, state: Array, action: Array, z: Array) -> Float[Array, "E B outputs"]:
    """What each member says of (state, action, z); z is of every row, or one for all."""
    z = jnp.broadcast_to(z, (*state.shape[:-1], z.shape[-1]))
    parts = [state, action, z] if learner.config.algorithm == "pavf" else [state, z]
    x = jnp.concatenate(parts, axis=-1)
    if learner.config.critic.ensemble == 1:  # spared the batched products
        return learner.net.apply(jax.tree.map(lambda leaf: leaf[0], critic), x)[None]
    return jax.vmap(lambda params: learner.net.apply(params, x))(critic)


def value(learner: Learner, critic: Any, state: Array, action: Array, z: Array) -> Float[Array, "B"]:
    """Q as the members say it in the mean, in the critic's units."""
    return learner.loss.read(outputs(learner, critic, state, action, z)).mean(axis=0)


def targets(
    learner: Learner, known: Known, learned: Learned, rows: Rows, key: PRNGKeyArray
) -> tuple[Float[Array, "B"], Float[Array, "B Z"]]:
    """The target of each row, and the z for which it holds: first the rows `own`, then `cross`, then `current`."""
    config, spec, time = learner.config, learner.spec, learner.config.time
    count = len(rows.reward)
    own = round(count * time.own)
    cross = min(round(count * time.cross), count - own)
    pick, smooth = jax.random.split(key)
    number = rows.policy[:own]
    if time.random_z:  # for each row of each batch: a z that stays with a policy tells who it is
        number = jax.random.randint(jax.random.fold_in(pick, 1), number.shape, 0, known.stored)
    z, action = [known.policies.z[number // config.envs, number % config.envs]], []
    action.append(rows.next_action[:own])
    if cross:
        # One policy for all of them: rows that share a policy cost one product, and its parameters are made once.
        other = jax.random.randint(pick, (), 0, known.stored)
        params = folded(config, spec, known.policies, other)
        action.append(acts(spec, params, rows.after[own : own + cross])[0])
        z.append(_every(known.policies.z.reshape(-1, known.policies.z.shape[-1])[other], cross))
    if rest := count - own - cross:
        params = fold(spec, known.normaliser, learned.theta)
        noise = time.smoothing * jax.random.normal(smooth, (rest, spec.action_size))
        noise = jnp.clip(noise, -2 * time.smoothing, 2 * time.smoothing)
        action.append(jnp.clip(acts(spec, params, rows.after[own + cross :])[0] + noise, -1.0, 1.0))
        z.append(_every(represent(config, spec, known.representation, learned.theta, known.normaliser), rest))
    where, act, as_ = seen(known.normaliser, rows.after), jnp.concatenate(action), jnp.concatenate(z)
    said = learner.loss.read(outputs(learner, learned.target, where, act, as_))
    stored, mine = said[:, : own + cross].mean(axis=0), combine(said[:, own + cross :], config.critic.bound, 0)
    target = time.reward_scale * rows.reward + rows.discount * jnp.concatenate([stored, mine])
    if (bounds := time.values()) is not None:
        target = jnp.clip(target, *bounds)
    return target, as_


def _every(z: Float[Array, "Z"], count: int) -> Float[Array, "B Z"]:
    return jnp.broadcast_to(z, (count, len(z)))


def critic_step(learner: Learner, known: Known, learned: Learned, key: PRNGKeyArray) -> tuple[Learned, Metrics]:
    """One step of the critic on a batch, and the target critic a little after it."""
    config = learner.config
    which, noise = jax.random.split(key)
    rows = draw(known.replay, which, known.filled, config.batch_size)
    target, z = targets(learner, known, learned, rows, noise)
    where = seen(known.normaliser, rows.observation)

    def loss(critic: Any) -> tuple[Array, Array]:
        said = outputs(learner, critic, where, rows.action, z)
        each = jax.vmap(lambda one: learner.loss.loss(one, target, jnp.ones_like(target)))(said)
        return each.sum(), learner.loss.read(said[0])

    (total, said), gradient = jax.value_and_grad(loss, has_aux=True)(learned.critic)
    updates, optimiser = learner.optimiser.update(gradient, learned.optimiser, learned.critic)
    updates = jax.tree.map(lambda leaf: known.factor * leaf, updates)
    critic = optax.apply_updates(learned.critic, updates)
    follow = lambda old, new: old + config.time.tau * (new - old)  # noqa: E731
    metrics = {
        "critic_loss": total / config.critic.ensemble,
        "q_data": said.mean() / config.time.reward_scale,
        "q_explained": 1.0 - jnp.square(said - target).mean() / jnp.maximum(target.var(), 1e-8),
        "critic_gradient_norm": optax.tree.norm(gradient),
    }
    target_critic = jax.tree.map(follow, learned.target, critic)
    return learned._replace(critic=critic, target=target_critic, optimiser=optimiser), metrics


def policy_gradient(
    learner: Learner, known: Known, critic: Any, theta: Float[Array, "P"], states: Float[Array, "B O"]
) -> tuple[Float[Array, "P"], Metrics]:
    """The gradient of mean Q(s, π_θ(s), z(θ)), less the penalty: the part through a plus the weighted one through z.

    The second is cut to the length of the first where it is longer; in V(s, θ) it is all there is, and stays as it is.
    """
    config, spec = learner.config, learner.spec
    shown = seen(known.normaliser, states)
    (action, sums), through_action = jax.vjp(lambda t: acts(spec, fold(spec, known.normaliser, t), states), theta)
    kind = partial(represent, config, spec, known.representation, normaliser=known.normaliser)
    z, through_z = jax.vjp(lambda t: kind(theta=t), theta)
    mean = lambda a, z: value(learner, critic, shown, a, z).mean()  # noqa: E731
    q, (by_action, by_z) = jax.value_and_grad(mean, argnums=(0, 1))(action, z)
    penalty = -2.0 * config.time.action_penalty * sums / sums.size
    (first,), (second,) = through_action((by_action, penalty)), through_z(by_z)
    metrics = {
        "q_policy": q / config.time.reward_scale,
        "gradient_action": jnp.linalg.norm(first),
        "gradient_z": jnp.linalg.norm(second),
        "gradient_paths_cosine": cosine(first, second),
    }
    limit = jnp.ones(())
    if config.algorithm == "pavf":  # late in a run the part through z grows to ten times the other's length
        limit = jnp.minimum(1.0, metrics["gradient_action"] / jnp.maximum(metrics["gradient_z"], 1e-12))
    return first + config.time.z_gradient * limit * second, metrics


def update(learner: Learner, known: Known, learned: Learned, key: PRNGKeyArray, on: Array) -> tuple[Learned, Metrics]:
    """All updates of an iteration: `delay` steps of the critic, then one of θ where `on`, and again."""
    config = learner.config

    def group(learned: Learned, key: PRNGKeyArray) -> tuple[Learned, Metrics]:
        keys = jax.random.split(key, config.time.delay + 1)
        step = lambda learned, own: critic_step(learner, known, learned, own)  # noqa: E731
        learned, metrics = jax.lax.scan(step, learned, keys[1:])
        states = draw(known.replay.observation, keys[0], known.filled, config.batch_size)
        gradient, more = policy_gradient(learner, known, learned.critic, learned.theta, states)
        rate = known.factor * known.rate
        moved = learner.improver.step(learned.theta, learned.moments, gradient, rate)
        theta, moments = jax.tree.map(lambda new, old: jnp.where(on, new, old), moved, (learned.theta, learned.moments))
        found = {name: leaf.mean() for name, leaf in metrics.items()} | more
        return learned._replace(theta=theta, moments=moments), found

    learned, metrics = jax.lax.scan(group, learned, jax.random.split(key, config.critic.steps // config.time.delay))
    return learned, {name: leaf.mean() for name, leaf in metrics.items()}
