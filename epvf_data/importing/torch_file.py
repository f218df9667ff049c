"""Tensors from a file of `torch.save`, without PyTorch and without unpickling.

Such a file is a Zip archive: `NAME/data.pkl` says how the tensors lie in the raw bytes `NAME/data/0`, `NAME/data/1`, …
The pickle is read as a list of instructions by an interpreter that knows dictionaries, lists, numbers, text and two
names: whatever else a pickle could call is refused, and nothing that it names is ever imported or called.
Layout: https://docs.pytorch.org/docs/stable/notes/serialization.html
"""

from __future__ import annotations

import io
import pickletools
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from epvf_data.errors import ConfigError, UnsafeDatasetError
from epvf_data.importing.limits import MAX_BYTES, MAX_TENSORS, MAX_TEXT, RATIO, SMALL, Tensors, flatten, is_weight
from epvf_data.untrusted import printable

_FLOATS = {"DoubleStorage": "f8", "FloatStorage": "f4", "HalfStorage": "f2", "BFloat16Storage": "u2"}
_WHOLE = {"LongStorage": "i8", "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1"}
_WHOLE["BoolStorage"] = "?"
_KINDS = _FLOATS | _WHOLE
_VALUES = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE")
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()
_STEPS = 100 * MAX_TENSORS  # instructions of a pickle; each makes one value at most


class Archive:
    """The members of a Zip archive in memory, each under a limit: `limit` bytes, or a few times the archive's own."""

    def __init__(self, data: bytes, where: str, limit: int = MAX_BYTES):
        self.where, self.limit = where, min(limit, RATIO * len(data) + SMALL)
        if data.count(b"PK\x01\x02") > MAX_TENSORS:  # each entry of the directory begins so
            raise UnsafeDatasetError(f"{where} is an archive of more than {MAX_TENSORS:,} files; no policy is.")
        try:
            self.zip = zipfile.ZipFile(io.BytesIO(data))
        except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError) as error:
            raise ConfigError(
                f"{where} is a damaged Zip archive ({printable(error)}); save the policy again."
            ) from error
        self.names = frozenset(self.zip.namelist())

    def member(self, name: str, limit: int = MAX_BYTES) -> bytes:
        """One member's bytes. Raises ConfigError where it is missing or damaged, UnsafeDatasetError above `limit`."""
        limit = min(limit, self.limit)
        try:
            if self.zip.getinfo(name).compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise KeyError(name)  # other methods ask for memory as they like
            with self.zip.open(name) as file:
                data = file.read(limit + 1)
        except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, OSError, EOFError, RuntimeError) as error:
            raise ConfigError(f"{self.where} lacks {printable(name)}, or it is damaged; save it again.") from error
        if len(data) > limit:
            raise UnsafeDatasetError(
                f"{self.where} unpacks to more than {limit >> 20} MiB, or than its size allows; no policy does."
            )
        return data


@dataclass(frozen=True)
class _Name:
    """Something that the pickle names; it stays a name."""

    text: str


@dataclass(frozen=True)
class _Storage:
    kind: str
    key: str


@dataclass(frozen=True)
class _Tensor:
    """How one tensor lies in a storage: counted in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        numbers = (self.offset, *self.shape, *self.strides)
        if len(self.shape) != len(self.strides) or len(self.shape) > 8:
            raise ValueError("a tensor has as many strides as dimensions")
        if not all(type(number) is int and 0 <= number < 2**40 for number in numbers):
            raise ValueError("a tensor's sizes are whole numbers")


def read(data: bytes, where: str, limit: int = MAX_BYTES) -> Tensors:
    """The parameters in a `torch.save` archive, by name; their numbers take at most `limit` bytes.

    Raises UnsafeDatasetError for a pickle that would call something, ConfigError for other files.
    """
    archive = Archive(data, where, limit)
    roots = [name.removesuffix("data.pkl") for name in archive.names if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise ConfigError(f"{where} is a Zip archive, but not of torch.save or stable-baselines3.")
    if any(name.startswith(f"{roots[0]}code/") for name in archive.names):
        raise UnsafeDatasetError(
            f"{where} is a TorchScript program, which is code; save the tensors: torch.save(model.state_dict(), …)."
        )
    try:
        tree = _interpret(archive.member(f"{roots[0]}data.pkl", MAX_TEXT), where)
        return flatten(tree, where, _Storages(archive, roots[0]).array)
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError) as error:
        raise ConfigError(f"{where} is damaged: its tensors cannot be put together ({printable(error)}).") from error


def _interpret(pickle: bytes, where: str) -> Any:
    """What the pickle describes, tensors as `_Tensor`."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    argument: Any
    for step, (code, argument, _) in enumerate(pickletools.genops(pickle)):
        name = code.name
        if step >= _STEPS:
            raise UnsafeDatasetError(f"{where} takes over {_STEPS:,} instructions to be put together; no policy does.")
        if name == "STOP":
            return stack.pop()
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "TUPLE":
            stack.append(tuple(_since_mark(stack)))
        elif name in _TUPLES:
            stack.append(tuple(_last(stack, _TUPLES[name])))
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in ("APPEND", "APPENDS"):
            items = _since_mark(stack) if name == "APPENDS" else _last(stack, 1)
            _of(list, stack[-1]).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = _since_mark(stack) if name == "SETITEMS" else _last(stack, 2)
            keys = [key if type(key) is int else _of(str, key) for key in items[::2]]
            _of(dict, stack[-1]).update(zip(keys, items[1::2], strict=True))
        elif name == "GLOBAL":
            stack.append(_Name(argument.replace(" ", ".")))
        elif name == "BINPERSID":
            stack.append(_storage(stack.pop()))
        elif name == "REDUCE":
            function, arguments = _last(stack, 2)
            stack.append(_made(_of(_Name, function).text, arguments, where))
        elif name == "BUILD":  # an OrderedDict's versions of its modules
            _of(dict, stack[-2])
            stack.pop()
        elif name != "PROTO":
            raise UnsafeDatasetError(_refusal(where, f"the instruction {name}"))
    raise ValueError("the pickle has no end")


def _made(name: str, arguments: Any, where: str) -> Any:
    """What a call in the pickle stands for: a dictionary or a tensor. Everything else is refused."""
    if name == "collections.OrderedDict" and arguments == ():
        return {}
    if name == "torch._utils._rebuild_tensor_v2":
        storage, offset, shape, strides, *_ = arguments
        return _Tensor(_of(_Storage, storage), offset, _of(tuple, shape), _of(tuple, strides))
    if name == "torch._utils._rebuild_parameter":
        return _of(_Tensor, arguments[0])
    raise UnsafeDatasetError(_refusal(where, printable(name)))


def _refusal(where: str, what: str) -> str:
    return (
        f"{where} holds more than tensors: its pickle would run {what}, and nothing of it was run; "
        "save the tensors alone: torch.save(model.state_dict(), …)."
    )


def _storage(identity: Any) -> _Storage:
    tag, kind, key, *_ = _of(tuple, identity)
    if tag != "storage" or not isinstance(key, str) or not key.isdecimal():
        raise ValueError("a storage has a kind and a number")
    return _Storage(_of(_Name, kind).text.removeprefix("torch."), key)


def _of(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise ValueError(f"got a {type(value).__name__} where a {kind.__name__} belongs")
    return value


def _since_mark(stack: list[Any]) -> list[Any]:
    items: list[Any] = []
    while (item := stack.pop()) is not _MARK:
        items.append(item)
    return items[::-1]


def _last(stack: list[Any], count: int) -> list[Any]:
    items = stack[-count:]
    if len(items) < count or any(item is _MARK for item in items):
        raise ValueError("the pickle takes more than it gave")
    del stack[-count:]
    return items


class _Storages:
    """The raw bytes of an archive's tensors."""

    def __init__(self, archive: Archive, root: str):
        self.archive, self.root, self.left, self.total = archive, root, archive.limit, 0
        self.known: dict[_Storage, np.ndarray] = {}
        order = archive.member(f"{root}byteorder", 16) if f"{root}byteorder" in archive.names else b"little"
        self.order = ">" if order == b"big" else "<"

    def array(self, name: str, leaf: Any) -> np.ndarray | None:
        """The tensor's numbers; None of whole numbers that are counters."""
        if not isinstance(leaf, _Tensor) or (leaf.storage.kind in _WHOLE and not is_weight(name)):
            return None
        size = int(np.prod(leaf.shape, dtype=object)) if leaf.shape else 1
        self.total += size
        if 4 * self.total > self.archive.limit:
            raise UnsafeDatasetError(
                f"{self.archive.where} holds over {self.archive.limit >> 20} MiB of numbers; no file of its size does."
            )
        numbers = self._numbers(leaf.storage)
        last = leaf.offset + sum((many - 1) * step for many, step in zip(leaf.shape, leaf.strides, strict=True))
        if size and last >= numbers.size:
            raise ValueError("a tensor reaches beyond its bytes")
        steps = [step * numbers.itemsize for step in leaf.strides]
        start = numbers[leaf.offset if size else 0 :]
        array = np.lib.stride_tricks.as_strided(start, leaf.shape, steps, writeable=False).copy()
        if leaf.storage.kind == "BFloat16Storage":  # the upper half of a float32
            return (array.astype(np.uint32) << 16).view(np.float32)
        return array

    def _numbers(self, storage: _Storage) -> np.ndarray:
        if storage not in self.known:
            if storage.kind not in _KINDS:
                raise ConfigError(
                    f"{self.archive.where} holds numbers of the kind {printable(storage.kind)}; expected float32."
                )
            data = self.archive.member(f"{self.root}data/{storage.key}", self.left)
            self.left -= len(data)
            self.known[storage] = np.frombuffer(data, self.order + _KINDS[storage.kind])
        return self.known[storage]
