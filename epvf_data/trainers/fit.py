"""One critic step, shared by offline and online training: pure, over seeds by `vmap`, over steps by `scan`.

Policies of several architectures come as one array for each; a step sees some rows of every one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from epvf_data.critics.base import AnyArray, Critic, Params, Row, Scale, make_row
from epvf_data.critics.conservative import next_dual, uphill
from epvf_data.critics.losses import Loss, make_loss
from epvf_data.critics.settings import Conservative, CriticSettings
from epvf_data.policies.kinds import Spec, mlp_of
from epvf_data.policies.symmetry import flip, permute
from epvf_data.trainers.mesh import ONE, Layout

MSE = make_loss("mse")
PLAIN = CriticSettings()


class Batch(NamedTuple):
    """Rows of each architecture, and for all of them one after the other targets in standardised units and weights.

    Weight 0 marks padding; it leaves the row out of the loss.
    """

    rows: tuple[Row, ...]
    target: Float[Array, "B"]
    weight: Float[Array, "B"]
    spread: tuple[Float[Array, "D"], ...] = ()  # of each architecture's vectors; the gradient penalty needs it


class FitState(NamedTuple):
    """All that one seed's training carries from step to step."""

    params: Params
    moments: Any  # optax state; with a conservative term (optax state, log α)
    step: Int[Array, ""]


class Fit(NamedTuple):
    """The pure functions of one training set-up, over all seeds at once (leading axis S of the state).

    Where there are several architectures, `vectors`, `index`, `weight`, `target` and `scales` are tuples with one
    entry for each. `init(keys [S]) → state`; `step(state, vectors, target, weight, scales) → (state, {"loss" [S],
    "gradient_norm" [S]})`; `many(state, vectors, target, index, weight, scales)` runs one step for each row of `index`
    [K, B] on data that lie on the device; `outputs(params, vectors [n, D], scale, spec) → [S, n, outputs]` are the
    critics' own, which `value` reads in units of the return.
    """

    init: Callable[..., FitState]
    step: Callable[..., tuple[FitState, dict[str, Array]]]
    many: Callable[..., tuple[FitState, dict[str, Array]]]
    outputs: Callable[..., Float[Array, "S n outputs"]]
    loss: Loss

    def value(self, outputs: Float[AnyArray, "*n outputs"], scale: Scale) -> Float[Array, "*n"]:
        """V in units of the return."""
        return self.loss.read(outputs) * scale.return_std + scale.return_mean


def make_optimiser(
    learning_rate: float = 3e-4, weight_decay: float = 1e-2, steps: int | None = None, clip: float = 1.0
) -> optax.GradientTransformation:
    """AdamW (Loshchilov and Hutter 2019) after clipping the gradient's global norm at `clip`.

    The rate falls to zero along a cosine over `steps`, or stays constant without them. Decay spares vectors (biases).
    """
    rate = learning_rate if steps is None else optax.cosine_decay_schedule(learning_rate, steps)
    matrices = partial(jax.tree.map, lambda leaf: leaf.ndim > 1)
    return optax.chain(optax.clip_by_global_norm(clip), optax.adamw(rate, weight_decay=weight_decay, mask=matrices))


def init_state(
    critic: Critic,
    optimiser: optax.GradientTransformation,
    key: PRNGKeyArray,
    conservative: Conservative | None = None,
) -> FitState:
    """A fresh state of one seed."""
    params = critic.init(key)
    moments = optimiser.init(params)
    if conservative is not None:
        moments = (moments, jnp.log(jnp.asarray(conservative.first, jnp.float32)))
    return FitState(params, moments, jnp.zeros((), jnp.int32))


def evaluate(
    critic: Critic, params: Params, rows: tuple[Row, ...], block: int | None = None
) -> Float[Array, "B outputs"]:
    """The critic's outputs for all rows; with `block`, for so many at a time, computed again in the backward pass."""

    def over(rows: Row) -> Float[Array, "n outputs"]:
        if block is None or block >= len(rows.vector):
            return (critic.many or jax.vmap(critic.apply, in_axes=(None, 0)))(params, rows)
        return jax.lax.map(partial(jax.checkpoint(critic.apply), params), rows, batch_size=block)

    return jnp.concatenate([over(some) for some in rows])


def critic_step(
    critic: Critic,
    optimiser: optax.GradientTransformation,
    state: FitState,
    batch: Batch,
    loss: Loss = MSE,
    settings: CriticSettings = PLAIN,
    conservative: Conservative | None = None,
) -> tuple[FitState, dict[str, Array]]:
    """One gradient step of one seed. Metrics: `loss` before the step and `gradient_norm` before clipping."""
    plain, dual = state.moments if conservative is not None else (state.moments, None)

    def objective(params: Params) -> tuple[Float[Array, ""], tuple[Float[Array, ""], Float[Array, ""]]]:
        outputs = evaluate(critic, params, batch.rows, settings.block)
        total = error = loss.loss(outputs, batch.target, batch.weight)
        gap = jnp.zeros(())
        if settings.gradient_penalty:
            total = total + settings.gradient_penalty * _roughness(critic, params, batch, loss)
        if conservative is not None and dual is not None:
            gap = _gap(critic, params, batch, loss, conservative)
            total = total + jnp.exp(dual) * gap
        return total, (error, gap)

    (_, (error, gap)), gradient = jax.value_and_grad(objective, has_aux=True)(state.params)
    updates, moments = optimiser.update(gradient, plain, state.params)
    if conservative is not None and dual is not None:
        moments = (moments, next_dual(dual, gap, conservative))
    params = optax.apply_updates(state.params, updates)
    norm = jnp.sqrt(sum((jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(gradient)), start=jnp.zeros(())))
    return FitState(params, moments, state.step + 1), {"loss": error, "gradient_norm": norm}


def _gap(critic: Critic, params: Params, batch: Batch, loss: Loss, how: Conservative) -> Float[Array, ""]:
    """E V(z⁻) − E V(z) over the first rows of the batch's architectures, padding left out."""
    pieces, weights, start = [], [], 0
    for rows, spread in zip(batch.rows, batch.spread, strict=True):
        count = len(rows.vector)
        share = max(1, min(count, round(how.rows * count / len(batch.weight))))

        def one(row: Row, spread: Array = spread) -> Float[Array, ""]:
            def value(own: Params, away: Float[Array, "D"]) -> Float[Array, ""]:
                moved = row.replace(vector=row.vector + spread * away, scaled=row.scaled + away)  # pyright: ignore
                return loss.read(critic.apply(own, moved))

            fixed, still = jax.lax.stop_gradient(params), jnp.zeros_like(row.scaled)
            return value(params, uphill(partial(value, fixed), still, how)) - value(params, still)

        pieces.append(jax.vmap(one)(jax.tree.map(lambda leaf: leaf[:share], rows)))  # noqa: B023
        weights.append(batch.weight[start : start + share])
        start += count
    weight = jnp.concatenate(weights)
    return jnp.sum(weight * jnp.concatenate(pieces)) / jnp.maximum(jnp.sum(weight), 1.0)


def _roughness(critic: Critic, params: Params, batch: Batch, loss: Loss) -> Float[Array, ""]:
    """Weighted mean of ‖∂V/∂z‖², z being the vector in units of its spread."""

    def value(vector: Array, scaled: Array, row: Row) -> Array:
        return loss.read(critic.apply(params, row.replace(vector=vector, scaled=scaled)))  # pyright: ignore

    def squared(row: Row, spread: Array) -> Array:
        through_vector, through_scaled = jax.grad(value, argnums=(0, 1))(row.vector, row.scaled, row)
        return jnp.sum(jnp.square(through_scaled + spread * through_vector))

    each = [
        jax.vmap(squared, in_axes=(0, None))(rows, spread)
        for rows, spread in zip(batch.rows, batch.spread, strict=True)
    ]
    return jnp.sum(batch.weight * jnp.concatenate(each)) / jnp.sum(batch.weight)


def augment(kind: str, spec: Spec, vectors: Float[Array, "B P"], key: PRNGKeyArray) -> Float[Array, "B P"]:
    """The same policies with hidden units renumbered ("permute"), signs flipped ("flip"), or "both"; "none": as is."""
    changes = {"none": (), "permute": (permute,), "flip": (flip,), "both": (permute, flip)}[kind]
    for number, change in enumerate(changes):
        own = mlp_of(spec, f"augment={kind}", "leave it at none")
        keys = jax.random.split(jax.random.fold_in(key, number), len(vectors))
        vectors = jax.vmap(partial(change, own))(vectors, keys)
    return vectors


def make_fit(
    critic: Critic,
    optimiser: optax.GradientTransformation,
    specs: tuple[Spec | None, ...] = (None,),
    loss: Loss = MSE,
    settings: CriticSettings = PLAIN,
    seed: int = 0,
    conservative: Conservative | None = None,
    layout: Layout = ONE,
) -> Fit:
    """Compile-once functions over seeds. All seeds see the same batches: one read of the rows serves them all.

    `specs` are the architectures of the rows (None for vectors that are no parameters); `seed` that of augmentations.
    With a `layout` of several devices, the state that is given has to lie as `layout.members` puts it.
    """
    one = partial(critic_step, critic, optimiser, loss=loss, settings=settings, conservative=conservative)
    over_seeds = jax.vmap(one, in_axes=(0, None))

    def prepare(state: FitState, vectors, target, weight, scales) -> Batch:
        rows = []
        vectors, target, weight = layout.rows((vectors, target, weight))
        for place, (spec, some, scale) in enumerate(zip(specs, vectors, scales, strict=True)):
            if settings.augment != "none" and spec is not None:
                key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), state.step[0]), place)
                some = augment(settings.augment, spec, some, key)
            rows.append(jax.vmap(lambda vector, scale=scale, spec=spec: make_row(scale, vector, spec))(some))
        wanted = (jnp.concatenate(target) - scales[0].return_mean) / scales[0].return_std
        return Batch(tuple(rows), wanted, jnp.concatenate(weight), tuple(scale.theta_std for scale in scales))

    def advance(state: FitState, vectors, target, weight, scales):
        state, found = over_seeds(state, prepare(state, vectors, target, weight, scales))
        return layout.members(state), found

    @partial(jax.jit, donate_argnums=0)
    def step(state: FitState, vectors, target, weight, scales):
        return advance(state, vectors, target, weight, scales)

    @partial(jax.jit, donate_argnums=0)
    def many(state: FitState, vectors, target, index, weight, scales):
        def body(state: FitState, pick):
            index, weight = pick
            take = partial(jax.tree.map, lambda column, rows: column[rows])
            return advance(state, take(vectors, index), take(target, index), weight, scales)

        return jax.lax.scan(body, state, (index, weight))

    @partial(jax.jit, static_argnums=3)
    def outputs(params: Params, vectors: Float[Array, "n D"], scale: Scale, spec: Spec | None = None):
        rows = jax.vmap(lambda vector: make_row(scale, vector, spec))(vectors)
        return jax.vmap(lambda own: evaluate(critic, own, (rows,), settings.block))(params)

    @jax.jit
    def init(keys: PRNGKeyArray) -> FitState:
        return jax.vmap(lambda key: init_state(critic, optimiser, key, conservative))(keys)

    return Fit(init, step, many, outputs, loss)
