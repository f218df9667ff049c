"""What a task is; knows no policy. JAX and MuJoCo are imported when the first environment is made, not for names."""

from __future__ import annotations

import importlib
from collections.abc import Hashable
from functools import cache
from typing import TYPE_CHECKING, Any

from epvf_data import code
from epvf_data.envs.names import ENVS, PREFIX, check_name, known, objectives, relative, ships
from epvf_data.errors import ConfigError

if TYPE_CHECKING:
    from epvf_data.envs.base import Env, Physics

__all__ = ["ENVS", "Env", "Physics", "check_name", "full_name", "known", "make", "objectives", "relative", "ships"]


def make(name: str) -> Env:
    """The environment of that name; the same object at each call, so that compiled functions are reused.

    `ant.standing` is the ant with another reward, for teachers of another purpose: see `objectives`. `playground:NAME`
    is one of MuJoCo Playground. `module:function` and `file.py:function` name the user's own one, and run that code
    (see `code`): such a name must come from the user. Raises ConfigError for an unknown name, where Playground is not
    installed, or where that function gives no environment of a name of its own.
    """
    from epvf_data.envs.base import Env

    check_name(name)
    if known(name):
        return _given(name.replace(":", "-"))
    env = code.load(name, Env, "environment", "an epvf_data.envs.Env", _key)
    if known(env.name):
        raise ConfigError(f"{name} gives an environment called {env.name!r}, as one of this package; rename it.")
    return env


def full_name(name: str) -> str:
    """What the environment that the user names so is called in data sets; only one of the user's own is made for it."""
    check_name(name)
    return name.replace(":", "-") if known(name) else make(name).name


def _key(env: Env) -> Hashable:
    """Equal for two environments that are the same task, so that the first one's compiled functions serve."""
    from epvf_data.envs.functions import functions

    try:
        return env.digest, *functions(env).values()
    except Exception:  # `check-env` says what is wrong with it
        return object()


@cache
def _given(name: str) -> Env:
    if not ships(name):
        return importlib.import_module("epvf_data.envs.playground").make(name.removeprefix(PREFIX))
    body, _, objective = name.partition(".")
    maker = getattr(importlib.import_module(f"epvf_data.envs.{ENVS[body].module}"), ENVS[body].function)
    return maker(objective) if objective else maker()


def __getattr__(name: str) -> Any:
    if name in ("Env", "Physics"):
        return getattr(importlib.import_module("epvf_data.envs.base"), name)
    raise AttributeError(f"module 'epvf_data.envs' has no attribute {name!r}")
