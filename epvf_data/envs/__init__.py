"""What a task is; knows no policy."""

import difflib
from collections.abc import Hashable
from functools import cache

from epvf_data import code
from epvf_data.envs import ant, ant_servo, cartpole, gym, playground
from epvf_data.envs.base import Env, Physics
from epvf_data.envs.functions import functions
from epvf_data.errors import ConfigError
from epvf_data.untrusted import printable

__all__ = ["ENVS", "Env", "Physics", "check_name", "functions", "known", "make", "objectives", "ships"]

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


OBJECTIVES = {"ant": ant.OBJECTIVES} | dict.fromkeys(
    ("ant-gym", "halfcheetah", "hopper", "humanoid", "swimmer", "walker2d"), gym.OBJECTIVES
)


def objectives(name: str) -> tuple[str, ...]:
    """What else the body of an environment can be rewarded for."""
    return tuple(OBJECTIVES.get(name, ()))


def ships(name: str) -> bool:
    """Whether the environment is one of this package's own, or its body with another objective."""
    body, _, objective = name.partition(".")
    return name in ENVS or objective in objectives(body)


def make(name: str) -> Env:
    """The environment of that name; the same object at each call, so that compiled functions are reused.

    `ant.standing` is the ant with another reward, for teachers of another purpose: see `objectives`. `playground:NAME`
    is one of MuJoCo Playground. `module:function` and `file.py:function` name the user's own one, and run that code
    (see `code`): such a name must come from the user. Raises ConfigError for an unknown name, where Playground is not
    installed, or where that function gives no environment of a name of its own.
    """
    check_name(name)
    if known(name):
        return _given(name.replace(":", "-"))
    env = code.load(name, Env, "environment", "an epvf_data.envs.Env", _key)
    if known(env.name):
        raise ConfigError(f"{name} gives an environment called {env.name!r}, as one of this package; rename it.")
    return env


def _key(env: Env) -> Hashable:
    """Equal for two environments that are the same task, so that the first one's compiled functions serve."""
    try:
        return env.digest, *functions(env).values()
    except Exception:  # `check-env` says what is wrong with it
        return object()


@cache
def _given(name: str) -> Env:
    if not ships(name):
        return playground.make(name.removeprefix(playground.PREFIX))
    body, _, objective = name.partition(".")
    return ENVS[body](objective) if objective else ENVS[body]()


def known(name: str) -> bool:
    """Whether `make` gives this environment without code of a stranger, so that data sets and files may name it."""
    return ships(name) or playground.known(name)


def check_name(name: str) -> None:
    """Raises ConfigError for a name that can be no environment's."""
    if name.startswith("playground:"):
        playground.check_name(name)
    elif not known(name) and ":" not in name:
        body, _, objective = name.partition(".")
        if body in ENVS and objective:
            choice = ", ".join(f"{body}.{one}" for one in objectives(body)) or body
            raise ConfigError(
                f"environment {body} has no objective {printable(repr(objective))}; choose from {choice}."
            )
        near = difflib.get_close_matches(name, ENVS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(sorted(ENVS))}"
        raise ConfigError(
            f"there is no environment {printable(repr(name))}; "
            f"{hint}{'' if near else ', or file.py:function for yours.'}"
        )
