"""Environments of MuJoCo Playground's dm_control suite: models, starts, observations and rewards are its own code.

Playground looks at its data as `mjx.step` leaves them: positions and velocities are new, all else (frames, sensors) is
from where the last physics step began. There the positions were `qpos − timestep·qvel`, since all these models take
semi-implicit Euler steps of hinges and slides; so what Playground sees is a function of the state, and is computed here
with MJX's kinematics alone, whoever steps the physics. The velocities there are known only where a control step is one
physics step; elsewhere velocity sensors see the new velocities.
Source: Zakka et al. (2025), MuJoCo Playground; Tassa et al. (2018), DeepMind Control Suite.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from functools import wraps
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from epvf_data.envs.base import Env, Physics
from epvf_data.envs.names import PREFIX
from epvf_data.errors import extra


def make(name: str) -> Env:
    """What Playground calls `name`, in its default configuration, as the environment playground-`name`.

    Runs code of the installed package mujoco_playground and no other, so the name may come from anywhere.

    Raises MissingPackageError where that package is not installed.
    """
    with _quiet(), jax.numpy_rank_promotion("allow"):
        world = _suite().load(name, config_overrides={"impl": "jax"})
        size = world.observation_size
    look = _viewer(world)
    single, timestep = world.n_substeps == 1, world.sim_dt

    def began(state: Physics) -> Physics:
        """Where the physics step that led to this state began, its velocities aside."""
        return state._replace(qpos=state.qpos - timestep * state.qvel)

    @_as_playground
    def reset(key: PRNGKeyArray) -> Physics:
        data = world.reset(key).data
        return Physics(*(jnp.asarray(part, jnp.float32) for part in (data.qpos, data.qvel, data.ctrl * 0)))

    @_as_playground
    def observe(state: Physics) -> Float[Array, "O"]:
        return world._get_obs(look(began(state), state), {})

    @_as_playground
    def reward(before: Physics, after: Physics) -> Float[Array, ""]:
        return world._get_reward(look(before if single else began(after), after), after.action, {}, {})

    return Env(
        name=PREFIX + name,
        version=f"1-{metadata.version('playground')}",
        observation_size=size,
        action_size=world.action_size,
        horizon=world._config.episode_length,
        timestep=timestep,
        substeps=world.n_substeps,
        reset=reset,
        observe=observe,
        reward=reward,
        terminated=_never,
        control=lambda action: action,
        random_start=True,
        xml=model_xml(world),
    )


def model_xml(world: Any) -> str:
    """The model as one text: Playground's file with what it includes, and Playground's time step."""
    root = ElementTree.fromstring(Path(world.xml_path).read_text("utf-8"))
    for place, part in reversed(list(enumerate(root))):
        if part.tag == "include":
            root[place : place + 1] = list(ElementTree.fromstring(world.model_assets[Path(part.attrib["file"]).name]))
    for option in root.iter("option"):
        option.set("timestep", repr(world.sim_dt))
    return ElementTree.tostring(root, encoding="unicode")


def _viewer(world: Any) -> Callable[[Physics, Physics], Any]:
    """A function (where the last physics step began, where it led) → Playground's data after that step."""
    from mujoco import mjx  # imported late: takes seconds

    model = world.mjx_model
    blank = mjx.make_data(model)

    def look(began: Physics, state: Physics) -> Any:
        data = blank.replace(qpos=began.qpos, qvel=began.qvel)
        for stage in (mjx.kinematics, mjx.com_pos, mjx.sensor_pos, mjx.com_vel, mjx.sensor_vel):
            data = stage(model, data)  # what nobody reads is not computed: the compiler removes it
        return data.replace(qpos=state.qpos, qvel=state.qvel)

    return look


def _never(state: Physics) -> Bool[Array, ""]:
    return jnp.zeros((), bool)


def _as_playground(function: Callable) -> Callable:
    """The function compiled, since step by step it takes seconds, and with arrays of unequal ranks allowed."""

    @jax.jit
    @wraps(function)
    def allowing(*parts: Any) -> Any:
        with jax.numpy_rank_promotion("allow"):
            return function(*parts)

    return allowing


def _suite() -> Any:
    """Playground's dm_control suite, whose models are in its wheel: nothing is downloaded."""
    with extra("playground"):
        return importlib.import_module("mujoco_playground").dm_control_suite


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Its imports warn of an unmaintained dependency and print what is missing, and a model is of an older style."""
    import mujoco

    if mujoco.get_mju_user_warning() is None:
        mujoco.set_mju_user_warning(lambda message: None)  # as the native backend does
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
