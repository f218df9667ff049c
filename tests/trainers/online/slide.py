"""A task that is learned in seconds: a mass on a line is pushed to the middle and must not leave the track."""

import jax
import jax.numpy as jnp

from epvf_data.envs.base import Env, Physics


def make() -> Env:
    def reset(key):
        place = jax.random.uniform(key, (1,), minval=-1.5, maxval=1.5)
        return Physics(place, jnp.zeros(1), jnp.zeros(1))

    def dynamics(state, control):
        speed = 0.8 * state.qvel + control
        return state.qpos + 0.1 * speed, speed

    return Env(
        name="slide",
        version="1",
        observation_size=2,
        action_size=1,
        horizon=40,
        timestep=0.1,
        reset=reset,
        observe=lambda state: jnp.concatenate([state.qpos, state.qvel]),
        reward=lambda before, after: jnp.exp(-4.0 * jnp.sum(after.qpos**2)),
        terminated=lambda state: jnp.abs(state.qpos[0]) > 2.0,
        control=lambda action: action,
        random_start=True,
        dynamics=dynamics,
    )
