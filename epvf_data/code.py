"""The one door to code that is not this package's: `module:function` or `file.py:function`, as the user names it.

Only a name that the user typed on this command line (a flag or `--set`) or passed from Python gets here. What a file or
a data set says is looked at by `check_stated` when it is read, before anything is made of it.
"""

from __future__ import annotations

import errno
import importlib
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from epvf_data.config import flatten
from epvf_data.errors import ConfigError
from epvf_data.untrusted import printable

T = TypeVar("T")

SETTINGS = ("env",)  # whose values may name code, in whatever table they stand
OURS = ("playground:",)  # beginnings of names with a colon that stand for something of this package

_files: dict[str, tuple[ModuleType, str]] = {}  # path → module and text
_made: dict[tuple[str, str, str], Any] = {}  # (module, its text, function) → what it gave


def names_code(value: object) -> bool:
    """Whether a setting's value would run code that is not this package's."""
    return isinstance(value, str) and ":" in value and not value.startswith(OURS)


def untyped(stated: Mapping[str, Any], typed: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a file or a data set that the user has not stated again, with dotted names."""
    again = flatten(typed)
    return {name: value for name, value in flatten(stated).items() if name not in again}


def check_stated(stated: Mapping[str, Any], typed: Mapping[str, Any], where: str) -> None:
    """Raises ConfigError where a file or a data set names code that the user does not name himself."""
    for name, value in untyped(stated, typed).items():
        setting = name.rpartition(".")[2]
        if setting in SETTINGS and names_code(value):
            raise ConfigError(
                f"{where} names the code {printable(repr(value))} as its {setting}, and no file's word runs code; "
                f"name it yourself with --{setting}."
            )


def load(where: str, kind: type[T], what: str, expected: str) -> T:
    """What the function gives that the user names; modules are installed ones, or else lie in the working directory.

    The same unchanged code gives the same object again, so that compiled functions are reused. `what` and `expected`
    are words for messages. Raises ConfigError where there is no such function, it fails, or it gives something else.
    """
    place, _, name = where.rpartition(":")
    try:
        module, version = _module(place)
        made = _made.get((module.__name__, version, name)) or getattr(module, name)()
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{where} gives no {what}: {_reason(error, place, name)}") from error
    if not isinstance(made, kind):
        raise ConfigError(f"{where} gives {type(made).__name__}; expected {expected}.")
    return _made.setdefault((module.__name__, version, name), made)


def _module(place: str) -> tuple[ModuleType, str]:
    """The module, and what changes when it does."""
    path = Path(place)
    if path.suffix != ".py":
        here = str(Path.cwd())
        added = [] if here in sys.path else [here]
        sys.path += added  # last: a file that merely lies here is nothing that the user named
        try:
            return importlib.import_module(place), ""
        finally:
            for folder in added:
                sys.path.remove(folder)
    if not path.is_file():
        raise FileNotFoundError(errno.ENOENT, "no such file", place)
    text = path.read_text("utf-8")
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
        return f"there is no module {error.name!r}, neither here nor installed; name a file as in my_code.py:make."
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    mine = [frame for frame in frames if "importlib" not in frame.filename]
    if isinstance(error, AttributeError) and not mine:
        return f"it has no function {name!r}."
    line = f" in line {mine[-1].lineno} of {Path(mine[-1].filename).name}" if mine else ""
    told = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}{line}{': ' + told if told else ''}."
