"""Critics that read what a policy does: its actions in probing states (Harb et al. 2020; Faccio et al. 2022).

`probing` learns its states with the rest of the network, as the paper's comparison does; it reads policies of any
widths and depths that share observations and actions. `ridge_on_actions` is the closed form: a plane over the actions
in states that the policies have just visited. The return depends on θ only through actions in visited states, so the
directions of θ that change none of them cost it no samples.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from epvf_data.critics.base import Critic, Params, Row
from epvf_data.critics.mlp import Network
from epvf_data.errors import ConfigError
from epvf_data.policies.kinds import Spec
from epvf_data.policies.probe import probe

_CODE, _DEPTH = 32, 3  # of the probe generator


def probing(
    spec: Spec,
    head: Network,
    states: int = 200,
    start: Float[np.ndarray, "K O"] | None = None,
    generated: bool = False,
    raw: bool = False,
) -> Critic:
    """The head on the actions in `states` learned probing states; with `raw`, the scaled θ stands beside them.

    States start at the rows of `start`, some of them twice where there are too few, or without it as standard normal
    observations. With `generated` they are linear in learned codes, through several layers without activations: fewer
    degrees of freedom, so that they stay together (the deep linear generator of Kahana et al. 2024).

    Raises ConfigError for starting states of other observations.
    """
    if start is not None and start.shape[1:] != (spec.observation_size,):
        raise ConfigError(
            f"got starting states of shape {list(start.shape)}; the policies observe {spec.observation_size} numbers."
        )
    make, read = _generator(spec, states, start) if generated else _free(spec, states, start)

    def init(key: PRNGKeyArray) -> Params:
        first, second = jax.random.split(key)
        length = states * spec.action_size + (spec.size if raw else 0)
        return {"states": make(first), "head": head.init(second, length)}

    def apply(params: Params, row: Row) -> Float[Array, "outputs"]:
        return above(params, act(row.spec, params, row.vector), row.scaled)

    def act(own: Spec | None, params: Params, theta: Float[Array, "P"]) -> Float[Array, "F"]:
        return jnp.ravel(probe(own or spec, theta, read(params["states"])))

    def above(params: Params, actions: Float[Array, "F"], scaled: Float[Array, "P"]) -> Float[Array, "outputs"]:
        return head.apply(params["head"], jnp.concatenate([actions, scaled]) if raw else actions)

    def many(params: Params, rows: Row) -> Float[Array, "n outputs"]:
        one = jax.checkpoint(lambda theta: act(rows.spec, params, theta))
        # On a processor XLA's batched products of small matrices are slower than the same products in turn (2.3 times).
        through = jax.lax.map if jax.default_backend() == "cpu" else lambda function, rows: jax.vmap(function)(rows)
        return jax.vmap(above, in_axes=(None, 0, 0))(params, through(one, rows.vector), rows.scaled)

    return Critic("probing+raw" if raw else "probing", init, apply, many)


def _free(spec: Spec, states: int, start: np.ndarray | None):
    """Every state by itself."""

    def make(key: PRNGKeyArray) -> Params:
        if start is None:
            return nn.initializers.normal(1.0)(key, (states, spec.observation_size))
        rounds = -(-states // len(start))
        order = jnp.concatenate([jax.random.permutation(own, len(start)) for own in jax.random.split(key, rounds)])
        return jnp.asarray(start)[order[:states]]

    return make, lambda params: params


def _generator(spec: Spec, states: int, start: np.ndarray | None):
    """States = centre + spread · (codes W₁ W₂ W₃), of the starting states' mean and deviation."""
    centre = jnp.zeros(spec.observation_size) if start is None else jnp.asarray(start.mean(0))
    spread = jnp.ones(spec.observation_size) if start is None else jnp.asarray(start.std(0))
    sizes = (*[_CODE] * _DEPTH, spec.observation_size)

    def make(key: PRNGKeyArray) -> Params:
        first, *keys = jax.random.split(key, _DEPTH + 1)
        shapes = zip(keys, sizes[:-1], sizes[1:], strict=True)
        layers = [jax.random.normal(own, (inputs, outputs)) / math.sqrt(inputs) for own, inputs, outputs in shapes]
        return {"codes": jax.random.normal(first, (states, _CODE)), "layers": layers}

    def read(params: Params) -> Float[Array, "K O"]:
        found = params["codes"]
        for matrix in params["layers"]:
            found = found @ matrix
        return centre[None] + spread[None] * found

    return make, read


class ActionPlane(NamedTuple):
    """V(θ) = Σ weights · (actions of θ in `states` − `origin`) + bias."""

    states: Float[Array, "K O"]
    origin: Float[Array, "F"]  # mean actions of the fitted policies, F = K · action size
    weights: Float[Array, "F"]
    bias: Float[Array, ""]


def action_value(spec: Spec, plane: ActionPlane, theta: Float[Array, "P"]) -> Float[Array, ""]:
    """V(θ) of one policy."""
    return jnp.dot(plane.weights, jnp.ravel(probe(spec, theta, plane.states)) - plane.origin) + plane.bias


def ridge_on_actions(
    spec: Spec,
    states: Float[Array, "K O"],
    theta: Float[Array, "n P"],
    targets: Float[Array, "n"],
    penalty: float,
    pairs: bool = False,
) -> ActionPlane:
    """The plane that minimises Σ (V(θ) − target)² + λ |weights|², with λ = penalty · (sum of the actions' variances).

    A direction with the share s of the actions' variance is shrunk by 1 / (1 + penalty / (n s)). With `pairs`, rows
    i and i + n/2 are antithetic, and the plane is fitted to the differences within pairs: what both halves share, such
    as falling whichever way the noise points, cannot pass for a slope.
    """
    actions = jax.lax.map(lambda row: jnp.ravel(probe(spec, row, states)), theta, batch_size=min(256, len(theta)))
    origin, bias = actions.mean(axis=0), targets.mean()
    if pairs:
        half = len(theta) // 2
        inputs, wanted = (actions[:half] - actions[half:]) / 2, (targets[:half] - targets[half:]) / 2
    else:
        inputs, wanted = actions - origin[None], targets - bias
    rows, size = inputs.shape
    level = penalty * jnp.sum(jnp.mean(jnp.square(inputs), axis=0)) + 1e-12
    if rows < size:  # the smaller of the two systems
        weights = inputs.T @ jnp.linalg.solve(inputs @ inputs.T + level * jnp.eye(rows), wanted)
    else:
        weights = jnp.linalg.solve(inputs.T @ inputs + level * jnp.eye(size), inputs.T @ wanted)
    return ActionPlane(states, origin, weights, bias)
