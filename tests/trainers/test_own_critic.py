"""A critic of the user's own: fitted by its file or as an object, and read again only where the user names it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import epvf_data
from epvf_data import CriticFamily, OfflineConfig
from epvf_data.config import build, to_dict
from epvf_data.critics import template
from epvf_data.errors import ConfigError, FileError, RunError
from epvf_data.trainers.offline.run import evaluate_run

SMALL = {"split": "iid", "epochs": 2, "seeds": 2, "resamples": 5, "batch_size": 128}
TEXT = Path(template.__file__).read_text()
OTHER = TEXT + "\n\nactions = epvf_data.CriticFamily(make, reads='probe_actions', mixed=True)\n"


@pytest.fixture
def fitted(dataset, in_tmp):
    """A run of the critic in mine.py."""
    (in_tmp / "mine.py").write_text(TEXT)
    return epvf_data.train_offline(dataset, OfflineConfig(critic="mine.py:make", **SMALL), "run")


def test_a_run_keeps_the_file_and_is_read_where_the_user_names_it(fitted, dataset, in_tmp):
    assert fitted.critic == "mine.py:make"
    stored = json.loads(Path("run/config.json").read_text())
    assert stored["config"]["critic"] == "mine.py:make"
    assert stored["critic_code"]["path"] == str(in_tmp / "mine.py")
    assert Path("run/critic.py").read_text() == TEXT
    theta = epvf_data.open(dataset).table().column("params")[:5]
    named = epvf_data.load_critic("run", critic="mine.py:make")
    assert named.grad(theta).shape == theta.shape
    Path("mine.py").rename("elsewhere.py")
    Path("other.py").write_text(TEXT + "\n")
    for critic in ("run/critic.py:make", "elsewhere.py:make", template.make, CriticFamily(template.make)):
        np.testing.assert_array_equal(epvf_data.load_critic("run", critic=critic)(theta), named(theta))
    assert evaluate_run("run", critic="run/critic.py:make").spearman == fitted.spearman
    found = epvf_data.evaluate("run", rollouts=False, critic="run/critic.py:make")
    assert found["critic"] == "mine.py:make"
    epvf_data.train_offline(dataset, OfflineConfig(critic="ridge", **SMALL), "ridge")
    told = epvf_data.write_report(
        [dataset], "a.html", ["run", "ridge"], critics=["other.py:make", "run/critic.py:make"], pictures=False
    )
    assert told["notes"] == []
    assert all(word in Path("a.html").read_text() for word in ('"critic":"mine.py:make"', '"critic":"ridge"'))
    lines = epvf_data.compare(["run", "ridge"])["splits"]["iid"]  # it reads reports, and loads nothing
    assert {line["critic"] for line in lines} == {"mine.py:make", "ridge"}


def test_no_run_loads_code_by_itself(fitted, dataset, in_tmp):
    Path("run/critic.py").write_text("open('trace', 'w').close()")
    told = r"no file's word runs code; name it yourself with --critic, .* copy of it is run/critic.py:make, to be read"
    for read in (
        lambda: epvf_data.load_critic("run"),
        lambda: epvf_data.evaluate("run", rollouts=False),
        lambda: epvf_data.improve("run", "out"),
        lambda: epvf_data.write_report([dataset], "out.html", ["run"]),
    ):
        with pytest.raises(RunError, match=told):
            read()
    assert not Path("trace").exists()


def test_another_file_than_then_is_told(fitted, dataset):
    Path("mine.py").write_text(TEXT + "\n")
    with pytest.raises(RunError, match=r"mine.py is not the critic that run was started with: its SHA-256 is \w{12}…"):
        epvf_data.load_critic("run", critic="mine.py:make")
    with pytest.raises(RunError, match="name the run's copy, run/critic.py, or start a new run"):
        epvf_data.train_offline(dataset, OfflineConfig(critic="mine.py:make", **SMALL), "run", resume=True)
    assert epvf_data.load_critic("run", critic="run/critic.py:make").run == Path("run")
    Path("mine.py").unlink()
    with pytest.raises(FileError, match="mine.py:make gives no critic: there is no such file"):
        epvf_data.load_critic("run", critic="mine.py:make")
    with pytest.raises(RunError, match="is code, mine.py:make, and not mlp; name that code"):
        epvf_data.load_critic("run", critic="mlp")
    epvf_data.train_offline(dataset, OfflineConfig(critic="ridge", **SMALL), "ridge")
    with pytest.raises(RunError, match="the critic of ridge is ridge, of this package; leave --critic out"):
        epvf_data.load_critic("ridge", critic="run/critic.py:make")


def test_an_object_is_as_good_as_a_file(fitted, dataset):
    """Same numbers, and no code is stored: what was passed from Python is passed again."""
    report = epvf_data.train_offline(dataset, OfflineConfig(**SMALL), "object", critic=template.make)
    assert report.critic == "epvf_data.critics.template:make"
    assert report.spearman == fitted.spearman
    assert not Path("object/critic.py").exists()
    with pytest.raises(RunError, match=r"or critic= in Python\.$"):
        epvf_data.load_critic("object")
    assert epvf_data.load_critic("object", critic=template.make).run == Path("object")
    config = OfflineConfig(critic=template.make, **SMALL)  # pyright: ignore[reportArgumentType]
    assert config == OfflineConfig(critic=CriticFamily(template.make), **SMALL)
    assert to_dict(config)["critic"] == "epvf_data.critics.template:make"
    assert build(OfflineConfig, {**to_dict(config), "critic": config.critic}) == config
    assert replace(config, seeds=1).critic == config.critic
    with pytest.raises(ConfigError, match="critic is 3; expected text"):
        build(OfflineConfig, {"critic": 3})


def test_a_family_says_what_it_reads(mixed, in_tmp):
    Path("acts.py").write_text(OTHER.replace("import jax\n", "import epvf_data\nimport jax\n", 1))
    report = epvf_data.train_offline(mixed, OfflineConfig(critic="acts.py:actions", **SMALL), "run")
    assert len(report.dataset["architectures"]) == 3
    assert report.splits["iid"]["ridge_reads"] == "probe_actions"
    critic = epvf_data.load_critic("run", critic="run/critic.py:actions")
    assert [critic(np.zeros(spec.size)) for spec in critic.specs]


def test_a_critic_that_cannot_be_fitted_is_refused_before_a_run_is_made(dataset, in_tmp):
    Path("bad.py").write_text(TEXT.replace('@ params["outer"]', '@ params["outer"].T'))
    with pytest.raises(ConfigError, match="bad.py:make gives no critic: TypeError in line 16 of bad.py"):
        epvf_data.train_offline(dataset, OfflineConfig(critic="bad.py:make", **SMALL), "run")
    assert not Path("run").exists()


def test_policies_are_improved_by_it(dataset, fitted, shell):
    """By name, on a data set and on a run; nothing is rolled out."""
    quick = ["--set", "fit.epochs=2", "--set", "fit.seeds=2", "--set", "fit.resamples=5", "--no-rollouts", "-q"]
    shell("improve", dataset, "--critic", "mine.py:make", "--out", "new", *quick)
    found = json.loads(Path("new/improvement.json").read_text())
    assert (found["critic"], found["method"]) == ("mine.py:make", "lower")
    assert Path("new/critic/critic.py").read_text() == TEXT
    shell("improve", "run", "--critic", "run/critic.py:make", "--out", "again", *quick)
    assert "no file's word runs code" in shell("improve", "run", "--out", "x", *quick, code=1).stderr


def test_words_for_the_shell(dataset, in_tmp, shell):
    """That it runs there is told by test_docs.py, which types the page's commands."""
    body = [line for line in TEXT.splitlines()[8:] if line.strip()]
    assert len(body) <= 12
    assert "did you mean mlp" in shell("train-offline", dataset, "--critic", "mlq", code=2).stderr
    assert "there is no such file" in shell("train-offline", dataset, "--critic", "no.py:make", code=1).stderr
