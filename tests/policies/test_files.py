import jax
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
