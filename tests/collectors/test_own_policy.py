"""Policies of an architecture of the user's own in a data set: as good as the package's, and only by his own code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import epvf_data
from epvf_data import OfflineConfig
from epvf_data.collectors.resimulate import resimulate
from epvf_data.collectors.setting import configure
from epvf_data.config import nested
from epvf_data.errors import ArchitectureMismatchError, ConfigError
from epvf_data.scoring.settings import ScoreConfig

SMALL = {"envs": 4, "policies": 12, "horizon": 20, "probes": 4, "episodes": 2}
SAME = {"perturbed.bases": ["mine.py:four"], "random.share": 0.0}
MISSING = "act by code that is not stored, and no file's word runs code; name mine.py:make of the SHA-256"
FIT = {"split": "iid", "epochs": 1, "seeds": 1, "resamples": 5}
TEXT = """
import numpy as np
from epvf_data import Architecture, PolicySpec
from epvf_data.policies import mlp


def make(observations, actions):
    '''What the package's own MLP computes.'''
    spec = PolicySpec(observations, actions, (8,))
    apply = lambda theta, seen: mlp.apply(spec, mlp.unflatten(spec, theta), seen)
    return Architecture(lambda key: mlp.init(key, spec), apply)


def four(spec, seed):
    return np.random.default_rng(seed).normal(size=(4, spec.size))
"""


def config(**changes):
    layers = {} if "policy.architecture" in changes else {"policy.hidden": [8]}
    return epvf_data.collect_config("cartpole", **{**SMALL, **SAME, **layers, **changes})


def test_what_shapes_the_mlp_is_not_taken_beside_it():
    with pytest.raises(ConfigError, match="policy.hidden shapes the MLP, and --policy takes its place; leave one out"):
        config(**{"policy.architecture": "mine.py:make", "policy.hidden": [8]})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with mine.py and rows of it, ten of twelve."""
    folder = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("mine.py").write_text(TEXT)
        epvf_data.collect(config(policies=10, **{"policy.architecture": "mine.py:make"}), "own.zarr")
    return folder


@pytest.fixture
def data(made, tmp_path, monkeypatch):
    """A copy of it, as the working directory."""
    shutil.copytree(made, tmp_path / "own")
    monkeypatch.chdir(tmp_path / "own")
    return Path("own.zarr")


def test_rows_are_those_of_the_same_mlp(data):
    """To the bit; resumed from a file that has moved, the last rows are those of an uninterrupted collection."""
    Path("sub").mkdir()
    Path("mine.py").rename("sub/mine.py")
    moved = {"perturbed.bases": ["sub/mine.py:four"]}
    report = epvf_data.collect(config(**{"policy.architecture": "sub/mine.py:make", **moved}), data, resume=True)
    assert (report.rows, report.rows_total) == (2, 12)
    epvf_data.collect(config(**moved), "mlp.zarr")
    own, mlp = (epvf_data.open(path).table() for path in (data, "mlp.zarr"))
    for name in ("params", "returns", "lengths", "probe_actions"):
        np.testing.assert_array_equal(own.column(name), mlp.column(name))
    assert str(own.spec) == "4-mine.py:make-1"
    assert epvf_data.validate(data, deep=True) == []
    assert "mine.py" not in {path.name for path in data.rglob("*")}  # no code in a store
    record = json.dumps(epvf_data.open(data).commits[0].provenance["config"]["policy"])
    assert '"architecture": "mine.py:make"' in record
    with pytest.raises(
        ArchitectureMismatchError, match="holds policies 4-mine.py:make-1 .*, this collection makes 4-8-1"
    ):
        epvf_data.collect(config(**moved, seed=3), data)
    epvf_data.collect(config(**moved, seed=3, policies=4), data, mixed=True)
    assert len(epvf_data.open(data).architectures) == 2


def test_without_its_file_the_rest_works(data, shell):
    """Looking, merging, filtering, taking a policy out; what acts is refused in a sentence."""
    other = config(policies=4, seed=1, **{"policy.architecture": "mine.py:make"})
    epvf_data.collect(other, "other.zarr")
    Path("mine.py").unlink()
    epvf_data.merge([data, "other.zarr"], "all.zarr")
    assert epvf_data.open("all.zarr").rows == 14
    epvf_data.filter("all.zarr", "best.zarr", "return > 0")
    assert "policies 4-mine.py:make-1" in shell("info", "best.zarr").stdout
    assert "the file of its architecture runs it" in shell("export-policy", "all.zarr", "--out", "p.safetensors").stdout
    assert not Path("p.py").exists()
    spec, theta = epvf_data.load_policy("p.safetensors")
    assert (spec.id, theta.shape) == (epvf_data.open(data).table().spec.id, (spec.size,))
    for critic, told in (("unf", "critic unf reads the layers of an MLP, .* take mlp or ridge"), ("probing", MISSING)):
        with pytest.raises(ConfigError, match=told):
            epvf_data.train_offline("all.zarr", OfflineConfig(critic=critic, **FIT), "refused")
    assert not Path("refused").exists()
    for act in (
        lambda: epvf_data.score("all.zarr"),
        lambda: epvf_data.render("all.zarr"),
        lambda: epvf_data.rollout("cartpole", spec, theta[None]),
        lambda: resimulate(epvf_data.open("all.zarr"), 2),
    ):
        with pytest.raises(ConfigError, match=MISSING):
            act()


@pytest.mark.soak
def test_without_its_file_critics_are_fitted(data, shell):
    """That read θ or stored actions; cards are written, and other formats."""
    Path("mine.py").unlink()
    shell("card", data)
    assert "code of SHA-256" in (data / "README.md").read_text()
    shell("export-npz", data, "--out", "all.npz")
    shell("export-hdf5", data, "--out", "all.h5")
    shell("import-hdf5", "all.h5", "--out", "again.zarr")
    assert epvf_data.open("again.zarr").table().spec == epvf_data.open(data).table().spec
    for critic in ("ridge", "stored-probing"):
        epvf_data.train_offline(data, OfflineConfig(critic=critic, **FIT), critic)
    epvf_data.evaluate("ridge", rollouts=False)
    lines = epvf_data.compare(["ridge", "stored-probing"])["splits"]["iid"]
    assert {"ridge", "stored-probing"} <= {line["critic"] for line in lines}


def test_with_its_file_they_act(data):
    Path("mine.py").rename("renamed.py")
    code = "renamed.py:make"
    assert resimulate(epvf_data.open(data), 3, policy=code).max_error == 0
    settings = ScoreConfig(episodes=2)
    assert epvf_data.score(data, settings, policy=code).scores[0].found.mean > 0
    assert epvf_data.top(data, "best", 2, settings, policy=code).rows[0].again is not None
    file = str(next(Path("best").glob("1-*.safetensors")))
    assert epvf_data.score(file, settings, policy=code).scores[0].found.mean > 0
    Path("other.py").write_text(TEXT + "\n")
    for act in (
        lambda: epvf_data.score(file, settings, policy="other.py:make"),
        lambda: epvf_data.render(data, code="other.py:make"),
    ):
        with pytest.raises(ArchitectureMismatchError, match=r"SHA-256 of other.py is .* that file as it was then"):
            act()


@pytest.mark.soak
def test_a_probing_critic_acts_by_it(data):
    quick = OfflineConfig(critic="probing", probes=4, widths=(8,), **FIT)
    epvf_data.train_offline(data, quick, "run", policy="mine.py:make")
    assert Path("run/policy/mine.py").read_text() == TEXT
    assert "policy_code" in json.loads(Path("run/config.json").read_text())
    theta = epvf_data.open(data).table().column("params")
    critic = epvf_data.load_critic("run", policy="run/policy/mine.py:make")
    assert np.isfinite(critic.grad(theta)).all()
    with pytest.raises(ConfigError, match=MISSING):
        epvf_data.load_critic("run")(theta)


def test_no_file_names_code(data):
    Path("made.toml").write_text('[policy]\narchitecture = "mine.py:make"\n')
    with pytest.raises(ConfigError, match="no file's word runs code; name it yourself with --policy"):
        configure("made.toml", [], {"env": "cartpole"})
    typed = nested({"policy.architecture": "mine.py:make"})
    assert configure("made.toml", [], {"env": "cartpole", **typed}).perturbed.bases == ("random",)
