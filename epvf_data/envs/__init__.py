"""What a task is; knows no policy."""

from functools import cache

from epvf_data.envs import ant, ant_servo, cartpole, gym
from epvf_data.envs.base import Env, Physics
from epvf_data.errors import ConfigError

__all__ = ["ENVS", "Env", "Physics", "make"]

ENVS = {
    "ant": ant.make,
    "ant-gym": gym.ant,
    "ant-servo": ant_servo.make,
    "cartpole": cartpole.make,
    "halfcheetah": gym.halfcheetah,
    "hopper": gym.hopper,
    "humanoid": gym.humanoid,
    "swimmer": gym.swimmer,
    "walker2d": gym.walker2d,
}


@cache
def make(name: str) -> Env:
    """The environment of that name; the same object at each call, so that compiled functions are reused.

    Raises ConfigError for an unknown name.
    """
    if name not in ENVS:
        raise ConfigError(f"there is no environment {name!r}; choose one of {', '.join(sorted(ENVS))}.")
    return ENVS[name]()
