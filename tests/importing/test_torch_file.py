"""Files of PyTorch are read without PyTorch, and nothing in them, or in any file, is run."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from flax.serialization import msgpack_serialize
from hypothesis import given, settings
from hypothesis import strategies as st
from importing import forge_torch as forge
from safetensors.numpy import save

from epvf_data.errors import ConfigError, EpvfError, UnsafeDatasetError
from epvf_data.importing import files, orbax, torch_file
from epvf_data.importing.run import import_policy

TANH = {"activation": "relu", "output": "tanh"}


def sequential(made):
    """A state dict of nn.Sequential(Linear, ReLU, Linear, …)."""
    names = [f"{2 * layer}." for layer in range(len(made.kernels))]
    return made.named(*names, kernel="weight", turned=True)


@settings(max_examples=20)
@given(sizes=st.lists(st.integers(1, 9), min_size=2, max_size=5), bias=st.booleans(), seed=st.integers(0, 2**31))
def test_a_state_dict(tmp_path_factory, net, acts, sizes, bias, seed):
    folder, made = tmp_path_factory.mktemp("torch"), net(sizes, seed, bias)
    (folder / "a.pth").write_bytes(forge.state_dict(sequential(made)))
    report = import_policy(folder / "a.pth", folder / "p", settings=TANH)
    assert (report.sizes, report.format) == (tuple(sizes), "torch")
    np.testing.assert_allclose(acts(folder / "p", made.states), made.act("relu", "tanh"), atol=1e-5)


def test_views_halves_and_counters():
    array = np.arange(12, dtype=np.float32)
    items = {
        "view": forge.tensor("0", "FloatStorage", 12, 1, (3, 2), (1, 4)),
        "half": forge.tensor("1", "HalfStorage", 2, 0, (2,), (1,)),
        "brain": forge.tensor("2", "BFloat16Storage", 2, 0, (2,), (1,)),
        "count": forge.tensor("3", "LongStorage", 1, 0, (), ()),
    }
    halves = np.array([1.5, -2], np.float16)
    upper = (np.array([1.5, -2], np.float32).view(np.uint32) >> 16).astype(np.uint16)
    storages = {"0": array.tobytes(), "1": halves.tobytes(), "2": upper.tobytes(), "3": b"\x01" + bytes(7)}
    found = torch_file.read(forge.archive(forge.dictionary(items), storages), "a")
    np.testing.assert_array_equal(found.pop("view"), np.lib.stride_tricks.as_strided(array[1:], (3, 2), (4, 16)))
    np.testing.assert_array_equal(found.pop("half"), halves)
    np.testing.assert_array_equal(found.pop("brain"), np.array([1.5, -2], np.float32))
    assert not found


class Trace:
    """Its pickle makes a folder when it is loaded."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", ["pickle", "torch", "sb3"])
def test_a_pickle_with_code_in_it_leaves_no_trace(tmp_path, protocol, kind):
    trace = tmp_path / "trace"
    code = pickle.dumps({"0.weight": Trace(trace)}, protocol)
    if kind != "pickle":
        code = forge.archive(code)
    if kind == "sb3":
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as out:
            out.writestr("data", "{}")
            out.writestr("policy.pth", code)
        code = file.getvalue()
    (tmp_path / "a").write_bytes(code)
    with pytest.raises((UnsafeDatasetError, ConfigError)) as caught:
        import_policy(tmp_path / "a", tmp_path / "p", settings=TANH)
    if protocol >= 2:
        expected = "is a pickle, which may run code" if kind == "pickle" else "holds more than tensors"
        assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Trace(trace)))  # it would have
    assert trace.exists()


def test_braxs_pickles_and_old_pytorch_are_told_the_cure(tmp_path):
    (tmp_path / "a").write_bytes(pickle.dumps(({"mean": np.ones(3)}, {"params": {}})))
    with pytest.raises(UnsafeDatasetError, match="in brax: ppo.checkpoint.save"):
        import_policy(tmp_path / "a", tmp_path / "p")
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
    (tmp_path / "a").write_bytes(magic + pickle.dumps(1001, 2))
    with pytest.raises(UnsafeDatasetError, match="PyTorch before 1.6"):
        import_policy(tmp_path / "a", tmp_path / "p")


def nest(depth):
    """Dictionaries that each hold the one before twice, which is 2 ** depth leaves in few bytes."""
    body = b"\x80\x02}q\x00" + b"".join(
        b"}(" + forge.text("a") + b"h" + bytes([i]) + forge.text("b") + b"h" + bytes([i]) + b"uq" + bytes([i + 1])
        for i in range(depth)
    )
    return body + b"."


FLOAT = "FloatStorage"
HOSTILE = {
    "beyond its bytes": forge.tensor("0", FLOAT, 4, 2, (3,), (1,)),
    "over 4 MiB of numbers": forge.tensor("0", FLOAT, 4, 0, (2**30,), (0,)),
    "sizes are whole numbers": forge.tensor("0", FLOAT, 4, -1, (3,), (1,)),
    "as many strides": forge.tensor("0", FLOAT, 4, 0, (3,), (1, 1)),
    "a storage has a kind and a number": forge.tensor("../../secret", FLOAT, 4, 0, (3,), (1,)),
    "lacks archive/data/7": forge.tensor("7", FLOAT, 4, 0, (3,), (1,)),
    "the kind EvilStorage": forge.tensor("0", "EvilStorage", 4, 0, (3,), (1,)),
    "builtins.eval": b"cbuiltins\neval\n(" + forge.text("1") + b"tR",
    "got a tuple where a str belongs": b"}))s",
    "the instruction OBJ": b"(cos\nmkdir\n" + forge.text("x") + b"o",
    "the instruction INST": b"(" + forge.text("x") + b"ios\nmkdir\n",
    "the instruction NEWOBJ": b"cos\nmkdir\n(" + forge.text("x") + b"t\x81",
}


@pytest.mark.parametrize("message", HOSTILE)
def test_hostile_tensors(message):
    data = forge.archive(forge.dictionary({"a": HOSTILE[message]}), {"0": bytes(16)})
    with pytest.raises((ConfigError, UnsafeDatasetError), match=message):
        torch_file.read(data, "a")


def test_small_files_that_unpack_to_large_ones(tmp_path):
    with pytest.raises(UnsafeDatasetError, match="nests too deep or holds too much"):
        torch_file.read(forge.archive(nest(200)), "a")
    bomb = forge.archive(b"\x80\x02" + b"0" * (20 << 20), compression=zipfile.ZIP_DEFLATED)
    assert len(bomb) < 100_000
    with pytest.raises(UnsafeDatasetError, match="unpacks to more than 4 MiB"):
        torch_file.read(bomb, "a")
    many = {str(i): forge.tensor("0", FLOAT, 2**20, 0, (2**20,), (1,)) for i in range(100)}
    with pytest.raises(UnsafeDatasetError, match="MiB of numbers"):
        torch_file.read(forge.archive(forge.dictionary(many), {"0": bytes(4 << 20)}), "a")
    directory = b"PK\x01\x02" * 20_000
    with pytest.raises(UnsafeDatasetError, match="more than 10,000 files"):
        torch_file.read(directory, "a")
    huge = {"layers": {str(i): np.zeros(1, np.float32) for i in range(10_001)}}
    (tmp_path / "a").write_bytes(msgpack_serialize(huge))
    with pytest.raises(UnsafeDatasetError, match="at most 10,000 tensors"):
        import_policy(tmp_path / "a", tmp_path / "p", settings=TANH)
    deep = np.zeros(1, np.float32)
    for _ in range(40):
        deep = {"a": deep}
    (tmp_path / "a").write_bytes(msgpack_serialize(deep))
    with pytest.raises(UnsafeDatasetError, match="nests too deep"):
        import_policy(tmp_path / "a", tmp_path / "p", settings=TANH)


def test_special_files_folders_and_links(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(ConfigError, match="is no plain file"):
            import_policy(path, tmp_path / "p")
    with pytest.raises(ConfigError, match="there is no policy file"):
        import_policy(tmp_path / "missing", tmp_path / "p")
    (tmp_path / "large").write_bytes(bytes(100))
    with monkeypatch.context() as less:
        less.setattr(files, "MAX_BYTES", 99)
        with pytest.raises(ConfigError, match="more than"):
            import_policy(tmp_path / "large", tmp_path / "p")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="there is no _METADATA in it"):
        import_policy(tmp_path / "folder", tmp_path / "p")
    (tmp_path / "folder" / "_METADATA").write_text("{}")
    with pytest.raises(ConfigError, match="a damaged checkpoint of orbax"):
        import_policy(tmp_path / "folder", tmp_path / "p")
    (tmp_path / "folder" / "d").symlink_to("/etc")
    with pytest.raises(UnsafeDatasetError, match="is a link or a special file"):
        import_policy(tmp_path / "folder", tmp_path / "p")
    monkeypatch.setattr(orbax, "MAX_BYTES", 1)
    (tmp_path / "folder" / "d").unlink()
    with pytest.raises(UnsafeDatasetError, match="name one checkpoint"):
        import_policy(tmp_path / "folder", tmp_path / "p")


def test_a_checkpoint_that_unpacks_to_more_than_it_weighs(tmp_path):
    import orbax.checkpoint as ocp

    ocp.PyTreeCheckpointer().save(tmp_path / "c", {"0": {"kernel": np.zeros((2**14, 2**13), np.float32)}})
    assert sum(path.stat().st_size for path in (tmp_path / "c").rglob("*") if path.is_file()) < 1 << 20
    with pytest.raises(UnsafeDatasetError, match="unpacks to over"):
        import_policy(tmp_path / "c", tmp_path / "p", settings=TANH)


def test_formats(tmp_path, net):
    (tmp_path / "a").write_bytes(save(net((3, 4, 1)).named("0.", "1.")))
    with pytest.raises(ConfigError, match="of the format safetensors, not torch"):
        import_policy(tmp_path / "a", tmp_path / "p", format="torch")
    with pytest.raises(ConfigError, match="choose one of safetensors"):
        import_policy(tmp_path / "a", tmp_path / "p", format="onnx")
    with pytest.raises(ConfigError, match="only orbax's format is a folder"):
        import_policy(tmp_path / "a", tmp_path / "p", format="orbax")
    assert import_policy(tmp_path / "a", tmp_path / "p", settings=TANH, format="safetensors").format == "safetensors"
    (tmp_path / "a").write_bytes(b"hello")
    with pytest.raises(ConfigError, match="of no known kind"):
        import_policy(tmp_path / "a", tmp_path / "q")
    script = io.BytesIO()
    with zipfile.ZipFile(script, "w") as out:
        out.writestr("m/data.pkl", b".")
        out.writestr("m/code/__torch__.py", "import os")
    (tmp_path / "a").write_bytes(script.getvalue())
    with pytest.raises(UnsafeDatasetError, match="TorchScript program"):
        import_policy(tmp_path / "a", tmp_path / "q")


@settings(max_examples=400)
@given(data=st.data())
def test_damaged_files_are_one_sentence(tmp_path_factory, net, data):
    """Any byte of any format changed, or the end cut off: a policy, or an error of ours."""
    tensors = net((3, 4, 2)).named("0.", "1.", kernel="weight", turned=True)
    tree = {
        "0": {"mean": np.zeros(3, np.float32)},
        "params": {name.replace(".", "/"): x for name, x in tensors.items()},
    }
    items = {
        "0.weight": forge.tensor("0", FLOAT, 6, 0, (2, 3), (3, 1)),
        "0.bias": forge.tensor("0", FLOAT, 6, 1, (2,), (1,)),
    }
    pickled = forge.dictionary(items)
    whole = [forge.state_dict(tensors), save(tensors), msgpack_serialize(tree), pickled]
    bytes_ = bytearray(data.draw(st.sampled_from(whole)))
    in_archive = bytes(bytes_) == pickled  # an archive's checksums would catch the change
    for _ in range(data.draw(st.integers(0, 4))):
        bytes_[data.draw(st.integers(0, len(bytes_) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.sampled_from([len(bytes_), data.draw(st.integers(0, len(bytes_)))]))
    folder = tmp_path_factory.mktemp("damaged")
    changed = bytes(bytes_[:end])
    (folder / "a").write_bytes(forge.archive(changed, {"0": bytes(24)}) if in_archive else changed)
    told = None
    try:
        import_policy(folder / "a", folder / "p", settings={**TANH, "ignore": ["0/*"]})
    except EpvfError as error:
        told = str(error)
    assert (folder / "p").exists() == (told is None)
    assert told is None or len(told) < 1000


def test_msgpack_that_lies_about_its_arrays(tmp_path):
    import msgpack

    for shape, kind, buffer in (
        ((2**40,), "float32", b"1234"),
        ((1,), "O", b"12345678"),
        ((-1,), "f4,f4", b"12345678"),
    ):
        packed = msgpack.packb((shape, kind, buffer), use_bin_type=True)
        (tmp_path / "a").write_bytes(msgpack.packb({"0": msgpack.ExtType(1, packed)}))
        with pytest.raises(ConfigError):
            import_policy(tmp_path / "a", tmp_path / "p", settings=TANH)


class TestWithPyTorch:
    """Runs where PyTorch is installed."""

    @pytest.fixture(autouse=True)
    def torch(self):
        return pytest.importorskip("torch")

    @pytest.mark.parametrize("activation", ["Tanh", "ReLU", "ELU", "SiLU"])
    @pytest.mark.parametrize("bias", [True, False])
    def test_modules_act_as_at_home(self, torch, tmp_path, acts, activation, bias):
        torch.manual_seed(0)
        make = getattr(torch.nn, activation)
        model = torch.nn.Sequential(
            torch.nn.Linear(6, 16, bias=bias), make(), torch.nn.Linear(16, 9, bias=bias), make(),
            torch.nn.Linear(9, 3, bias=bias), torch.nn.Tanh(),
        )  # fmt: skip
        states = 3 * torch.randn(64, 6)
        with torch.no_grad():
            home = model(states).numpy()
        optimizer = torch.optim.Adam(model.parameters())
        for name, saved, prefix in (
            ("state", model.state_dict(), {}),
            ("double", model.double().state_dict(), {}),
            ("both", {"epoch": 3, "model": model.float().state_dict(), "optimizer": optimizer.state_dict()}, {}),
            ("parameters", dict(model.named_parameters()), {}),
        ):
            torch.save(saved, tmp_path / name)
            stated = {"activation": activation.lower(), "output": "tanh", **prefix}
            import_policy(tmp_path / name, tmp_path / f"{name}-p", settings=stated)
            np.testing.assert_allclose(acts(tmp_path / f"{name}-p", states.numpy()), home, atol=1e-5)

    def test_pytorch_reads_what_the_tests_forge(self, torch, net):
        tensors = sequential(net((3, 4, 2)))
        found = torch.load(io.BytesIO(forge.state_dict(tensors)), weights_only=True)
        for name, array in tensors.items():
            np.testing.assert_array_equal(found[name].numpy(), array)

    def test_whole_modules_and_old_files_are_refused(self, torch, tmp_path):
        model = torch.nn.Linear(3, 2)
        torch.save(model, tmp_path / "whole")
        with pytest.raises(UnsafeDatasetError, match="torch.nn.modules.linear.Linear|the instruction NEWOBJ"):
            import_policy(tmp_path / "whole", tmp_path / "p")
        torch.save(model.state_dict(), tmp_path / "old", _use_new_zipfile_serialization=False)
        with pytest.raises(UnsafeDatasetError, match="PyTorch before 1.6"):
            import_policy(tmp_path / "old", tmp_path / "p")


class TestWithStableBaselines3:
    """Runs where Stable-Baselines3 is installed."""

    @pytest.mark.parametrize("name", ["PPO", "A2C", "SAC", "TD3", "DDPG"])
    @pytest.mark.filterwarnings("ignore")
    def test_models_act_as_at_home(self, tmp_path, acts, name):
        sb3, torch = pytest.importorskip("stable_baselines3"), pytest.importorskip("torch")
        model = getattr(sb3, name)("MlpPolicy", "Pendulum-v1", seed=0, device="cpu", policy_kwargs={"net_arch": [8, 7]})
        with torch.no_grad():  # untrained heads are all but zero
            for parameter in model.policy.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape))
        model.save(tmp_path / "model.zip")
        states = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
        import_policy(tmp_path / "model.zip", tmp_path / "p")
        home = model.predict(states, deterministic=True)[0] / 2  # its actions are torques up to 2
        np.testing.assert_allclose(acts(tmp_path / "p", states), home, atol=1e-5)
