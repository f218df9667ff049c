"""The code of an architecture of the user's own: from `FILE.py:FUNCTION`, as typed, or a function passed from Python.

The function is called with the sizes of observations and actions, and gives an `Architecture`. Nothing that a store, a
policy file or a run says gets here.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Hashable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from epvf_data import code
from epvf_data.code import Function, Origin
from epvf_data.envs.functions import lowered
from epvf_data.errors import ArchitectureMismatchError, ConfigError
from epvf_data.policies.kinds import Spec
from epvf_data.policies.own import Architecture, OwnSpec, plain
from epvf_data.policies.spec import PolicySpec

# FILE.py:FUNCTION, or make(observation_size, action_size) itself.
PolicyCode = str | Function | Callable[[int, int], Architecture]
_made: dict[Hashable, Architecture] = {}  # what it computes → what gave it first: compiled functions are reused


def own_spec(given: PolicyCode, observation_size: int, action_size: int) -> OwnSpec:
    """The specification, with its code, of the user's architecture for a task; both functions are traced once.

    Raises FileError where there is no such file, ConfigError where the function fails or gives something else.
    """
    make = Function.of(given)
    with code.blamed(make.name, "policy"):
        made = make.call(observation_size, action_size)
    if not isinstance(made, Architecture):
        raise ConfigError(f"{make.name} gives {type(made).__name__}; expected an epvf_data.Architecture.")
    origin = origin_of(make)
    key, sight = jax.eval_shape(lambda: jax.random.key(0)), jax.ShapeDtypeStruct((observation_size,), jnp.float32)
    theta = _traced(make.name, "init", made.init, (key,), None)
    _traced(make.name, "apply", made.apply, (theta, sight), action_size)
    name = f"{plain(Path(origin.path).name)}:{plain(make.name.rpartition(':')[2].rpartition('.')[2])}"
    spec = OwnSpec(observation_size, action_size, theta.shape[0], name, origin.sha256, made.bounded)
    with code.blamed(make.name, "policy"):
        computed = lowered(made.init, (key,)), lowered(made.apply, (theta, sight))
    return replace(spec, code=_made.setdefault((origin.sha256, made.bounded, sight.shape, *computed), made))


def _traced(name: str, part: str, function: Callable, arguments: tuple, size: int | None) -> jax.ShapeDtypeStruct:
    """What a function gives: one vector of float32, of `size` numbers where that is known. Raises ConfigError."""
    with code.blamed(name, "policy"):
        found = jax.eval_shape(lambda *given: function(*given), *arguments)
    shape, kind = getattr(found, "shape", None), getattr(found, "dtype", None)
    if shape is None or kind != jnp.float32 or len(shape) != 1 or shape[0] != (size or shape[0]):
        told = type(found).__name__ if shape is None else f"{kind} of the shape {list(shape)}"
        wanted = "one flat vector of parameters" if size is None else "an action"
        raise ConfigError(f"{part} of {name} gives {told}; expected {wanted}, float32 of the shape [{size or 'P'}].")
    return found


def origin_of(make: Function) -> Origin:
    """The file that the function was loaded from, or is defined in; in a notebook, the function's own source.

    Raises ConfigError where there is neither: nothing would tell its policies from others.
    """
    if make.origin is not None:
        return make.origin
    function: Any = inspect.unwrap(make.call)
    function = function if inspect.isroutine(function) or inspect.isclass(function) else type(function)
    try:
        file = Path(inspect.getsourcefile(function) or "")
        text = file.read_bytes() if file.is_file() else inspect.getsource(function).encode()
    except (OSError, TypeError) as error:
        raise ConfigError(f"there is no source of {make.name}, which would tell its policies; put it in a file.") from (
            error
        )
    path = str(file.resolve()) if file.is_file() else f"{function.__module__}.py"
    return Origin(path, hashlib.sha256(text).hexdigest(), text)


def bind(spec: Spec, given: PolicyCode | None) -> Spec:
    """The specification of stored policies with the code that the user names for them; MLPs stay as they are.

    The file may have moved and be called otherwise. Raises ArchitectureMismatchError for another file or function.
    """
    if given is None or isinstance(spec, PolicySpec):
        return spec
    found = own_spec(given, spec.observation_size, spec.action_size)
    if found.sha256 != spec.sha256:
        raise ArchitectureMismatchError(
            f"the SHA-256 of {found.name.partition(':')[0]} is {found.sha256[:12]}…, and policies {spec} come from a "
            f"file of {spec.sha256[:12]}…; name that file as it was then."
        )
    if replace(found, name=spec.name, code=None) != replace(spec, code=None) or _function(found) != _function(spec):
        raise ArchitectureMismatchError(
            f"{found.name} gives policies {found} of {found.size:,} parameters, and {spec.name} those of {spec.size:,} "
            f"that are stored; name {_function(spec)} of that file, as it and what it imports were then."
        )
    return replace(spec, code=found.code)


def _function(spec: OwnSpec) -> str:
    return spec.name.rpartition(":")[2]
