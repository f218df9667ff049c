"""The policies that brax learns, as policies of ours."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from epvf_data.envs import Env
from epvf_data.importing.layers import checked, fold, keep_outputs
from epvf_data.policies.spec import PolicySpec


def to_policy(
    env: Env, params: tuple[Any, ...], activation: str, free_std: bool = False
) -> tuple[PolicySpec, Float[np.ndarray, "P"]]:
    """The deterministic policy of brax's PPO or SAC as (specification, flat parameters).

    `params` is (observation normaliser, policy network, …) as brax's training returns it. The normaliser
    (x − mean) / std is linear, so it becomes part of the first layer, and policies of all runs and of any time have
    the same specification. The policy is tanh(mean); the last layer's second half, the exploration's width, is left
    out. With `free_std` it is the mean itself, unbounded, and log_std, which acts on nothing, ends the vector.
    """
    normaliser, network = params[0], params[1]["params"]
    layers = dict(network["MLP_0"], Dense_0=network["Dense_0"]) if free_std else network
    names = [f"hidden_{number}" for number in range(len(layers) - free_std)] + ["Dense_0"] * free_std
    kernels, biases = ([np.asarray(layers[name][part]) for name in names] for part in ("kernel", "bias"))
    mean, std = np.asarray(normaliser.mean, np.float64), np.asarray(normaliser.std, np.float64)
    found = keep_outputs(fold(checked(names, kernels, biases, turned=False), mean, std), env.action_size)
    spec = PolicySpec(
        env.observation_size,
        env.action_size,
        hidden=found.sizes[1:-1],
        activation=activation,
        output="identity" if free_std else "tanh",
        gaussian="mean" if free_std else None,
    )
    (log_std,) = jax.tree.leaves(network["std_logparam"]) if free_std else (np.zeros(0),)
    return spec, np.concatenate([found.flat(), np.ravel(log_std)]).astype(np.float32)
