"""Our reader of headers finds in files of safetensors what safetensors finds, and refuses what does not fit."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from epvf_data.errors import ConfigError, EpvfError
from epvf_data.policies import header

KINDS = ["<f2", "<f4", "<f8", "<i8", "<i4", "<i2", "|i1", "|u1", "<u2", "<u4", "<u8", "|b1", "<c8"]
TENSORS = st.dictionaries(
    st.text('aZ0./_ "\\\nθ', max_size=20),
    st.tuples(st.sampled_from(KINDS), st.lists(st.integers(0, 4), max_size=4)),
    max_size=6,
)


@given(
    TENSORS, st.dictionaries(st.text("ab", max_size=9), st.text('{"\\θ', max_size=9), max_size=3), st.integers(0, 99)
)
def test_tensors_are_those_that_safetensors_finds(tensors, notes, seed):
    draw = np.random.default_rng(seed)
    arrays = {name: draw.integers(0, 2, shape).astype(kind) for name, (kind, shape) in tensors.items()}
    data = save(arrays, notes or None)
    head = header.parse(data, "a")
    assert dict(head.notes) == notes
    assert set(head.tensors) == set(arrays)
    for name, array in load(data).items():
        entry = head.tensors[name]
        assert entry.shape == array.shape
        if entry.kind in header.NUMBERS:
            np.testing.assert_array_equal(entry.read(memoryview(data)[head.size :]), array)


def test_brain_floats_are_the_upper_half():
    upper = (np.array([1.5, -2.0], np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes()
    text = json.dumps({"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    data = struct.pack("<Q", len(text)) + text + upper
    head = header.parse(data, "a")
    np.testing.assert_array_equal(head.tensors["a"].read(memoryview(data)[head.size :]), [1.5, -2.0])


GOOD = save({"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(2, np.float16)}, {"spec": "x"})


@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_changed_bytes_give_our_errors_only(edits):
    data = bytearray(GOOD)
    for place, value in edits:
        data[place] = value
    try:
        head = header.parse(bytes(data), "a")
        for entry in head.tensors.values():
            if entry.kind in header.NUMBERS:
                entry.read(memoryview(data)[head.size :])
    except EpvfError:
        pass


@pytest.mark.parametrize("cut", range(0, len(GOOD), 7))
def test_a_file_that_is_cut_is_refused(cut):
    with pytest.raises(ConfigError):
        header.parse(GOOD[:cut], "a")
    with pytest.raises(ConfigError):
        header.parse(GOOD + bytes(cut + 1), "a")
