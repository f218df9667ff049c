"""The header of a safetensors file, read strictly: which tensors lie where, and the words beside them.

Layout: eight bytes with the length of a JSON text, the text, the numbers. See https://huggingface.co/docs/safetensors.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Num

from epvf_data.errors import ConfigError, DatasetError
from epvf_data.untrusted import parse_json, printable, shown

MAX_BYTES = 256 << 20  # of a file
MAX_HEADER = 8 << 20  # bytes of the JSON text: a normaliser has two numbers for each observation
MAX_TENSORS = 10_000
MAX_NAME = 256  # characters of a tensor's name
MAX_DIMENSIONS = 8
MAX_NUMBERS = 1 << 40  # of an empty tensor, were its dimensions of 0 not there
FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2}
WIDTHS |= {"I8": 1, "U8": 1, "BOOL": 1, "C64": 8}
NUMBERS = (*FLOATS, "BF16")  # that a policy may be written in
_OTHERS = {"I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1"}
_OTHERS |= {"BOOL": "?", "C64": "<c8"}


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies: its kind, its shape, and its first byte behind the header."""

    kind: str
    shape: tuple[int, ...]
    begin: int

    def read(self, numbers: memoryview) -> Num[np.ndarray, "..."]:
        """The tensor; `numbers` are the bytes behind the header."""
        raw = numbers[self.begin :]
        count = math.prod(self.shape)
        if self.kind == "BF16":  # the upper half of a float32
            halves = np.frombuffer(raw, "<u2", count).astype("<u4") << 16
            return halves.view("<f4").reshape(self.shape)
        return np.frombuffer(raw, (FLOATS | _OTHERS)[self.kind], count).reshape(self.shape)


@dataclass(frozen=True)
class Header:
    """What a file says of itself."""

    notes: Mapping[str, str]
    tensors: Mapping[str, Entry]
    size: int  # bytes before the numbers


def parse(data: bytes | memoryview, where: object) -> Header:
    """The header of a whole file in memory.

    Raises ConfigError, in one sentence, for anything but tensors of known kinds that fill the file without a gap.
    """
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(MAX_HEADER, len(data) - 8):
        raise ConfigError(
            f"{where} is not a policy file of safetensors: its header would have {length:,} bytes; "
            f"expected at most {MAX_HEADER:,}, and no more than there are."
        )
    try:
        value = parse_json(bytes(data[8 : 8 + length]), "its header")
    except DatasetError as error:
        raise ConfigError(f"{where} is not a policy file of safetensors: {error}") from error
    notes = value.pop("__metadata__", None) or {}
    if not isinstance(notes, dict) or not all(isinstance(note, str) for note in notes.values()):
        raise ConfigError(f"the notes in the header of {where} are {shown(notes)}; expected text by names.")
    if len(value) > MAX_TENSORS:
        raise ConfigError(f"{where} has {len(value):,} tensors; expected at most {MAX_TENSORS:,}.")
    spans = [_entry(name, entry, where) for name, entry in value.items()]
    end = 0
    for entry, begin, stop in sorted(spans, key=lambda span: (span[1], span[2])):
        if begin != end or stop - begin != WIDTHS[entry.kind] * math.prod(entry.shape):
            raise ConfigError(f"the tensors in {where} overlap, or do not fill it; save the policy again.")
        end = stop
    if 8 + length + end != len(data):
        raise ConfigError(f"{where} has {len(data):,} bytes, its header tells of {8 + length + end:,}; copy it again.")
    return Header(notes, {name: span[0] for name, span in zip(value, spans, strict=True)}, 8 + length)


def _entry(name: str, entry: Any, where: object) -> tuple[Entry, int, int]:
    """A tensor and the offsets of its first byte and of the one behind its last."""
    if len(name) > MAX_NAME or not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ConfigError(f"the tensor {printable(name)} in {where} is {shown(entry)}; expected kind, shape and place.")
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if kind not in tuple(WIDTHS):
        raise ConfigError(f"the tensor {printable(name)} in {where} is of the kind {shown(kind)}; expected F32.")
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or not all(type(one) is int and 0 <= one <= sys.maxsize for one in numbers):
            raise ConfigError(f"the tensor {printable(name)} in {where} has the place {shown(numbers)}.")
    if len(offsets) != 2 or len(shape) > MAX_DIMENSIONS or math.prod(max(one, 1) for one in shape) > MAX_NUMBERS:
        raise ConfigError(f"the tensor {printable(name)} in {where} has the shape {shown(shape)} at {shown(offsets)}.")
    return Entry(kind, tuple(shape), offsets[0]), *offsets
