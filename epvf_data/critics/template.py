"""V(θ) = w₂ · tanh(W₁ z + b): change what lies between `init` and `apply`, and `epvf-data check-critic` this file."""

import jax
import jax.numpy as jnp

from epvf_data import Critic


def make(made):  # of a policy the critic reads made.size numbers; of the critic the loss reads made.outputs
    def init(key):  # fresh parameters, any tree of arrays: all randomness comes from the key
        first, second = jax.random.split(key)
        inner = jax.random.normal(first, (made.size, 64)) / made.size**0.5
        return {"inner": inner, "bias": jnp.zeros(64), "outer": jax.random.normal(second, (64, made.outputs)) / 8}

    def apply(params, row):  # one policy: row.scaled is z, its θ in units of the training rows' spread; row.vector is θ
        return jnp.tanh(row.scaled @ params["inner"] + params["bias"]) @ params["outer"]

    return Critic("tanh", init, apply)
