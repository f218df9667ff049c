"""An iteration of the algorithms that learn from single steps: a segment of every world, then updates. One seed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from epvf_data.envs import Env
from epvf_data.improvement.ascent import rate_at
from epvf_data.physics.loop import Stepper, World
from epvf_data.policies import acting
from epvf_data.policies.kinds import Spec
from epvf_data.streams import STREAMS, stream
from epvf_data.trainers.online.exploration import iteration_key, member, spread
from epvf_data.trainers.online.iteration import after_iteration, initial
from epvf_data.trainers.online.pavf import Known, Learned, Learner, init, make_learner, update
from epvf_data.trainers.online.representation import Representation, make_representation, represent
from epvf_data.trainers.online.segments import Segment, begin_worlds, make_segment, world_keys
from epvf_data.trainers.online.settings import OnlineConfig
from epvf_data.trainers.online.state import Metrics, Proposal, State, fold, observe, typed_key
from epvf_data.trainers.online.transitions import (
    Policies,
    Rows,
    draw,
    make_policies,
    make_replay,
    n_step,
    policy,
    push,
)

EPISODES = 128  # of the running mean of returns: it tells of now, however many worlds there are


class Inner(NamedTuple):
    """What the algorithm keeps between iterations, beside θ."""

    worlds: World  # [M]
    policy: Int[Array, "M"]  # the number of the policy in each world
    left: Int[Array, "M"]  # segments that it still lasts
    replay: Rows
    policies: Policies
    representation: Representation
    critic: dict
    target: dict
    optimiser: tuple
    average: Float[Array, "P"]  # of θ: its steps are noisy, and the middle of them is better than the last
    performance: Float[Array, ""]  # running mean return of the training episodes that ended
    annealed: Float[Array, ""]  # 0 … 1


class Method(NamedTuple):
    """What a run of one seed is made of."""

    init: Callable[[Int[Array, ""]], State]
    iteration: Callable[[State], tuple[State, Metrics]]
    propose: Callable[[State], Proposal]  # the perturbed policies that the next iteration will begin with
    learner: Learner


def steps_of(config: OnlineConfig) -> int:
    """Control steps of an iteration."""
    return config.envs * config.time.segment


def warm_iterations(config: OnlineConfig) -> int:
    """Iterations before the first update: at least one, and a batch's worth."""
    return max(1, -(-max(config.time.warmup, config.batch_size) // steps_of(config)))


def anneal_factor(config: OnlineConfig, state: State) -> Float[Array, ""]:
    """What noise and learning rates are multiplied by."""
    return config.time.anneal_to**state.inner.annealed


def scales(config: OnlineConfig, state: State) -> Float[Array, "M"]:
    """The scale of each perturbation of this iteration, log-uniform."""
    low, high = jnp.log(jnp.asarray(config.time.sigma))
    key = jax.random.fold_in(typed_key(iteration_key(state)), STREAMS["scale"])
    drawn = jax.random.uniform(key, (config.envs,), minval=low, maxval=high)
    return anneal_factor(config, state) * jnp.exp(drawn)


def propose(config: OnlineConfig, spec: Spec, state: State) -> Proposal:
    """The M perturbations of θ with which the iteration that comes would begin, for whole episodes of their own."""
    key, base = iteration_key(state), state.theta[0]
    keys, sign = jax.vmap(lambda row: member(config, key, row))(jnp.arange(config.envs))
    scale = scales(config, state)
    theta = jax.vmap(lambda own, size: spread(config, base, own, 1.0, size))(keys, scale)
    params, origin = (jax.vmap(lambda row: fold(spec, state.normaliser, row))(rows) for rows in (theta, state.theta))
    resets = world_keys(jax.random.fold_in(typed_key(key), STREAMS["reset"]), config.envs)
    return Proposal(theta, state.theta, origin, params, resets, keys, sign, scale)


def make_method(config: OnlineConfig, env: Env, spec: Spec, stepper: Stepper, on_cpu: bool) -> Method:
    """The functions of a run; not compiled yet."""
    learner = make_learner(config, spec)
    run = make_segment(env, spec, stepper, config.time.segment, on_cpu)

    def begin(seed: Int[Array, ""]) -> State:
        worlds, critic, fixed = (stream(seed, name) for name in ("reset", "critic", "probe"))
        known = make_representation(config, spec, fixed)
        state, size, count = initial(config, spec, None, seed), known.projection.shape[1], config.envs
        learned, nothing = init(learner, critic, state.theta[0], size), jnp.zeros(count, jnp.int32)
        return state._replace(
            inner=Inner(
                begin_worlds(env, stepper, worlds, count),
                *(nothing, nothing, make_replay(config, env), make_policies(config, spec, size), known),
                *(learned.critic, learned.target, learned.optimiser, state.theta[0], jnp.zeros(()), jnp.zeros(())),
            )
        )

    def iteration(state: State) -> tuple[State, Metrics]:
        state, segment = _act(config, spec, run, renew(config, spec, state))
        state, found = _learn(config, spec, learner, state)
        state, more = _account(config, env, state, segment)
        return state, found | more

    return Method(begin, iteration, lambda state: propose(config, spec, state), learner)


def renew(config: OnlineConfig, spec: Spec, state: State) -> State:
    """The state with this iteration's θ among the stored policies, and new ones in worlds whose policy has had its
    time."""
    inner: Inner = state.inner
    policies, worlds = inner.policies, jnp.arange(config.envs)
    place = state.iteration % len(policies.base)
    put = lambda kept, new: kept.at[place].set(new)  # noqa: E731
    policies = policies._replace(
        base=put(policies.base, state.theta[0]),
        normaliser=jax.tree.map(put, policies.normaliser, state.normaliser),
        key=put(policies.key, iteration_key(state)),
        scale=put(policies.scale, scales(config, state)),
    )
    due = inner.left <= 0
    number = jnp.where(due, place * config.envs + worlds, inner.policy)
    # The first ones last 1 … hold segments, so that not all worlds change together.
    lasts = jnp.where(state.iteration == 0, 1 + worlds % config.time.hold, config.time.hold)
    left = jnp.where(due, lasts, inner.left)
    return state._replace(inner=inner._replace(policies=policies, policy=number, left=left))


def _act(config: OnlineConfig, spec: Spec, run, state: State) -> tuple[State, Segment]:
    """A segment of every world, its rows in the replay."""
    inner: Inner = state.inner
    known, key = inner.policies, typed_key(iteration_key(state))
    theta, normaliser = jax.vmap(lambda number: policy(config, known, number))(inner.policy)
    params = jax.vmap(lambda row, own: fold(spec, own, row))(theta, normaliser)
    told = jax.vmap(lambda number: policy(config, known, number))(tagged(config, inner.policy))
    z = jax.vmap(lambda row, own: represent(config, spec, inner.representation, row, own))(*told)
    place, row = jnp.divmod(inner.policy, config.envs)
    known = known._replace(z=known.z.at[place, row].set(z))
    # A policy's action noise is as long-lived as the policy: it comes from the same key.
    own = jax.vmap(lambda data: jax.random.uniform(jax.random.fold_in(typed_key(data), STREAMS["action"])))
    quiet = own(jax.vmap(lambda p, m: member(config, known.key[p], m)[0])(place, row))
    noise = anneal_factor(config, state) * config.time.action_noise * quiet
    keys = world_keys(jax.random.fold_in(key, STREAMS["action"]), config.envs)
    worlds, segment = run(params, inner.worlds, noise, keys)
    rows = to_rows(config, spec, params, segment, inner.policy)
    left = jnp.where(segment.done.any(axis=0), 0, inner.left - 1)
    replay = push(inner.replay, rows, state.iteration)
    return state._replace(inner=inner._replace(worlds=worlds, left=left, replay=replay, policies=known)), segment


def tagged(config: OnlineConfig, number: Int[Array, "M"]) -> Int[Array, "M"]:
    """The policies whose z the rows of these policies carry: their own or, as a control, their neighbours'."""
    place, row = jnp.divmod(number, config.envs)
    return place * config.envs + (row + 1) % config.envs if config.time.shuffled else number


def to_rows(
    config: OnlineConfig, spec: Spec, params: Float[Array, "M P"], segment: Segment, number: Int[Array, "M"]
) -> Rows:
    """The segment as n-step rows, control step by control step."""
    time = config.time
    sums = jax.vmap(partial(n_step, steps=time.n_step, discount=time.discount), in_axes=1, out_axes=1)
    total, discount, last = sums(segment.reward, segment.terminated, segment.done)
    after = jnp.take_along_axis(segment.after, last[..., None], axis=0)
    tensors = jax.vmap(lambda flat: acting.unflatten(spec, flat))(params)
    each = jax.vmap(lambda own, one: acting.apply(spec, own, one))  # over worlds
    next_action = jax.lax.map(lambda one: each(tensors, one), after)
    policies = jnp.broadcast_to(number, total.shape)
    columns = (segment.observation, segment.action, total, discount, after, next_action, policies)
    return Rows(*(leaf.reshape(-1, *leaf.shape[2:]) for leaf in columns))


def filled(config: OnlineConfig, state: State) -> Int[Array, ""]:
    """Rows in the replay, those of the iteration under way included."""
    return jnp.minimum((state.iteration + 1) * steps_of(config), len(state.inner.replay.reward))


def _learn(config: OnlineConfig, spec: Spec, learner: Learner, state: State) -> tuple[State, Metrics]:
    """Probing states where they are due, then the updates; nothing during the warm-up."""
    state = _redraw(config, spec, state)
    inner: Inner = state.inner
    key = jax.random.fold_in(typed_key(iteration_key(state)), STREAMS["critic"])
    chosen, since = config.improvement, state.iteration - warm_iterations(config) + 1
    known = Known(
        *(inner.replay, inner.policies, inner.representation, state.normaliser, filled(config, state)),
        jnp.minimum(state.iteration + 1, len(inner.policies.base)) * config.envs,
        anneal_factor(config, state),
        rate_at(chosen.learning_rate, chosen.final_learning_rate, state.fraction, chosen.final_at),
    )
    moments = jax.tree.map(lambda leaf: leaf[0], state.improver)
    learned = Learned(state.theta[0], moments, inner.critic, inner.target, inner.optimiser)
    on = since * config.critic.steps > config.time.critic_first
    work = lambda learned: update(learner, known, learned, key, on)  # noqa: E731
    rest = lambda learned: (learned, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), jax.eval_shape(work, learned)[1]))  # noqa: E731
    learned, metrics = jax.lax.cond(since > 0, work, rest, learned)
    average = inner.average + (learned.theta - inner.average) / jnp.clip(since, 1, config.time.average)
    inner = inner._replace(critic=learned.critic, target=learned.target, optimiser=learned.optimiser, average=average)
    metrics["policy_step"] = jnp.sqrt(jnp.mean(jnp.square(learned.theta - state.theta[0])))
    metrics["policy_size"] = jnp.mean(jnp.abs(learned.theta))
    improver = jax.tree.map(lambda leaf: leaf[None], learned.moments)
    return state._replace(theta=learned.theta[None], improver=improver, inner=inner), metrics


def _redraw(config: OnlineConfig, spec: Spec, state: State) -> State:
    """New probing states from the replay when the warm-up ends and every `redraw` iterations, and with them z of all
    stored policies, which their keys give again.
    """
    if config.time.representation != "probing":
        return state
    inner: Inner = state.inner
    since, every = state.iteration - warm_iterations(config) + 1, config.time.redraw
    due = since == 1 if every is None else (since >= 1) & ((since - 1) % every == 0)

    def again(policies: Policies, known: Representation) -> tuple[Array, Representation]:
        key = jax.random.fold_in(typed_key(iteration_key(state)), STREAMS["probe"])
        known = known._replace(states=draw(inner.replay.observation, key, filled(config, state), config.time.probes))
        made = lambda number: represent(config, spec, known, *policy(config, policies, number))  # noqa: E731
        worlds = jnp.arange(config.envs)
        every = lambda place: jax.vmap(made)(tagged(config, place * config.envs + worlds))  # noqa: E731
        some = lambda place, z: z.at[place].set(every(place))  # noqa: E731
        most = jnp.minimum(state.iteration + 1, len(policies.base))
        return jax.lax.fori_loop(0, most, some, policies.z), known

    keep = lambda policies, known: (policies.z, known)  # noqa: E731
    z, known = jax.lax.cond(due, again, keep, inner.policies, inner.representation)
    return state._replace(inner=inner._replace(policies=inner.policies._replace(z=z), representation=known))


def recent(mean: Array, returns: Float[Array, "T M"], done: Bool[Array, "T M"]) -> Float[Array, ""]:
    """The running mean of returns, with the episodes that are done: over as many as worlds, at most `EPISODES`."""
    ended = done.sum()
    new = jnp.where(done, returns, 0.0).sum() / jnp.maximum(ended, 1)
    weight = jnp.where(mean == 0.0, 1.0, ended / (ended + min(done.shape[1], EPISODES))) * (ended > 0)
    return mean + weight * (new - mean)


def _account(config: OnlineConfig, env: Env, state: State, segment: Segment) -> tuple[State, Metrics]:
    """Counters, the normaliser, how far noise and rates have fallen, and what the log tells of the segment."""
    inner, time = state.inner, config.time
    performance = recent(inner.performance, segment.returns, segment.done)
    annealed = inner.annealed
    if time.anneal_at is not None:
        good = (performance >= time.anneal_at * env.horizon) | (annealed > 0)
        annealed = jnp.minimum(annealed + good * (steps_of(config) / time.anneal_over), 1.0)
    if time.anneal_after is not None:
        due = (state.fraction - time.anneal_after) / max(1.0 - time.anneal_after, 1e-6)
        annealed = jnp.clip(due, annealed, 1.0)
    if state.normaliser is not None:
        flat = segment.observation.reshape(-1, segment.observation.shape[-1])
        state = state._replace(normaliser=observe(state.normaliser, flat))
    metrics = {
        "reward": segment.reward.mean(),
        "reward_min": segment.reward.min(),
        "reward_max": segment.reward.max(),
        "return_max": jnp.max(jnp.where(segment.done, segment.returns, -jnp.inf)),
        "termination_rate": segment.terminated.mean(),
        "saturation": jnp.mean(jnp.abs(segment.action) > 0.95),
        "replay_age": filled(config, state) / steps_of(config) / 2.0,
        "anneal_factor": anneal_factor(config, state),
    }
    state = state._replace(inner=inner._replace(performance=performance, annealed=annealed))
    return after_iteration(config, state, steps_of(config)), metrics
