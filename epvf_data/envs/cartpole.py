"""Gymnasium's CartPole-v1 in JAX: same constants, integrator, bounds, reward and horizon.

Source: Barto, Sutton & Anderson (1983), as fixed by Gymnasium's `classic_control/cartpole.py`.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from epvf_data.envs.base import Env, Physics

GRAVITY, CART_MASS, POLE_MASS, POLE_HALF_LENGTH = 9.8, 1.0, 0.1, 0.5  # m/s², kg, kg, m
FORCE, TIMESTEP = 10.0, 0.02  # N, s
MAX_POSITION, MAX_ANGLE = 2.4, 12 * 2 * math.pi / 360  # m, rad


def make() -> Env:
    """CartPole: observe (x, ẋ, θ, θ̇); an action ≥ 0 pushes right, below 0 left; reward 1 a step."""
    return Env(
        name="cartpole",
        version="1",
        observation_size=4,
        action_size=1,
        horizon=500,
        timestep=TIMESTEP,
        reset=_reset,
        observe=lambda state: jnp.stack([state.qpos[0], state.qvel[0], state.qpos[1], state.qvel[1]]),
        reward=lambda before, after: jnp.ones(()),
        terminated=_terminated,
        control=lambda action: jnp.where(action >= 0, FORCE, -FORCE),
        random_start=True,
        dynamics=_dynamics,
    )


def _reset(key: PRNGKeyArray) -> Physics:
    start = jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)
    return Physics(qpos=start[jnp.array([0, 2])], qvel=start[jnp.array([1, 3])], action=jnp.zeros(1))


def _terminated(state: Physics) -> Bool[Array, ""]:
    return (jnp.abs(state.qpos[0]) > MAX_POSITION) | (jnp.abs(state.qpos[1]) > MAX_ANGLE)


def _dynamics(state: Physics, control: Float[Array, "1"]) -> tuple[Float[Array, "2"], Float[Array, "2"]]:
    """One explicit Euler step: positions move with the velocities of before the step."""
    theta, theta_dot = state.qpos[1], state.qvel[1]
    total_mass = CART_MASS + POLE_MASS
    pole_moment = POLE_MASS * POLE_HALF_LENGTH
    sine, cosine = jnp.sin(theta), jnp.cos(theta)
    push = (control[0] + pole_moment * theta_dot**2 * sine) / total_mass
    theta_acceleration = (GRAVITY * sine - cosine * push) / (
        POLE_HALF_LENGTH * (4.0 / 3.0 - POLE_MASS * cosine**2 / total_mass)
    )
    acceleration = push - pole_moment * theta_acceleration * cosine / total_mass
    return state.qpos + TIMESTEP * state.qvel, state.qvel + TIMESTEP * jnp.stack([acceleration, theta_acceleration])
