"""The one door to code that is not this package's: `module:function` or `file.py:function`, as the user names it.

Only a name that the user typed on this command line (a flag or `--set`) or passed from Python gets here. What a file or
a data set says is looked at by `check_stated` when it is read, before anything is made of it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib
import sys
import traceback
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

from epvf_data.config import Part, flatten
from epvf_data.errors import ConfigError, EpvfError, FileError
from epvf_data.outputs import write_bytes
from epvf_data.untrusted import printable

T = TypeVar("T")

# Settings whose values may name code, in whatever table they stand, and the flag that names it instead.
SETTINGS = {
    "env": "--env",
    "method": "--method",
    "critic": "--critic",
    "critic.name": "--set critic.name",
    "law": "--set {}",
    "bases": "--base",
    "policy.architecture": "--policy",
}
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
        setting = next((one for one in SETTINGS if f".{name}".endswith(f".{one}")), None)
        named = [one for one in (value if isinstance(value, list) else [value]) if names_code(one)]
        if setting is not None and named:
            raise ConfigError(
                f"{where} names the code {printable(repr(named[0]))} as its {setting}, and no file's word runs code; "
                f"name it yourself with {SETTINGS[setting].format(printable(name))}."
            )


class Origin(NamedTuple):
    """The file that a part of the user's own comes from, as it was when it was loaded."""

    path: str
    sha256: str
    text: bytes

    def record(self) -> dict[str, str]:
        """What is kept of it beside a copy."""
        return {"path": self.path, "sha256": self.sha256}


def find(where: str, what: str) -> tuple[Any, Origin | None]:
    """The very thing that the user names, and its file. Raises as `load` does, FileError where there is no file."""
    with _found(where, what) as (module, thing):
        if not module.__file__:
            return thing, None
        text = Path(module.__file__).read_bytes()
        name = str(Path(module.__file__).resolve()).encode(errors="backslashreplace").decode()
        return thing, Origin(name, hashlib.sha256(text).hexdigest(), text)


@dataclass(frozen=True)
class Function(Part):
    """A function of the user's in place of a name: a perturbation law, a source of policies, a metric."""

    call: Callable[..., Any]
    name: str
    origin: Origin | None = None  # None where it was passed from Python

    @classmethod
    def of(cls, given: str | Function | Callable[..., Any]) -> Function:
        """The function that `FILE.py:FUNCTION` names, which runs that file, or one that was passed from Python.

        Raises ConfigError for what is no function, FileError where there is no such file.
        """
        if isinstance(given, Function):
            return given
        found, origin = find(given, "function") if isinstance(given, str) else (given, None)
        name = given if isinstance(given, str) else name_of(given)
        if not callable(found):
            raise ConfigError(f"{name} is {type(found).__name__}; expected a function.")
        return cls(found, name, origin)


def name_of(part: Any) -> str:
    """What a function that was passed from Python is called where others are named: `module:function`."""
    return f"{getattr(part, '__module__', '')}:{getattr(part, '__qualname__', type(part).__name__)}"


def title(name: str) -> str:
    """A short name for folders, columns and lineage: the function's, or its file's where it is called `make`."""
    place, colon, function = name.rpartition(":")
    function = function.rpartition(".")[2]
    file = Path(place.removesuffix(".py")).name.rpartition(".")[2]
    return file if colon and function == "make" else function


def load(where: str, kind: type[T], what: str, expected: str, key: Callable[[T], Hashable]) -> T:
    """What the function gives that the user names; modules are installed ones, or else lie in the working directory.

    The code and the modules beside it are run as they are now. What it gives is the object of an earlier call where
    `key` gives the same, so that compiled functions are reused. `what` and `expected` are words for messages. Raises
    ConfigError where there is no such function, it fails, or it gives something else.
    """
    with _found(where, what) as (module, function):
        made = function()
        if isinstance(made, kind):
            return _made.setdefault((module.__name__, where.rpartition(":")[2], key(made)), made)
    raise ConfigError(f"{where} gives {type(made).__name__}; expected {expected}.")


def call(where: str, what: str, *arguments: Any) -> Any:
    """What the user's function makes of these arguments. Raises as `load` does, FileError where there is no file."""
    with _found(where, what) as (_, function):
        return function(*arguments)


def write_template(path: Path, package: str, force: bool, words: Mapping[str, str] | None = None) -> None:
    """Writes the template of a part, which lies in that package of ours, to the user's new file; words are replaced.

    Raises ConfigError for a file that Python could not load, DatasetError where something is there already.
    """
    if path.suffix != ".py":
        raise ConfigError(f"the new file would be {path}; expected a name that ends in .py.")
    if not path.stem.isidentifier():
        raise ConfigError(
            f"{printable(repr(path.stem))} cannot be the name of a Python file; take letters, digits and '_'."
        )
    text = resources.files(package).joinpath("template.py").read_text("utf-8")
    for word, other in (words or {}).items():
        text = text.replace(word, other)
    write_bytes(path, text.encode(), force)


@contextlib.contextmanager
def blamed(where: str, what: str) -> Iterator[None]:
    """Where a function of the user's is called: all that goes wrong inside is a ConfigError that names its line."""
    try:
        yield
    except (Exception, SystemExit) as error:
        place, _, name = where.rpartition(":")
        raise ConfigError(f"{where} gives no {what}: {_reason(error, place, name)}") from error


def check_there(where: str, what: str) -> None:
    """Raises FileError where code is named in a file that is not there; nothing is run."""
    place = where.rpartition(":")[0]
    if place.endswith(".py") and not Path(place).is_file():
        raise FileError(f"{where} gives no {what}: there is no such file.")


@contextlib.contextmanager
def _found(where: str, what: str) -> Iterator[tuple[ModuleType, Any]]:
    """The module, and what the user names in it; all that goes wrong inside the block is one sentence."""
    place, _, name = where.rpartition(":")
    for module in _beside:
        sys.modules.pop(module, None)
    try:
        with _module(place) as module:
            yield module, getattr(module, name)
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
    own = [frame for frame in mine if Path(frame.filename) == Path(place).resolve()]  # not a library that it calls
    at = (own or mine or [None])[-1]
    line = f" in line {at.lineno} of {Path(at.filename).name}" if at else ""
    told = " ".join(str(error).split())[:200].rstrip(".")
    if isinstance(error, EpvfError):
        return f"{told}."
    return f"{type(error).__name__}{line}{': ' + told if told else ''}."
