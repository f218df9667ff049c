"""How good θ is, and how right the critic: whole episodes at a chunk's end, through the door that everybody takes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt32

from epvf_data.envs import Env
from epvf_data.physics.episode import Outcomes
from epvf_data.physics.loop import start_key
from epvf_data.policies.kinds import Spec
from epvf_data.rollout import rollout
from epvf_data.trainers.metrics import spearman
from epvf_data.trainers.online.loop import episodes_of, evaluation_seeds
from epvf_data.trainers.online.pavf import acts, seen, value
from epvf_data.trainers.online.representation import represent
from epvf_data.trainers.online.settings import OnlineConfig
from epvf_data.trainers.online.state import Proposal, State, fold
from epvf_data.trainers.online.step_iteration import Method
from epvf_data.trainers.online.top import Top, top_of

DISTURBED, DISTURBANCE = 16, 0.0025  # an exact return hangs on rounding: a mean of so many is what counts
FEW = 2  # episodes of each, from starts of their own, where starts are random; θ itself has more
PERTURBED = 16  # perturbations of θ that are judged; all of an iteration's where they are recorded


class Judged(NamedTuple):
    """What whole episodes told. S seeds."""

    returns: Float[np.ndarray, "S 1"]  # of the average of θ
    params: Float[np.ndarray, "S 1 P"]  # the same, normaliser folded in
    metrics: dict[str, Float[np.ndarray, "S"]]
    recorded: tuple[Proposal, Outcomes] | None  # the perturbed policies
    top: Top  # the best of them


class _Lot(NamedTuple):
    """Policies to be judged."""

    theta: Float[Array, "S N P"]
    params: Float[Array, "S N P"]
    seeds: UInt32[Array, "S N 2"]


def make_judge(
    config: OnlineConfig, env: Env, spec: Spec, backend: str, method: Method, over_seeds: Callable
) -> Callable[[State, bool], Judged]:
    """(state, whether to roll out all perturbed policies of an iteration and keep the rollouts) → what they told."""
    seeds, episodes = config.seeds, episodes_of(config, env)
    few = min(episodes, FEW)
    starts = evaluation_seeds(1 + 2 * DISTURBED)
    starts[1:, 1] += np.tile(np.arange(1, 1 + DISTURBED, dtype=np.uint32), 2)

    def lots(state: State, _: Array) -> tuple[_Lot, Proposal]:
        noise = jax.random.normal(jax.random.key(0), (DISTURBED, spec.size))  # the same in every run
        around = lambda one: one + DISTURBANCE * noise  # noqa: E731
        average = state.inner.average
        theta = jnp.concatenate([average[None], around(average), around(state.theta[0])])
        params = jax.vmap(partial(fold, spec, state.normaliser))(theta)
        return _Lot(theta, params, jnp.asarray(starts)), method.propose(state)

    made = jax.jit(over_seeds(lots))
    foresee = jax.jit(over_seeds(partial(_foreseen, env, spec, method, few)))

    def roll(lot: _Lot, count: int) -> Outcomes:
        params, reset = (np.asarray(leaf).reshape(-1, leaf.shape[-1]) for leaf in lot[1:])
        made = partial(rollout, env, spec, params, reset_seed=reset, episodes=count, devices=config.devices)
        return made(backend=backend, discount=config.time.discount)

    def judge(state: State, record: bool) -> Judged:
        mine, proposal = made(state, np.int32(0))
        all_or_some = config.envs if record else min(PERTURBED, config.envs)
        others = _Lot(*(leaf[:, :all_or_some] for leaf in (proposal.theta, proposal.params, proposal.seeds)))
        light = state._replace(inner=state.inner._replace(worlds=None, replay=None, policies=None))
        some = [jnp.concatenate([mine[i][:, : 1 + DISTURBED], others[i][:, :PERTURBED]], axis=1) for i in (0, 2)]
        said = np.split(np.asarray(foresee((light, *some), np.int32(0))), [1 + DISTURBED], axis=1)
        kept, metrics = (roll(mine, few), roll(others, config.episodes)), {}
        for name, outcomes, expected in zip(("theta", "perturbed"), kept, said, strict=True):
            count = min(few, outcomes.discounted.shape[1])  # episodes whose starts the critic was asked about, too
            real = outcomes.discounted[:, :count].mean(axis=1).reshape(seeds, -1)[:, : expected.shape[1]]
            expected = expected[..., :count].mean(axis=-1)
            metrics[f"q_bias_{name}"] = (expected - real).mean(axis=1)
            metrics[f"q_rank_{name}"] = _spearmans(expected, real)
            if name == "perturbed":  # a smaller perturbation is often better, and no critic is needed to say so
                metrics["size_rank_perturbed"] = _spearmans(-np.asarray(proposal.scale)[:, : real.shape[1]], real)
        returns, perturbed = (outcomes.returns.mean(axis=1).reshape(seeds, -1) for outcomes in kept)
        if episodes > few:
            exact = roll(_Lot(*(leaf[:, :1] for leaf in mine)), episodes).returns.mean(axis=1)
            returns = np.concatenate([exact.reshape(seeds, 1), returns[:, 1:]], axis=1)
        metrics["return_disturbed"] = returns[:, 1 : 1 + DISTURBED].mean(axis=1)
        metrics["return_latest"] = returns[:, 1 + DISTURBED :].mean(axis=1)
        metrics["return_perturbed_whole"] = perturbed.mean(axis=1)
        recorded = (jax.tree.map(np.asarray, proposal), kept[1]) if record else None
        finite = kept[1].finite.all(axis=1).reshape(seeds, -1)
        top = top_of(others.params, jnp.asarray(perturbed), jnp.asarray(finite), jnp.ones(seeds, bool))
        return Judged(returns[:, :1], np.asarray(mine.params[:, :1]), metrics, recorded, top)

    return judge


def _foreseen(
    env: Env, spec: Spec, method: Method, episodes: int, inputs: tuple[State, Array, Array], _: Array
) -> Float[Array, "N E"]:
    """What the critic says of policies of one seed in the states where their first episodes start."""
    state, thetas, seeds = inputs
    learner = method.learner

    def one(theta: Float[Array, "P"], seed: UInt32[Array, "2"]) -> Float[Array, "E"]:
        starts = jax.vmap(lambda number: env.observe(env.reset(start_key(seed, number))))(jnp.arange(episodes))
        z = represent(learner.config, spec, state.inner.representation, theta, state.normaliser)
        action, _ = acts(spec, fold(spec, state.normaliser, theta), starts)
        return value(learner, state.inner.critic, seen(state.normaliser, starts), action, z)

    return jax.vmap(one)(thetas, seeds) / learner.config.time.reward_scale


def _spearmans(first: Float[np.ndarray, "S N"], second: Float[np.ndarray, "S N"]) -> Float[np.ndarray, "S"]:
    """Spearman's correlation of each seed; 0 where one of the two does not vary."""
    return np.array([spearman(*pair) for pair in zip(first, second, strict=True)])
