"""The one door to code that is not this package's: `module:function` or `file.py:function`, as the user names it.

Only a name that the user typed on this command line (a flag or `--set`) or passed from Python gets here. What a file or
a data set says is looked at by `check_stated` when it is read, before anything is made of it.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import sys
import traceback
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from epvf_data.config import flatten
from epvf_data.errors import ConfigError, EpvfError, FileError
from epvf_data.untrusted import printable

T = TypeVar("T")

SETTINGS = ("env", "method")  # whose values may name code, in whatever table they stand
OURS = ("playground:",)  # beginnings of names with a colon that stand for something of this package

_made: dict[tuple[str, str, Hashable], Any] = {}  # (module, function, key of what it gave) → what it gave first
_beside: set[str] = set()  # modules that code loaded here has imported from its own folder
_folder: ContextVar[Path | None] = ContextVar("folder", default=None)


def folder() -> Path:
    """Where files lie that code names: beside the code that is being loaded, else in the working directory."""
    return _folder.get() or Path.cwd()


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


def load(where: str, kind: type[T], what: str, expected: str, key: Callable[[T], Hashable]) -> T:
    """What the function gives that the user names; modules are installed ones, or else lie in the working directory.

    The code and the modules beside it are run as they are now. What it gives is the object of an earlier call where
    `key` gives the same, so that compiled functions are reused. `what` and `expected` are words for messages. Raises
    ConfigError where there is no such function, it fails, or it gives something else.
    """
    name = where.rpartition(":")[2]
    with _called(where, what) as (module, made):
        if isinstance(made, kind):
            return _made.setdefault((module, name, key(made)), made)
    raise ConfigError(f"{where} gives {type(made).__name__}; expected {expected}.")


def call(where: str, what: str, *arguments: Any) -> Any:
    """What the user's function makes of these arguments. Raises as `load` does, FileError where there is no file."""
    with _called(where, what, *arguments) as (_, made):
        return made


def check_there(where: str, what: str) -> None:
    """Raises FileError where code is named in a file that is not there; nothing is run."""
    place = where.rpartition(":")[0]
    if place.endswith(".py") and not Path(place).is_file():
        raise FileError(f"{where} gives no {what}: there is no such file.")


@contextlib.contextmanager
def _called(where: str, what: str, *arguments: Any) -> Iterator[tuple[str, Any]]:
    """The module's name, and what the function in it gives; all that goes wrong is one sentence."""
    place, _, name = where.rpartition(":")
    for module in _beside:
        sys.modules.pop(module, None)
    try:
        with _module(place) as module:
            yield module.__name__, getattr(module, name)(*arguments)
    except (Exception, SystemExit) as error:
        told = f"{where} gives no {what}: {_reason(error, place, name)}"
        missing = isinstance(error, FileNotFoundError) and error.filename == place
        raise (FileError if missing else ConfigError)(told) from error


@contextlib.contextmanager
def _module(place: str) -> Iterator[ModuleType]:
    """The module, run anew; inside the block its own folder is where it finds modules and files."""
    path = Path(place).resolve() if Path(place).suffix == ".py" else None
    home = path.parent if path else Path.cwd()
    before, added = set(sys.modules), [] if str(home) in sys.path else [str(home)]
    token, written = _folder.set(home), sys.dont_write_bytecode
    sys.path += added  # last: a file that merely lies here is nothing that the user named
    sys.dont_write_bytecode = True
    importlib.invalidate_caches()
    try:
        module = _run(path, place) if path else importlib.import_module(place)
        if path is None and module.__file__:
            own = Path(module.__file__).resolve()
            _folder.set(own.parent)
            home = own.parents[place.count(".") + (own.stem == "__init__")]
        yield module
    finally:
        sys.dont_write_bytecode = written
        for one in added:
            sys.path.remove(one)
        _folder.reset(token)
        _beside.update(name for name in set(sys.modules) - before if _lies_in(name, home))


def _run(path: Path, place: str) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError(errno.ENOENT, "no such file", place)
    module = ModuleType(str(path))
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses look their module up
    try:
        exec(compile(path.read_text("utf-8"), str(path), "exec"), module.__dict__)
    except BaseException:
        del sys.modules[module.__name__]
        raise
    return module


def _lies_in(name: str, home: Path) -> bool:
    """Whether a module is one of the user's in this folder, or part of a package there."""
    name = name.partition(".")[0]
    top = sys.modules.get(name)
    place = getattr(top, "__file__", None) or next(iter(getattr(top, "__path__", ())), None)
    if place is None or name == "epvf_data" or home.name in ("site-packages", "dist-packages"):
        return False
    own = Path(place).resolve()
    return (own.parent if own.stem == "__init__" else own).parent == home


def _reason(error: BaseException, place: str, name: str) -> str:
    """One sentence with the line of the user's code."""
    if isinstance(error, FileNotFoundError) and error.filename == place:
        return "there is no such file."
    if isinstance(error, ModuleNotFoundError) and error.name == place.split(".")[0]:
        return f"there is no module {error.name!r}, neither here nor installed; name a file as in my_code.py:make."
    frames = traceback.extract_tb(error.__traceback__)
    last = max((place for place, frame in enumerate(frames) if frame.filename == __file__), default=-1)
    mine = [frame for frame in frames[last + 1 :] if "importlib" not in frame.filename]
    if isinstance(error, AttributeError) and not mine:
        return f"it has no function {name!r}."
    line = f" in line {mine[-1].lineno} of {Path(mine[-1].filename).name}" if mine else ""
    told = " ".join(str(error).split())[:200]
    if isinstance(error, EpvfError):
        return told
    return f"{type(error).__name__}{line}{': ' + told if told else ''}."
