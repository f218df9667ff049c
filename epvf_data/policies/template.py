"""One hidden layer of sines: change what lies between `init` and `apply`, and `epvf-data check-policy` this file."""

import jax
import jax.numpy as jnp

from epvf_data import Architecture


def make(observations, actions, hidden=32):  # how many numbers the task observes, and how many an action has
    ends = (observations * hidden, (observations + 1) * hidden)  # of the inner weights in θ, and of the biases
    spread = jnp.concatenate([jnp.full(ends[1], observations**-0.5), jnp.full(hidden * actions, hidden**-0.5)])

    def init(key):  # a fresh θ, one flat vector: all randomness comes from the key
        return spread * jax.random.normal(key, spread.shape)

    def apply(theta, observation):  # the action of one policy in one state, in [-1, 1]
        inner, bias, outer = jnp.split(theta, ends)
        return jnp.tanh(jnp.sin(observation @ inner.reshape(-1, hidden) + bias) @ outer.reshape(hidden, -1))

    return Architecture(init, apply)
