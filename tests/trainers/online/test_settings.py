"""Presets say what the paper says; what makes no sense is refused with one sentence."""

from __future__ import annotations

import pytest

from epvf_data.config import build, to_dict
from epvf_data.errors import ConfigError
from epvf_data.trainers.online.settings import OnlineConfig, online_config, presets


@pytest.mark.parametrize("name", presets())
def test_every_preset_is_readable_and_says_what_it_is(name):
    config = online_config(name)
    assert len(presets()[name]) > 20
    assert build(OnlineConfig, to_dict(config)) == config


def test_the_papers_settings_are_the_papers():
    ant, pole = online_config("ant-paper"), online_config("cartpole-paper")
    assert (ant.envs, ant.capacity, ant.batch_size, ant.horizon) == (4096, 4096, 4096, None)
    assert (ant.exploration.law, ant.exploration.scale, ant.improvement.weight_clip) == ("uniform_scaled", 0.3, 0.1)
    assert (ant.improvement.learning_rate, ant.improvement.final_learning_rate) == (1e-3, 1e-7)
    assert (pole.exploration.law, pole.exploration.scale) == ("gaussian", 1.0)
    assert (pole.envs, pole.batch_size, pole.capacity) == (16, 16, 100_000)
    assert (pole.critic.steps, pole.improvement.steps, pole.critic.widths) == (10, 10, (64, 64))
    assert not ant.normalise_observations
    assert pole.normalise_observations


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"exploration.law": "gausian"}, "did you mean gaussian"),
        ({"critic.name": "ml"}, "did you mean mlp"),
        ({"critc.name": "mlp"}, "did you mean critic"),
        ({"envs": 0}, "at least 1"),
        ({"env_steps": None}, "a run needs an end"),
        ({"envs": 1023}, "multiple of the 1 policies in antithetic pairs"),
        ({"replay.capacity": 200}, "one iteration has 256 policies"),
        ({"replay.batch_size": 2048}, "cannot fill it"),
        ({"critic.learning_rate": -1.0}, "above 0"),
        ({"improvement.weight_clip": 0.0}, "above 0"),
        ({"improvement.final_at": 1.5}, "final_at is 1.5; it must be at most 1"),
        ({"critic.inputs": "centred"}, "reads policies as they are"),
        ({"exploration.policies": 2}, "one policy on fresh rows"),
        ({"exploration.policies": 128, "replay.capacity": 2048, "critic.name": "mlp"}, "fresh rows only"),
        ({"exploration.clip_weights": True}, "needs improvement.weight_clip"),
        ({"algorithm": "es", "exploration.law": "uniform_scaled"}, "Gaussian noise"),
        ({"normalise_observations": True, "policy.bias": False}, "policy.bias=true"),
        ({"env": "cartpoll"}, "did you mean cartpole"),
    ],
)
def test_bad_settings_get_one_sentence(changes, sentence):
    with pytest.raises(ConfigError, match=sentence) as caught:
        online_config("ant-cpu", **changes)
    assert "\n" not in str(caught.value)


def test_a_preset_of_another_body_is_told_before_anything_runs():
    with pytest.raises(ConfigError, match="ant-pavf is for ant: its time.reward_range"):
        online_config("ant-pavf", env="hopper")
    assert online_config("ant-pavf", env="hopper", **{"time.reward_range": [-1, 4]}).env == "hopper"
    assert online_config("body-pavf", env="walker2d").time.reward_range is None


def test_presets_and_files(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('preset = "ant-cpu"\nenvs = 64\n[critic]\npenalty = 2.0\n')
    config = online_config(str(file), seeds=3)
    assert (config.envs, config.seeds, config.critic.penalty, config.critic.name) == (64, 3, 2.0, "probing-ridge")
    with pytest.raises(ConfigError, match="did you mean ant-cpu"):
        online_config("ant-cpux")
    with pytest.raises(ConfigError, match="no configuration file"):
        online_config(str(tmp_path / "none.toml"))


def test_a_buffer_holds_whole_iterations():
    config = online_config("cartpole-paper", envs=48, **{"replay.capacity": 100_000})
    assert config.capacity == 99_984
