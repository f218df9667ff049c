"""Critics that read what a policy does: its actions in probing states (Harb et al. 2020; Faccio et al. 2022).

`probing` learns its states with the rest of the network, as the paper's comparison does. `ridge_on_actions` is the
closed form: a plane over the actions in states that the policies have just visited. The return depends on θ only
through actions in visited states, so the directions of θ that change none of them cost it no samples.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from epvf_data.critics.base import Critic, Params
from epvf_data.critics.mlp import mlp
from epvf_data.policies.probe import probe
from epvf_data.policies.spec import PolicySpec


def probing(
    spec: PolicySpec,
    states: int = 200,
    widths: tuple[int, ...] = (256, 256),
    zero_last: bool = False,
    raw: bool = False,
) -> Critic:
    """An MLP on the actions in `states` learned probing states; with `raw`, θ stands beside them.

    It reads θ unscaled. States start as standard normal observations.
    """
    head = mlp(widths, zero_last)

    def features(params: Params, theta: Float[Array, "P"]) -> Float[Array, "F"]:
        actions = jnp.ravel(probe(spec, theta, params["states"]))
        return jnp.concatenate([actions, theta]) if raw else actions

    def init(key: PRNGKeyArray, size: int) -> Params:
        first, second = jax.random.split(key)
        length = states * spec.action_size + (size if raw else 0)
        return {
            "states": nn.initializers.normal(1.0)(first, (states, spec.observation_size)),
            "head": head.init(second, length),
        }

    def apply(params: Params, theta: Float[Array, "P"]) -> Float[Array, ""]:
        return head.apply(params["head"], features(params, theta))

    return Critic("probing+raw" if raw else "probing", init, apply)


class ActionPlane(NamedTuple):
    """V(θ) = Σ weights · (actions of θ in `states` − `origin`) + bias."""

    states: Float[Array, "K O"]
    origin: Float[Array, "F"]  # mean actions of the fitted policies, F = K · action size
    weights: Float[Array, "F"]
    bias: Float[Array, ""]


def action_value(spec: PolicySpec, plane: ActionPlane, theta: Float[Array, "P"]) -> Float[Array, ""]:
    """V(θ) of one policy."""
    return jnp.dot(plane.weights, jnp.ravel(probe(spec, theta, plane.states)) - plane.origin) + plane.bias


def ridge_on_actions(
    spec: PolicySpec,
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
