"""Looks into an HDF5 file through another process. The library that parses it has crashed on crafted files before.

The other process (hdf5_child.py) has little memory and time, gets the open file instead of a path, and answers with
plain bytes; nothing that it says is believed without a check.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import signal
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

import epvf_data
from epvf_data import untrusted
from epvf_data.errors import CorruptDatasetError, DatasetError, UnsafeDatasetError
from epvf_data.exchange import hdf5_child

_SILENCE = 60.0  # seconds that the other process may keep us waiting
_SLOWEST = 20 << 20  # bytes it reads in a second of processor time, at the very least
_ERRORS = {kind.__name__: kind for kind in (DatasetError, CorruptDatasetError, UnsafeDatasetError)}


@contextlib.contextmanager
def open_hdf5(path: Path) -> Iterator[Hdf5]:
    """A checked HDF5 file for reading.

    Raises DatasetError where there is none, UnsafeDatasetError or CorruptDatasetError where it holds anything but
    plain arrays in the places of an exported data set, or where the library fails on it.
    """
    with _plain_file(path) as descriptor:
        command = [sys.executable, "-P", "-m", hdf5_child.__name__, str(descriptor)]
        command.append(str(int(_SILENCE) + os.fstat(descriptor).st_size // _SLOWEST))
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=[descriptor],
            env=_environment(),
            start_new_session=True,  # Ctrl-C is for us alone
            bufsize=0,
            pipesize=1 << 20,
        )
        with process:
            try:
                yield Hdf5(path, process, os.fstat(descriptor).st_size)
            finally:
                process.kill()


@contextlib.contextmanager
def _plain_file(path: Path) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if path.is_symlink():
            raise UnsafeDatasetError(f"{path} is a symbolic link; name the file that it points to.") from error
        raise DatasetError(f"{path} cannot be opened ({error.strerror}); expected an HDF5 file.") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise DatasetError(f"{path} is a folder or a special file; expected an HDF5 file.")
        yield descriptor
    finally:
        os.close(descriptor)


def _environment() -> dict[str, str]:
    """Ours, with this very package in reach and no way for HDF5 to load plug-ins; few threads, for they take memory."""
    package = str(Path(epvf_data.__file__).parent.parent)
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "HDF5_PLUGIN_PATH": "/nonexistent",
        "HDF5_PLUGIN_PRELOAD": "::",  # HDF5's word for: load none
        "HDF5_USE_FILE_LOCKING": "FALSE",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }


class Hdf5:
    """An open file. `shapes` maps the path of each data set to its shape."""

    def __init__(self, path: Path, process: subprocess.Popen[bytes], size: int) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.path, self._process, self._requests = path, process, process.stdin
        self._answers, self._ready = process.stdout.fileno(), select.poll()
        self._ready.register(self._answers, select.POLLIN)
        self.shapes = self._check(untrusted.parse_json(bytes(self._message(untrusted.MAX_JSON_BYTES)), path), size)

    def _check(self, found: Mapping[str, object], size: int) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        for name, shape in found.items():
            column = hdf5_child.column_of(name)
            if column is None or not isinstance(shape, list) or len(shape) != len(column.dims):
                raise CorruptDatasetError(f"{self.path}: {name} is no array of the expected rank.")
            if not all(type(count) is int and count > 0 for count in shape):
                raise CorruptDatasetError(f"{self.path}: {name} has the shape {shape}.")
            shapes[name] = tuple(shape)
            size -= math.prod(shape) * np.dtype(column.dtype).itemsize
        if size < 0:
            raise UnsafeDatasetError(f"{self.path} claims more numbers than a file of its size can hold.")
        return shapes

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """The rows from `start` to `stop` of a data set. Raises CorruptDatasetError where its bytes are damaged."""
        column = hdf5_child.column_of(name)
        assert column is not None
        shape = self.shapes[name]
        stop = shape[0] if stop is None else stop
        target = np.empty((stop - start, *shape[1:]), column.dtype)
        rest = target.reshape(-1).view(np.uint8).data
        with contextlib.suppress(BrokenPipeError):  # then the answer is missing, which tells why
            self._requests.write(json.dumps([name, start, stop]).encode() + b"\n")
        while rest:
            rest = rest[self._into(rest) :]
        if column.dtype == "bool" and target.view(np.uint8).max() > 1:
            raise CorruptDatasetError(f"{self.path}: {name} holds other values than true and false.")
        return target

    def json(self, name: str) -> bytes:
        """The bytes of a data set that holds JSON text."""
        if self.shapes[name][0] > untrusted.MAX_JSON_BYTES:
            raise UnsafeDatasetError(f"{self.path}: {name} has more than {untrusted.MAX_JSON_BYTES} bytes of metadata.")
        return self.read(name).tobytes()

    def _message(self, limit: int) -> bytearray:
        """A whole message of at most `limit` bytes."""
        message = bytearray(self._header(limit))
        self._fill(memoryview(message))
        return message

    def _into(self, target: memoryview) -> int:
        """Fills the beginning of `target` with the next message. Returns how many bytes that were."""
        size = self._header(len(target))
        self._fill(target[:size])
        return size

    def _header(self, limit: int) -> int:
        head = bytearray(5)
        self._fill(memoryview(head))
        kind, size = struct.unpack("<cI", head)
        if kind == b"e":
            raise self._reported(min(size, 4096))
        if kind != b"d" or not 0 < size <= limit:
            raise CorruptDatasetError(f"{self.path}: its reader answers nonsense; do not trust the file.")
        return size

    def _reported(self, size: int) -> DatasetError:
        data = bytearray(size)
        self._fill(memoryview(data))
        try:
            kind, text = json.loads(data)
            error = _ERRORS[kind]
        except (ValueError, KeyError, TypeError, RecursionError):
            error, text = CorruptDatasetError, "its reader answers nonsense"
        return error(f"{self.path} cannot be imported: {untrusted.printable(text, 400)}.")

    def _fill(self, target: memoryview) -> None:
        while target:
            if not self._ready.poll(_SILENCE * 1000):
                raise UnsafeDatasetError(
                    f"{self.path} keeps the HDF5 library busy for more than {_SILENCE:.0f} s; do not trust the file."
                )
            count = os.readv(self._answers, [target])
            if not count:
                raise self._ended()
            target = target[count:]

    def _ended(self) -> DatasetError:
        code = self._process.wait()
        if code in (-signal.SIGXCPU, -signal.SIGKILL):
            return UnsafeDatasetError(f"{self.path} makes the HDF5 library use up its time; do not trust the file.")
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return CorruptDatasetError(f"{self.path} makes the HDF5 library crash ({how}); do not trust the file.")
