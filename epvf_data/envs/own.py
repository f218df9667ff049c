"""Somebody's own environment: a function in a module or a file that gives an `Env`."""

from __future__ import annotations

import errno
import importlib
import sys
import traceback
from pathlib import Path
from types import ModuleType

from epvf_data.envs.base import Env
from epvf_data.errors import ConfigError

_files: dict[str, tuple[ModuleType, str]] = {}  # path → module and text
_made: dict[tuple[str, str, str], Env] = {}  # (module, its text, function) → environment


def load(where: str) -> Env:
    """The environment that `module:function` or `file.py:function` gives; modules are looked for here first.

    This runs the user's code, so the name must come from the user: never from a data set, a policy file or a run. The
    same unchanged code gives the same object again, so that compiled functions are reused.

    Raises ConfigError where there is no such function, it fails, or it gives something else.
    """
    place, _, name = where.rpartition(":")
    try:
        module, version = _module(place)
        env = _made.get((module.__name__, version, name)) or getattr(module, name)()
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{where} gives no environment: {_reason(error, place, name)}") from error
    if not isinstance(env, Env):
        raise ConfigError(f"{where} gives {type(env).__name__}; expected an epvf_data.envs.Env.")
    return _made.setdefault((module.__name__, version, name), env)


def _module(place: str) -> tuple[ModuleType, str]:
    """The module, and what changes when it does."""
    path = Path(place)
    if path.suffix != ".py":
        sys.path.insert(0, str(Path.cwd()))
        try:
            return importlib.import_module(place), ""
        finally:
            sys.path.remove(str(Path.cwd()))
    if not path.is_file():
        raise FileNotFoundError(errno.ENOENT, "no such file", place)
    text = path.read_text()
    module = ModuleType(f"{path.resolve()}")
    module.__file__ = str(path)
    if (known := _files.get(module.__name__)) is not None and known[1] == text:
        return known
    sys.modules[module.__name__] = module  # dataclasses look their module up
    try:
        exec(compile(text, str(path), "exec"), module.__dict__)
    except BaseException:
        del sys.modules[module.__name__]
        raise
    _files[module.__name__] = (module, text)
    return module, text


def _reason(error: BaseException, place: str, name: str) -> str:
    """One sentence with the line of the user's code."""
    if isinstance(error, FileNotFoundError) and error.filename == place:
        return "there is no such file."
    if isinstance(error, ModuleNotFoundError) and error.name == place.split(".")[0]:
        return f"there is no module {error.name!r}, neither here nor installed; name a file as in my_env.py:make."
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    mine = [frame for frame in frames if "importlib" not in frame.filename]
    if isinstance(error, AttributeError) and not mine:
        return f"it has no function {name!r}."
    line = f" in line {mine[-1].lineno} of {Path(mine[-1].filename).name}" if mine else ""
    told = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}{line}{': ' + told if told else ''}."
