"""Online training of an architecture of the user's own: V(θ) and Q(s, a, θ), resumed only with the same file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import epvf_data
from epvf_data.errors import ConfigError, FileError, RunError
from epvf_data.policies import template
from epvf_data.trainers.online.run import read_config
from epvf_data.trainers.online.settings import configure, online_config

SLIDE = f"{Path(__file__).with_name('slide.py')}:make"
TINY = {
    "env": SLIDE,
    "envs": 8,
    "iterations": 2,
    "env_steps": None,
    "policy.architecture": "mine.py:make",
    "critic.widths": [8],
    "critic.loss": "mse",
    "critic.steps": 2,
    "critic.ensemble": 1,
    "evaluation_episodes": 1,
    "log_every": 2,
    "replay.capacity": 256,
    "replay.batch_size": 16,
    "time.segment": 8,
    "time.n_step": 3,
    "time.warmup": 64,
    "time.critic_first": 0,
    "time.probes": 4,
    "time.projection": 6,
    "time.reward_range": None,
    "time.anneal_at": None,
}
TEXT = Path(template.__file__).read_text()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of pavf in a folder with mine.py."""
    folder = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("mine.py").write_text(TEXT)
        epvf_data.train_online(online_config("body-pavf", **TINY), "run", track=())
    return folder


@pytest.fixture
def run(made, tmp_path, monkeypatch):
    """A copy of it in the working directory."""
    shutil.copytree(made, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return Path("run")


def test_a_run_keeps_the_file_and_goes_on_with_no_other(run):
    stored = json.loads((run / "config.json").read_text())
    assert stored["config"]["policy"]["architecture"] == "mine.py:make"
    assert stored["policy_code"]["sha256"] == epvf_data.own_spec("mine.py:make", 2, 1).sha256
    assert (run / "policy/mine.py").read_text() == TEXT
    Path("mine.py").write_text(TEXT + "\n")
    with pytest.raises(RunError, match=r"mine.py is not the policy that run .* name the run's copy, run/policy/mine"):
        epvf_data.train_online(online_config("body-pavf", **TINY), run, resume=True, track=())
    spec, theta = epvf_data.load_policy(epvf_data.best_policy(run))
    assert str(spec) == "2-mine.py:make-1"
    start = epvf_data.own_spec("run/policy/mine.py:make", 2, 1)
    assert np.abs(theta).max() > 0
    assert start.id == spec.id


@pytest.mark.soak
def test_a_run_goes_on_from_its_copy(run):
    Path("mine.py").unlink()
    longer = {**TINY, "iterations": 4, "policy.architecture": "run/policy/mine.py:make"}
    assert epvf_data.train_online(online_config("body-pavf", **longer), run, resume=True, track=()).iterations == 4


def test_no_run_loads_code_by_itself(run):
    (run / "policy/mine.py").write_text("open('trace', 'w').close()")
    told = (
        r"the policy of run is code, mine.py:make, and no file's .* copy of it is run/policy/mine.py:make, to be read"
    )
    with pytest.raises(RunError, match=told):
        read_config(run, env=SLIDE)
    assert not Path("trace").exists()
    assert read_config(run, env=SLIDE, policy="mine.py:make").policy.architecture == "mine.py:make"
    shutil.copytree(run, "other")
    stored = json.loads(Path("other/config.json").read_text())
    stored["config"]["policy"]["architecture"] = None
    Path("other/config.json").write_text(json.dumps(stored))
    with pytest.raises(RunError, match="the policy of other is MLP, of this package; leave --policy out"):
        read_config("other", env=SLIDE, policy="mine.py:make")


@pytest.mark.soak
def test_returns_alone_teach_too(in_tmp):
    """Algorithm 1, from Python, recorded."""
    small = {"env": "cartpole", "envs": 8, "horizon": 10, "iterations": 1, "env_steps": None, "critic.steps": 2}
    config = online_config("cartpole-paper", **small, **{"policy.architecture": template.make})
    assert not config.normalise_observations  # the preset's is of MLPs
    report = epvf_data.train_online(config, "run", record="rows.zarr", track=())
    assert report.iterations == 1
    table = epvf_data.open("rows.zarr").table()
    assert (len(table), str(table.spec)) == (8, "4-template.py:make-1")
    assert Path("run/policy/template.py").is_file()


def test_what_cannot_be_is_told_in_a_sentence(in_tmp):
    Path("mine.py").write_text(TEXT)
    Path("loose.py").write_text(TEXT.replace("init, apply)", "init, apply, bounded=False)"))
    typed = {"policy.architecture": "mine.py:make"}
    for name, changes, told in (
        ("body", {**typed, "normalise_observations": True}, "normalise_observations reads the layers of an MLP"),
        ("body-pavf", {"policy.architecture": "loose.py:make"}, "policies .*loose.py:make-1 are not bounded"),
    ):
        with pytest.raises(ConfigError, match=told):
            epvf_data.train_online(online_config(name, env=SLIDE, **changes), "run", track=())
    Path("made.toml").write_text('preset = "body"\n[policy]\narchitecture = "mine.py:make"\n')
    with pytest.raises(ConfigError, match="no file's word runs code; name it yourself with --policy"):
        configure("made.toml")
    with pytest.raises(FileError, match="there is no such file"):
        epvf_data.train_online(online_config("body", env=SLIDE, **{"policy.architecture": "no.py:make"}), "run")
    assert not Path("run").exists()
