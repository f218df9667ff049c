"""The policies that brax learns, as policies of ours."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from epvf_data.envs import Env
from epvf_data.importing.layers import checked, fold, keep_outputs
from epvf_data.policies.spec import PolicySpec


def to_policy(env: Env, params: tuple[Any, ...], activation: str) -> tuple[PolicySpec, Float[np.ndarray, "P"]]:
    """The deterministic policy tanh(mean) of brax's PPO or SAC as (specification, flat parameters).

    `params` is (observation normaliser, policy network, …) as brax's training returns it. The normaliser
    (x − mean) / std is linear, so it becomes part of the first layer, and policies of all runs and of any time have
    the same specification. The last layer's second half, the exploration's width, is left out.
    """
    normaliser, network = params[0], params[1]["params"]
    names = [f"hidden_{number}" for number in range(len(network))]
    kernels, biases = ([np.asarray(network[name][part]) for name in names] for part in ("kernel", "bias"))
    mean, std = np.asarray(normaliser.mean, np.float64), np.asarray(normaliser.std, np.float64)
    layers = keep_outputs(fold(checked(names, kernels, biases, turned=False), mean, std), env.action_size)
    spec = PolicySpec(env.observation_size, env.action_size, hidden=layers.sizes[1:-1], activation=activation)
    return spec, layers.flat()
