"""One critic step, shared by offline and online training: pure, over seeds by `vmap`, over steps by `scan`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from epvf_data.critics.base import Critic, Params, Scale, standardise
from epvf_data.critics.losses import mse

Loss = Callable[[Float[Array, "B"], Float[Array, "B"], Float[Array, "B"]], Float[Array, ""]]


class Batch(NamedTuple):
    """Rows in standardised units. Weight 0 marks padding; it leaves the row out of the loss."""

    theta: Float[Array, "B P"]
    target: Float[Array, "B"]
    weight: Float[Array, "B"]


class FitState(NamedTuple):
    """All that one seed's training carries from step to step."""

    params: Params
    moments: Any  # optax state
    step: Int[Array, ""]


class Fit(NamedTuple):
    """The pure functions of one training set-up, over all seeds at once (leading axis S of the state).

    `init(keys [S], P) → state`; `step(state, batch) → (state, {"loss" [S], "gradient_norm" [S]})`; `many(state, theta,
    target, index, weight, scale)` runs one step for each row of `index` [K, B] on data that lie on the device;
    `predict(params, theta [n, P], scale) → [S, n]` in units of the return.
    """

    init: Callable[..., FitState]
    step: Callable[..., tuple[FitState, dict[str, Array]]]
    many: Callable[..., tuple[FitState, dict[str, Array]]]
    predict: Callable[..., Float[Array, "S n"]]


def make_optimiser(
    learning_rate: float = 3e-4, weight_decay: float = 1e-2, steps: int | None = None, clip: float = 1.0
) -> optax.GradientTransformation:
    """AdamW (Loshchilov and Hutter 2019) after clipping the gradient's global norm at `clip`.

    The rate falls to zero along a cosine over `steps`, or stays constant without them. Decay spares vectors (biases).
    """
    rate = learning_rate if steps is None else optax.cosine_decay_schedule(learning_rate, steps)
    matrices = partial(jax.tree.map, lambda leaf: leaf.ndim > 1)
    return optax.chain(optax.clip_by_global_norm(clip), optax.adamw(rate, weight_decay=weight_decay, mask=matrices))


def init_state(critic: Critic, optimiser: optax.GradientTransformation, key: PRNGKeyArray, size: int) -> FitState:
    """A fresh state of one seed, for policies of `size` parameters."""
    params = critic.init(key, size)
    return FitState(params, optimiser.init(params), jnp.zeros((), jnp.int32))


def critic_step(
    critic: Critic, optimiser: optax.GradientTransformation, state: FitState, batch: Batch, loss: Loss = mse
) -> tuple[FitState, dict[str, Array]]:
    """One gradient step of one seed. Metrics: `loss` before the step and `gradient_norm` before clipping."""

    def objective(params: Params) -> Float[Array, ""]:
        predictions = jax.vmap(critic.apply, in_axes=(None, 0))(params, batch.theta)
        return loss(predictions, batch.target, batch.weight)

    error, gradient = jax.value_and_grad(objective)(state.params)
    updates, moments = optimiser.update(gradient, state.moments, state.params)
    params = optax.apply_updates(state.params, updates)
    norm = jnp.sqrt(sum((jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(gradient)), start=jnp.zeros(())))
    metrics = {"loss": error, "gradient_norm": norm}
    return FitState(params, moments, state.step + 1), metrics


def make_fit(critic: Critic, optimiser: optax.GradientTransformation, loss: Loss = mse) -> Fit:
    """Compile-once functions over seeds. All seeds see the same batches: one read of the rows serves them all."""
    over_seeds = jax.vmap(partial(critic_step, critic, optimiser, loss=loss), in_axes=(0, None))

    def prepare(theta: Array, target: Array, weight: Array, scale: Scale) -> Batch:
        rows = jax.vmap(standardise, in_axes=(None, 0))(scale, theta)
        return Batch(rows, (target - scale.return_mean) / scale.return_std, weight)

    @partial(jax.jit, donate_argnums=0)
    def step(state: FitState, theta: Array, target: Array, weight: Array, scale: Scale):
        return over_seeds(state, prepare(theta, target, weight, scale))

    @partial(jax.jit, donate_argnums=0)
    def many(state: FitState, theta: Array, target: Array, index: Array, weight: Array, scale: Scale):
        def body(state: FitState, pick: tuple[Array, Array]):
            return over_seeds(state, prepare(theta[pick[0]], target[pick[0]], pick[1], scale))

        return jax.lax.scan(body, state, (index, weight))

    @jax.jit
    def predict(params: Params, theta: Float[Array, "n P"], scale: Scale) -> Float[Array, "S n"]:
        rows = jax.vmap(standardise, in_axes=(None, 0))(scale, theta)
        each = jax.vmap(jax.vmap(critic.apply, in_axes=(None, 0)), in_axes=(0, None))(params, rows)
        return each * scale.return_std + scale.return_mean

    @partial(jax.jit, static_argnums=1)
    def init(keys: PRNGKeyArray, size: int) -> FitState:
        return jax.vmap(lambda key: init_state(critic, optimiser, key, size))(keys)

    return Fit(init, step, many, predict)
