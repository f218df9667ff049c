"""Settings of baseline runs: the presets, and what is refused."""

import pytest

from epvf_data.baselines.settings import PRESETS, BaselineConfig, baseline_config
from epvf_data.config import build, to_dict
from epvf_data.errors import ConfigError


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_what_their_names_say(name):
    config = baseline_config(name)
    named = f"{config.env}-{config.algorithm}-{'paper' if config.env_steps == 2_000_000_000 else 'cpu'}"
    assert name == ("body-sac" if name.startswith("body") else named)
    assert config.build_env().horizon == (250 if name in ("ant-ppo-cpu", "ant-sac-cpu") else 1000)
    assert build(BaselineConfig, to_dict(config)) == config


def test_the_papers_ppo_takes_ten_epochs_of_sixteen_minibatches():
    config = baseline_config("ant-ppo-paper")
    assert config.ppo.batch_size * config.ppo.unroll_length == 32_768
    steps = config.ppo.batch_size * config.ppo.unroll_length * config.ppo.num_minibatches
    assert steps == config.envs * config.ppo.unroll_length
    iterations = config.ppo_updates() / (16 * 10)
    assert config.env_steps <= iterations * steps < config.env_steps + config.evaluations * steps


def test_changes_and_files(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('algorithm = "sac"\n[sac]\ntau = 0.01\n')
    config = baseline_config(file, seed=4, **{"sac.hidden_layer_sizes": (8, 8), "ppo.max_grad_norm": None})
    assert (config.algorithm, config.seed, config.sac.tau) == ("sac", 4, 0.01)
    assert config.sac.hidden_layer_sizes == (8, 8)
    assert config.ppo.max_grad_norm is None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"algorithm": "a2c"}, "algorithm is 'a2c'; choose one of ppo, sac"),
        ({"backend": "warp"}, "backend is 'warp'; choose one of auto, mjx, native"),
        ({"envs": 100}, "make it a multiple of envs = 100"),
        ({"ppo.activation": "gelu"}, "ppo.activation is 'gelu'"),
        ({"ppo.batchsize": 3}, "did you mean ppo.batch_size"),
        ({"evaluations": 0}, "evaluations is 0; it must be at least 1"),
        ({"algorithm": "sac", "env_steps": 100}, "must be below env_steps = 100"),
    ],
)
def test_mistakes_are_one_sentence(changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        baseline_config("ant-ppo-cpu", **changes)


def test_an_unknown_preset_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean ant-ppo-cpu"):
        baseline_config("ant-pp-cpu")
