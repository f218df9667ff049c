"""Checkpoints of orbax, as orbax itself would read them; and how large what they hold becomes, before it does."""

from __future__ import annotations

import jax.numpy as jnp
import ml_dtypes
import numcodecs
import numpy as np
import orbax.checkpoint as ocp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epvf_data import orbax_files
from epvf_data.errors import CorruptDatasetError, UnsafeDatasetError

TREE = {
    "a": {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "none": None, "empty": {}},
    "c.d": [np.array(7, np.int64), np.ones((300, 40), np.float64)],
    "e": jnp.linspace(0, 1, 5, dtype=jnp.bfloat16),
    "f": True,
    "g": 2.5,
    "h": "a word",
}
FLAT = {
    ("a", "b"): TREE["a"]["b"],
    ("c.d", "0"): TREE["c.d"][0],
    ("c.d", "1"): TREE["c.d"][1],
    ("e",): np.asarray(TREE["e"]),
    ("f",): np.array(True),
    ("g",): np.array(2.5),
}


@pytest.mark.parametrize("database", [True, False])
@pytest.mark.parametrize("version", [2, 3])
def test_all_kinds_of_checkpoints_are_read(tmp_path, database, version):
    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=database, use_zarr3=version == 3)
    with ocp.Checkpointer(handler) as checkpointer:
        checkpointer.save(tmp_path / "c", args=ocp.args.PyTreeSave(TREE))
    stored = orbax_files.describe(tmp_path / "c", 1 << 20)
    assert stored.keys() == FLAT.keys()
    arrays = dict(zip(stored, orbax_files.read(stored.values(), tmp_path / "c"), strict=True))
    for place, array in FLAT.items():
        np.testing.assert_array_equal(arrays[place], array)
        assert stored[place].shape == arrays[place].shape == array.shape
        assert stored[place].dtype == arrays[place].dtype.name
        assert stored[place].bytes == array.nbytes
    assert arrays["e",].dtype == ml_dtypes.bfloat16
    with pytest.raises(UnsafeDatasetError, match="at most 100"):
        orbax_files.describe(tmp_path / "c", 100)


@given(st.binary(max_size=3000), st.integers(1, 400), st.integers(1, 9))
def test_the_bound_on_what_zstd_unpacks_to_holds(piece, times, level):
    data = piece * times
    packed = numcodecs.Zstd(level).encode(data)
    for frames in (1, 2):
        bound = orbax_files._unpacked(packed * frames, 0, len(packed) * frames, 1 << 40)
        assert frames * len(data) <= bound <= frames * (len(data) + (128 << 10) * (len(data) // (100 << 10) + 1))
    assert orbax_files._unpacked(packed, 0, len(packed), 10) >= min(11, len(data))


@given(st.binary(max_size=200))
def test_any_bytes_have_a_bound(data):
    assert orbax_files._unpacked(data, 0, len(data), 1 << 20) >= 0
    assert orbax_files._unpacked(b"\x28\xb5\x2f\xfd" + data, 0, len(data) + 4, 1 << 20) >= 0


def test_a_missing_array_and_no_tree(tmp_path):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "c", {"a": np.ones(3), "b": np.ones(2)})
    path = tmp_path / "c" / orbax_files.TREE
    text = path.read_text()
    path.write_text(text.replace('"key": "b"', '"key": "z"'))
    with pytest.raises(CorruptDatasetError, match="z is missing"):
        orbax_files.describe(tmp_path / "c", 1 << 20)
    path.write_text(text.replace('"key": "b"', '"key": "a"'))
    with pytest.raises(CorruptDatasetError, match="one name"):
        orbax_files.describe(tmp_path / "c", 1 << 20)
