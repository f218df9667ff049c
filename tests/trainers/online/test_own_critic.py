"""A critic of the user's own inside the loop."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from epvf_data import CriticFamily, online_config
from epvf_data.critics import template
from epvf_data.errors import ConfigError, RunError
from epvf_data.trainers.online.run import read_config, train_online

SMALL = {"envs": 8, "horizon": 20, "iterations": 2, "policy.hidden": [4], "seeds": 1, "critic.steps": 2, "log_every": 1}
TEXT = Path(template.__file__).read_text()


def config(**changes):
    return online_config("body", env="cartpole", **SMALL, **changes)


def test_a_run_fits_the_users_critic_and_goes_on_with_it(in_tmp):
    (in_tmp / "mine.py").write_text(TEXT)
    mine = config(**{"critic.name": "mine.py:make"})
    report = train_online(mine, "run", max_seconds=0)
    assert not report.finished
    assert Path("run/critic.py").read_text() == TEXT
    stored = json.loads(Path("run/config.json").read_text())
    assert stored["config"]["critic"]["name"] == "mine.py:make"
    with pytest.raises(RunError, match="no file's word runs code; name it yourself"):
        read_config("run")
    assert read_config("run", critic="mine.py:make") == mine
    (in_tmp / "mine.py").write_text(TEXT + "\n")
    with pytest.raises(RunError, match="mine.py is not the critic that run was started with"):
        train_online(mine, "run", resume=True)
    whole = train_online(config(**{"critic.name": "run/critic.py:make"}), "run", resume=True)
    assert whole.finished
    same = train_online(config(), "object", critic=template.make)
    assert same.return_perturbed == whole.return_perturbed
    assert json.loads(Path("object/config.json").read_text())["config"]["critic"]["name"].endswith("template:make")


def test_what_no_iteration_has_is_refused(in_tmp):
    actions = CriticFamily(template.make, reads="probe_actions")
    with pytest.raises(ConfigError, match="template:make reads stored actions, of which an iteration has none"):
        train_online(config(), "run", critic=actions)
    with pytest.raises(ConfigError, match="template:make, and es takes no critic of your own"):
        train_online(config(algorithm="es", **{"exploration.law": "gaussian"}), "run", critic=template.make)
    with pytest.raises(ConfigError, match="there is no critic 'mlq'; did you mean mlp"):
        train_online(config(), "run", critic="mlq")
    assert not Path("run").exists()
    assert replace(config().critic, name=template.make).name.make is template.make  # pyright: ignore
