"""The policies that brax learns, as policies of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from epvf_data.envs import Env
from epvf_data.policies.spec import PolicySpec


def to_policy(env: Env, params: tuple[Any, ...], activation: str) -> tuple[PolicySpec, Float[np.ndarray, "P"]]:
    """The deterministic policy tanh(mean) of brax's PPO or SAC as (specification, flat parameters).

    `params` is (observation normaliser, policy network, …) as brax's training returns it. The normaliser
    (x − mean) / std is linear, so it becomes part of the first layer, and policies of all runs and of any time have
    the same specification. The last layer's second half, the exploration's width, is left out.
    """
    normaliser, network = params[0], params[1]["params"]
    layers = [_layer(network[f"hidden_{number}"]) for number in range(len(network))]
    mean, std = np.asarray(normaliser.mean, np.float64), np.asarray(normaliser.std, np.float64)
    kernel, bias = layers[0]
    layers[0] = kernel / std[:, None], bias - (mean / std) @ kernel
    kernel, bias = layers[-1]
    layers[-1] = kernel[:, : env.action_size], bias[: env.action_size]
    hidden = tuple(int(kernel.shape[1]) for kernel, _ in layers[:-1])
    spec = PolicySpec(env.observation_size, env.action_size, hidden=hidden, activation=activation)
    return spec, np.concatenate([np.ravel(part) for layer in layers for part in layer]).astype(np.float32)


def _layer(dense: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(dense["kernel"], np.float64), np.asarray(dense["bias"], np.float64)
