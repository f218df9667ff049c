"""Whole runs on CartPole, and the policies that they leave."""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("brax")

from epvf_data import envs
from epvf_data.baselines import directory as directory_of
from epvf_data.baselines import library, train
from epvf_data.baselines.export import to_policy
from epvf_data.baselines.settings import baseline_config
from epvf_data.baselines.train import train_baseline
from epvf_data.errors import RunError
from epvf_data.policies import mlp
from epvf_data.policies.files import load_policy
from epvf_data.rollout import rollout
from epvf_data.trainers import rundir

TINY = {"env": "cartpole", "horizon": 40, "envs": 8, "evaluations": 2, "seed": 3}
PPO = {"env_steps": 1024, "ppo.unroll_length": 32, "ppo.batch_size": 8, "ppo.num_minibatches": 2}
PPO |= {"ppo.final_learning_rate": 0.0, "ppo.policy_hidden_layer_sizes": (8,), "ppo.value_hidden_layer_sizes": (8,)}
SAC = {"env_steps": 512, "sac.min_replay_size": 128, "sac.batch_size": 16, "sac.hidden_layer_sizes": (8,)}
SAC |= {"sac.activation": "elu"}  # PPO's: the rollouts of both policies share a compiled function


def check_run(directory, config, report):
    """Everything that a run promises to leave."""
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [1, 2]
    assert {line["seed"] for line in lines} == {3}
    assert lines[-1]["env_steps"] == report.env_steps >= config.env_steps
    for line in lines:
        assert 5 < line["return_perturbed"] <= 40
        assert 5 < line["return_unperturbed"] <= 40
        assert all(value is None or np.isfinite(value) for value in line.values())
    assert rundir.read_run(directory)["config"]["algorithm"] == config.algorithm
    assert "brax" in json.loads((directory / "versions.json").read_text())
    assert json.loads((directory / "report.json").read_text()) == report.to_dict()
    assert report.finished
    assert len(list((directory / "tensorboard" / "seed-3").iterdir())) == 1
    spec, flat = load_policy(directory / "policies" / "last-3.safetensors")
    returns = rollout(config.build_env(), spec, flat[None], episodes=16, backend="mjx").returns
    assert float(returns.mean()) == report.return_rollout


@pytest.fixture(scope="module")
def ppo_run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "ppo"
    config, events = baseline_config("ant-ppo-cpu", **TINY, **PPO), []
    report = train_baseline(config, directory, progress=events.append)
    return directory, config, report, events


@pytest.mark.slow  # compiles the training loop
def test_ppo_leaves_a_readable_run(ppo_run):
    directory, config, report, events = ppo_run
    check_run(directory, config, report)
    assert [event["env_steps"] for event in events] == [512, 1024]
    assert events[-1]["env_steps_total"] == 1024
    assert not hasattr(jax, "device_put_replicated")  # taken away again


@pytest.mark.slow  # needs a run
def test_a_finished_run_is_refused_and_a_killed_one_is_started_again(ppo_run):
    directory, config, *_ = ppo_run
    with pytest.raises(RunError, match="holds a finished run"):
        train_baseline(config, directory)
    killed = directory.with_name("killed")
    shutil.copytree(directory, killed)
    (killed / "report.json").unlink()
    with pytest.raises(RunError, match="started with other settings"):
        train_baseline(replace(config, seed=4), killed)

    assert directory_of.check(killed)
    directory_of.begin(killed, config, config.build_env())
    assert not (killed / "metrics.jsonl").exists()  # nothing is left that could be taken for the new run's
    assert not list((killed / "policies").iterdir())
    assert rundir.read_run(killed) == rundir.read_run(directory)
    (killed / "config.json").unlink()
    with pytest.raises(RunError, match="exists already"):  # not a run of ours: it is not touched
        train_baseline(config, killed)


@pytest.mark.slow  # compiles the training loop
def test_sac_leaves_a_readable_run(tmp_path, monkeypatch):
    config = baseline_config("ant-sac-cpu", **TINY, **SAC)
    monkeypatch.chdir(tmp_path)  # a path as people type it: it was refused where the checkpoints were read back
    check_run(Path("sac"), config, train_baseline(config, "sac"))
    names = sorted(path.name for path in Path("sac", "policies").iterdir())
    assert names == ["at-000001-3.safetensors", "at-000002-3.safetensors", "last-3.safetensors"]
    assert not Path("sac", "brax").exists()


def test_a_free_width_gives_the_mean_itself_and_log_std_at_the_end():
    env, networks = envs.make("hopper"), library.load("training.agents.ppo.networks")
    network = networks.make_ppo_networks(
        11, 3, policy_hidden_layer_sizes=(64, 64), activation=jnp.tanh, **train._FREE_STD
    )
    random = np.random.default_rng(7)
    seen = jnp.asarray(random.normal(size=(50, 11)), jnp.float32)
    with library.ready():
        learned = jax.tree.map(
            lambda leaf: jnp.asarray(random.normal(scale=0.3, size=leaf.shape), jnp.float32),
            network.policy_network.init(jax.random.PRNGKey(1)),
        )
        act = networks.make_inference_fn(network)((None, learned), deterministic=True)
        wanted, _ = act(seen, jax.random.PRNGKey(0))
    params = (SimpleNamespace(mean=np.zeros(11), std=np.ones(11)), learned)
    spec, flat = to_policy(env, params, "tanh", free_std=True)
    assert (spec.size, len(flat)) == (5126, 5126)
    actions = jax.vmap(partial(mlp.apply, spec, mlp.unflatten(spec, jnp.asarray(flat))))(seen)
    np.testing.assert_allclose(actions, wanted, atol=1e-5)
    assert np.abs(np.asarray(actions)).max() > 1
    np.testing.assert_array_equal(flat[-3:], jax.tree.leaves(learned["params"]["std_logparam"])[0])


@pytest.mark.parametrize(
    ("algorithm", "activation"), [("ppo", "elu"), ("ppo", "swish"), ("sac", "relu"), ("sac", "tanh")]
)
def test_the_exported_policy_acts_as_braxs_deterministic_one(algorithm, activation):
    env = envs.make("ant")
    networks = library.load(f"training.agents.{algorithm}.networks")
    statistics = library.load("training.acme.running_statistics")
    sizes = {"ppo": "policy_hidden_layer_sizes", "sac": "hidden_layer_sizes"}[algorithm]
    build = getattr(networks, f"make_{algorithm}_networks")
    network = build(
        34,
        8,
        preprocess_observations_fn=statistics.normalize,
        activation=mlp.ACTIVATIONS[activation],
        **{sizes: (32, 16)},
    )
    random = np.random.default_rng(7)
    seen = jnp.asarray(random.normal(random.normal(size=34), random.uniform(0.1, 3, 34), (200, 34)), jnp.float32)
    with library.ready():
        normaliser = statistics.update(statistics.init_state(jnp.zeros(34)), seen)
        learned = jax.tree.map(
            lambda leaf: jnp.asarray(random.normal(scale=0.3, size=leaf.shape), jnp.float32),
            network.policy_network.init(jax.random.PRNGKey(1)),
        )
        act = networks.make_inference_fn(network)((normaliser, learned), deterministic=True)
        wanted, _ = act(seen, jax.random.PRNGKey(0))
    spec, flat = to_policy(env, (normaliser, learned), activation)
    actions = jax.vmap(partial(mlp.apply, spec, mlp.unflatten(spec, jnp.asarray(flat))))(seen)
    np.testing.assert_allclose(actions, wanted, atol=1e-5)
    assert 0.1 < np.abs(np.asarray(actions)).mean() < 0.99
