"""Reads what strangers made: text for terminals, names, plain files, JSON and TOML, each bounded before it is parsed.

A data set, a run directory, a recipe, a policy file: whatever did not come from this command line is read through here.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import stat
import tomllib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from epvf_data.errors import ConfigError, CorruptDatasetError, DatasetError, FileError, UnsafeDatasetError

MAX_JSON_BYTES = 16 << 20
MAX_JSON_DEPTH = 32
MAX_JSON_ITEMS = 600_000
MAX_JSON_DIGITS = 40  # of a whole number: 128 bits, as random seeds have
MAX_TOML_BYTES = 1 << 20
MAX_TOML_DOTS = 10_000  # on a line, numbers aside: the parser takes their square in time for a dotted key
WHOLE = 4096  # characters of a path or a name that is to be typed: cut, it would be another one
MAX_NAME = 256  # characters of a relative path
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", re.ASCII)
_FLOAT = re.compile(rb"(?<=[\s\[,=+-])[\d_]++\.[\d_]++(?=[\s,\]}eE#]|$)")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_POINTERS = {b"version https://git-lfs": "git lfs pull", b"/annex/objects/": "git annex get ."}  # beginning → cure
# What desktops, file servers, notebooks, editors and hubs leave in every folder. None of it is ever opened.
_LITTER = re.compile(
    r"\.DS_Store|\._.*|\.Apple(Double|DB|Desktop)|\.Spotlight-V100|\.Trash(es|-\d+)|\.fseventsd|\.TemporaryItems|Icon\r"
    r"|(eh)?thumbs\.db|desktop\.ini|\$RECYCLE\.BIN|System Volume Information|\.directory"
    r"|\.nfs[0-9a-f]+|\.fuse_hidden.*|\.smbdelete.*|\.snapshots?|\.zfs|~snapshot|lost\+found|@eaDir|#recycle|@Recycle"
    r"|\.ipynb_checkpoints|__pycache__|.+~|\.#.*|#.*#|\..*\.sw[a-p]|\.st(folder|ignore|versions)|\.dropbox.*"
    r"|\.cache|\.huggingface|\.git(attributes|ignore|keep)?|\.dvc(ignore)?",
    re.IGNORECASE | re.DOTALL,
)
UNLINKED = "copy it with `cp -RL`, or download it into a folder (a hub's `--local-dir`)"


def printable(value: object, limit: int = 80) -> str:
    """A stranger's text for a message or a terminal: one line, at most `limit` characters, control characters escaped.

    Escape sequences could repaint a terminal, and directional marks could reorder what it shows.
    """
    text = str(value)
    cut = text[:limit]
    if not cut.isprintable():
        cut = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in cut)[:limit]
    return cut if len(text) <= limit else f"{cut}…"


def shown(value: object, limit: int = 80) -> str:
    """A value as Python writes it, for a message: bounded as `printable` is, whatever the value is."""
    try:
        return printable(repr(value), limit)
    except (ValueError, RecursionError):  # a whole number of over 4,300 digits somewhere in it
        return f"a {type(value).__name__} of many digits or levels"


def picture_text(value: object, limit: int = 40) -> str:
    """A stranger's text for a picture: matplotlib draws it as it is, in any label, tick or legend.

    Its `$` would begin a formula, and legends leave out what begins with `_`.
    """
    text = printable(value, limit).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def check_relative(name: object, where: str) -> str:
    """A relative path of plain components. Raises UnsafeDatasetError for `..`, absolute paths and odd characters."""
    if not isinstance(name, str) or len(name) > MAX_NAME or not all(_is_plain(part) for part in name.split("/")):
        raise UnsafeDatasetError(f"{where} names the file '{printable(name)}'; only plain relative names are allowed.")
    return name


@lru_cache(1024)  # thousands of parts hold the same few names
def _is_plain(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def check_names(names: Iterator[str] | list[str], where: str) -> None:
    """Raises UnsafeDatasetError for odd names and for names that differ only in case."""
    seen: dict[str, str] = {}
    for name in names:
        check_relative(name, where)
        other = seen.setdefault(name.lower(), name)
        if other != name:
            raise UnsafeDatasetError(
                f"{where} holds both {other!r} and {name!r}; some file systems see one file there."
            )


def check_name(name: object, what: str) -> str:
    """A name that becomes a file's: letters, digits, `.`, `_` and `-`, the first a letter, digit or `_`, at most 128.

    `what` is what has the name, such as "a source". Raises ConfigError; `..`, absolute paths and links' names end here.
    """
    if not isinstance(name, str) or not _is_plain(name):
        raise ConfigError(
            f"{what} is called '{printable(name)}'; a name has letters, digits, '.', '_' and '-' and begins with one "
            "of the first two or '_' (at most 128 characters)."
        )
    return name


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name is some other program's, wherever it lies, and nothing of a data set's."""
    return _LITTER.fullmatch(name) is not None


def check_directory(path: Path, what: str = "data set") -> None:
    """Raises UnsafeDatasetError unless `path` is a real directory, CorruptDatasetError where there is nothing."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError as error:
        raise CorruptDatasetError(f"{path} is missing; copy the whole {what} again.") from error
    except OSError as error:
        raise DatasetError(f"{path} cannot be opened ({error.strerror}).") from error
    if not stat.S_ISDIR(mode):
        raise UnsafeDatasetError(f"{path} is a link or a special file; a {what} holds plain folders there: {UNLINKED}.")


@contextlib.contextmanager
def open_regular(path: Path, what: str = "data set") -> Iterator[int]:
    """A descriptor of a plain file, for reading. Symbolic links and special files are refused.

    Hard links are not: backups and deduplicators make them, and whoever reads one could read the file's other name.
    `what` is the word of messages for that which the file belongs to.
    """
    try:
        _check_regular(path, os.lstat(path).st_mode, what)  # first: merely opening some devices has effects
        # NOFOLLOW and NONBLOCK: what lies there may have become a link or a FIFO meanwhile.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise CorruptDatasetError(f"{path} is missing; copy the whole {what} again.") from error
    except OSError as error:
        cure = "; raise the limit with `ulimit -n`" if error.errno == errno.EMFILE else ""
        raise DatasetError(f"{path} cannot be opened ({error.strerror}){cure}.") from error
    try:
        _check_regular(path, os.fstat(descriptor).st_mode, what)
        yield descriptor
    finally:
        os.close(descriptor)


def _check_regular(path: Path, mode: int, what: str) -> None:
    if stat.S_ISLNK(mode):
        raise UnsafeDatasetError(f"{path} is a symbolic link; a {what} holds plain files only: {UNLINKED}.")
    if not stat.S_ISREG(mode):
        raise UnsafeDatasetError(f"{path} is not a plain file; a {what} holds plain files and folders only.")


def read_bytes(path: Path, what: str = "data set", limit: int = MAX_JSON_BYTES) -> bytes:
    """A small file's bytes. Raises as `open_regular` does, and UnsafeDatasetError above `limit` bytes.

    Version control's pointer in the place of a large file raises CorruptDatasetError.
    """
    with open_regular(path, what) as descriptor:
        size = os.fstat(descriptor).st_size
        if size > limit:
            raise UnsafeDatasetError(f"{path} has {size} bytes of metadata; at most {limit} are allowed.")
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(limit + 1)
    for beginning, cure in _POINTERS.items():
        if data.startswith(beginning):
            raise CorruptDatasetError(f"{path} is a pointer of git-lfs or git-annex and not the file: run `{cure}`.")
    return data


def read_named(path: str | Path, what: str, limit: int) -> bytes:
    """The bytes of a file that the user named himself, so that a link to it will do; `what` it is, for messages.

    Raises ConfigError where there is none, it is no plain file, or it has more than `limit` bytes.
    """
    where = printable(path, 300)
    try:
        if stat.S_ISREG(os.stat(path).st_mode):  # first: merely opening some devices has effects  # noqa: PTH116
            # NONBLOCK: by now it may be a FIFO, to which nobody writes.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                if stat.S_ISREG(os.fstat(descriptor).st_mode):
                    data = file.read(limit + 1)
                    if len(data) <= limit:
                        return data
                    raise ConfigError(f"the {what} {where} has more than {limit / 2**20:g} MiB; none is that large.")
    except FileNotFoundError as error:
        raise FileError(f"there is no {what} {where}.") from error
    except (OSError, ValueError) as error:  # a name may hold NUL
        raise ConfigError(f"the {what} {where} cannot be read ({printable(error)}).") from error
    raise ConfigError(f"{where} is no plain file; expected a {what}.")


def parse_json(data: bytes, where: object, infinite: bool = False) -> dict[str, Any]:
    """A JSON object of bounded size and depth, without repeated keys, of finite numbers and UTF-8 text.

    `infinite` takes Python's Infinity and NaN too, in files of other programs.
    """
    depth, items = _structure(data)
    if depth > MAX_JSON_DEPTH or items > MAX_JSON_ITEMS:
        raise UnsafeDatasetError(f"{where} nests {depth} levels with {items} items; that is no metadata of ours.")
    hooks = {"parse_constant": float if infinite else _no_constant, "parse_int": _whole, "parse_float": _finite}
    try:
        value = json.loads(data.decode(), object_pairs_hook=_no_repeats, **hooks)
        if _SURROGATE.search(data):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeError as error:
        raise CorruptDatasetError(f"{where} is not valid JSON (it holds text that is not UTF-8).") from error
    except ValueError as error:
        raise CorruptDatasetError(f"{where} is not valid JSON ({error}).") from error
    if not isinstance(value, dict):
        raise CorruptDatasetError(f"{where} is not a JSON object.")
    return value


def _structure(data: bytes) -> tuple[int, int]:
    """The depth of JSON text and its number of items, at most; in little time and memory whatever the bytes are."""
    import numpy as np  # imported late: --help and wrong usage do without

    raw = np.frombuffer(data.replace(b"\\\\", b"").replace(b'\\"', b""), np.uint8)
    inside = np.cumsum(raw == ord('"'), dtype=np.uint8) & 1  # the parity of the number of quotes so far
    bare = raw[inside == 0]
    steps = ((bare == ord("[")) | (bare == ord("{"))).astype(np.int8)
    items = int(np.count_nonzero(steps)) + int(np.count_nonzero(bare == ord(",")))
    steps -= (bare == ord("]")) | (bare == ord("}"))
    return int(np.cumsum(steps, dtype=np.int32).max(initial=0)), items


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key appears twice")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _whole(text: str) -> int:
    if len(text) > MAX_JSON_DIGITS:
        raise ValueError(f"a number has {len(text)} digits; at most {MAX_JSON_DIGITS} are allowed")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} is beyond the range of 64 bits")
    return value


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file of bounded size, depth and digits.

    Raises ConfigError with one sentence where there is none, it is no plain file, too large, or not TOML.
    """
    data = read_named(path, "configuration file", MAX_TOML_BYTES)
    return parse_toml(data, f"the configuration file {printable(path, 300)}")


def parse_toml(data: bytes, where: str) -> dict[str, Any]:
    """The tables of TOML text. Raises ConfigError for what is none, too deep or has too many digits."""
    try:
        dots = [line.count(b".") for line in _FLOAT.sub(b"", data).split(b"\n")]
        if sum(count * count for count in dots) > MAX_TOML_DOTS**2:
            raise ValueError(f"a line holds {max(dots):,} dots")
        value = tomllib.loads(data.decode())
        _check_depth(value, MAX_JSON_DEPTH)
    except (UnicodeError, ValueError, RecursionError) as error:
        reason = "it nests too deep" if isinstance(error, RecursionError) else printable(error, 200)
        raise ConfigError(f"{where} cannot be read: {reason}.") from error
    return value


def _check_depth(value: Any, left: int) -> None:
    """Raises RecursionError below `left` levels, ValueError for numbers that no setting has."""
    if left < 0:
        raise RecursionError
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            _check_depth(inner, left - 1)
    elif isinstance(value, int) and value.bit_length() > 128:
        raise ValueError("a whole number has more than 128 bits")
