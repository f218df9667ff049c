import json
import subprocess
import sys

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from epvf_data.errors import ArchitectureMismatchError, ConfigError, StorageError
from epvf_data.policies import mlp
from epvf_data.policies.files import load_policy, save_policy
from epvf_data.policies.spec import PolicySpec

SPEC = PolicySpec(4, 1, (3,))
FLAT = np.asarray(mlp.init(jax.random.key(0), SPEC))


def test_a_saved_policy_comes_back(tmp_path):
    save_policy(tmp_path / "a" / "policy.safetensors", SPEC, FLAT, env="cartpole")
    spec, flat = load_policy(tmp_path / "a" / "policy.safetensors")
    assert spec == SPEC
    np.testing.assert_array_equal(flat, FLAT)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["policy.safetensors"]


def test_what_is_no_policy_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(ConfigError, match="there is no policy file"):
        load_policy(tmp_path / "missing.safetensors")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ConfigError, match="not a policy file"):
        load_policy(tmp_path / "text")
    save_file({"w": FLAT}, tmp_path / "bare")
    with pytest.raises(ConfigError, match="no `spec`"):
        load_policy(tmp_path / "bare")
    save_file({"w": FLAT}, tmp_path / "other", metadata={"spec": SPEC.to_json()})
    with pytest.raises(ArchitectureMismatchError, match="do not have the shapes"):
        load_policy(tmp_path / "other")
    save_policy(tmp_path / "nan", SPEC, np.where(np.arange(FLAT.size) == 3, np.nan, FLAT))
    with pytest.raises(ConfigError, match="1 parameters that are not finite"):
        load_policy(tmp_path / "nan")
    with pytest.raises(ArchitectureMismatchError, match="needs"):
        save_policy(tmp_path / "short", SPEC, FLAT[:-1])


def test_a_folder_that_refuses_writes_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="writing .*policy.safetensors failed"):
        save_policy(tmp_path / "file" / "policy.safetensors", SPEC, FLAT)


ALONE = """
import json, sys
sys.modules.update(jax=None, ml_dtypes=None)  # an import of these fails
from epvf_data.errors import EpvfError
from epvf_data.policies.files import load_policy
for path in sys.argv[1:]:
    try:
        print(json.dumps(load_policy(path)[1].tolist()))
    except EpvfError as error:
        print(json.dumps(str(error)))
"""


def test_numbers_of_every_kind_without_jax(tmp_path):
    """A tool may have converted a policy; what float32 can hold is read, and the rest is named."""
    kinds = {"F64": np.float64, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "I32": np.int32, "C64": np.complex64}
    names = {kind: str(tmp_path / kind) for kind in (*kinds, "F8_E4M3", "big")}
    tensors = {name: FLAT[slot.offset :][: slot.size].reshape(slot.shape) for name, slot in SPEC.tensors.items()}
    for kind, dtype in kinds.items():
        numbers = b"".join(tensor.astype(dtype).tobytes() for tensor in tensors.values())
        write(tmp_path / kind, kind, tensors, numbers)
    write(tmp_path / "F8_E4M3", "F8_E4M3", tensors, bytes(FLAT.size))
    save_policy(names["big"], SPEC, FLAT.astype(">f8"))
    command = [sys.executable, "-c", ALONE, *names.values()]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    found = {kind: json.loads(line) for kind, line in zip(names, lines, strict=True)}
    assert found["F64"] == found["big"] == FLAT.tolist()
    for kind in ("F16", "BF16"):
        assert found[kind] == FLAT.astype(kinds[kind]).astype(np.float32).tolist()
    for kind in ("I32", "C64", "F8_E4M3"):
        assert kind in found[kind]
        assert "F32" in found[kind]
    with pytest.raises(ConfigError, match="complex parameters"):
        save_policy(tmp_path / "complex", SPEC, FLAT.astype(np.complex64))


def write(path, kind, tensors, numbers):
    """A policy file with its numbers as another kind."""
    head, at, width = {"__metadata__": {"spec": SPEC.to_json()}}, 0, len(numbers) // FLAT.size
    for name, tensor in tensors.items():
        head[name] = {"dtype": kind, "shape": tensor.shape, "data_offsets": [at, at + width * tensor.size]}
        at += width * tensor.size
    text = json.dumps(head).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + numbers)
