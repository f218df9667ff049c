"""Our reader of MessagePack finds in flax's files what flax finds."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from flax.serialization import msgpack_restore, msgpack_serialize
from hypothesis import given
from hypothesis import strategies as st

from epvf_data.errors import UnsafeDatasetError
from epvf_data.importing import limits, msgpack_file

KINDS = ["float16", "float32", "float64", ml_dtypes.bfloat16, "int32", "uint8", "bool"]


@st.composite
def arrays(draw):
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
    values = np.random.default_rng(draw(st.integers(0, 99))).normal(0, 9, shape)
    return values.astype(draw(st.sampled_from(KINDS)))


LEAVES = st.one_of(
    arrays(),
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text("aθ/", max_size=300),
    st.binary(max_size=300) | st.complex_numbers(allow_nan=False) | st.floats(width=32).map(np.float32),
)
TREES = st.dictionaries(
    st.text("aθ/", max_size=40),
    st.recursive(
        LEAVES,
        lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text("ab", max_size=40), inner, max_size=20),
        max_leaves=30,
    ),
    max_size=20,
)


@given(TREES)
def test_arrays_are_those_that_flax_finds(tree):
    packed = msgpack_serialize(tree)
    expected = limits.flatten(msgpack_restore(packed), "a")
    found = msgpack_file.read(packed, "a")
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_long_lists_and_tables():
    tree = {"a": {str(n): np.float32(n) for n in range(300)}, "b": [np.ones(1, np.float32)] * 40_000}
    with pytest.raises(UnsafeDatasetError, match="holds over 200,000 values"):
        msgpack_file.read(msgpack_serialize(tree), "a")
    tree["b"] = tree["b"][:300]
    found = msgpack_file.read(msgpack_serialize(tree), "a")
    assert len(found) == 600
    assert found["a/7"] == 7
