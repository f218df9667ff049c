"""Normalisers of other frameworks' layouts: they come along as they act at home, or the import is refused."""

from __future__ import annotations

import re

import numpy as np
import pytest
from flax.serialization import msgpack_serialize
from importing import forge_torch as forge
from safetensors.numpy import save_file

from epvf_data.errors import ConfigError
from epvf_data.importing.run import import_policy

OUT = {"activation": "elu", "output": "identity"}
DRAW = np.random.default_rng(5)
MEAN, STD = DRAW.normal(size=5), DRAW.uniform(0.05, 3, 5)


def layers(made, *names):
    return made.named(*(f"{name}." for name in names), kernel="weight", turned=True)


def empirical(module, mean=MEAN, std=STD):
    """rsl_rl's EmpiricalNormalization."""
    one = {"_mean": mean[None], "_std": std[None], "_var": std[None] ** 2, "count": np.array(9)}
    return {
        module + name: np.asarray(value, np.int64 if name == "count" else np.float32) for name, value in one.items()
    }


def running(module, variance, count):
    """RunningMeanStd of rl_games, RunningStandardScaler of skrl."""
    return {f"{module}running_mean": MEAN, f"{module}{variance}": STD**2, f"{module}{count}": np.array(9.0)}


def critic(net, *names):
    return layers(net((5, 7, 1), seed=3), *names)


@pytest.fixture
def actor(net):
    made = net((5, 8, 2))
    made.states *= 9  # so that clips matter
    return made


RSL = (
    # 2.x keeps the normalisers beside the model, 3.x inside of it, 5.x in the state of each network
    ("model_state_dict/actor.", "model_state_dict/critic.", "obs_norm_state_dict/", "privileged_obs_norm_state_dict/"),
    ("model_state_dict/actor.", "model_state_dict/critic.", "obs_norm_state_dict/", "critic_obs_norm_state_dict/"),
    ("actor.", "critic.", "actor_obs_normalizer.", "critic_obs_normalizer."),
    ("student.", "teacher.", "student_obs_normalizer.", "teacher_obs_normalizer."),
    ("actor_state_dict/mlp.", "critic_state_dict/mlp.", "actor_state_dict/obs_normalizer.",
     "critic_state_dict/obs_normalizer."),
)  # fmt: skip


@pytest.mark.parametrize(("policy", "value", "normaliser", "other"), RSL)
@pytest.mark.parametrize("both", [True, False])
def test_rsl_rl(tmp_path, net, actor, acts, policy, value, normaliser, other, both):
    tensors = layers(actor, f"{policy}0", f"{policy}2") | critic(net, f"{value}0", f"{value}2")
    tensors |= empirical(normaliser) | (empirical(other, MEAN + 1, STD + 1) if both else {})
    tensors |= {re.sub(r"[^./]*[./]$", "", policy) + "std": np.ones(2, np.float32)}
    tensors |= {"optimizer_state_dict/state/0/exp_avg": np.ones((2, 2), np.float32)}
    (tmp_path / "model_100.pt").write_bytes(forge.state_dict(tensors))
    with pytest.raises(ConfigError, match="several stacks") as caught:
        import_policy(tmp_path / "model_100.pt", tmp_path / "p", settings=OUT)
    prefix = re.search(r"--set prefix='([^']*)'", str(caught.value))[1]
    report = import_policy(tmp_path / "model_100.pt", tmp_path / "p", settings={**OUT, "prefix": prefix})
    assert report.normaliser
    assert any("as rsl_rl does it (epsilon 0.01, no clip)" in note for note in report.notes)
    home = actor.act("elu", "identity", (actor.states - MEAN) / (STD + 0.01))
    np.testing.assert_allclose(acts(tmp_path / "p", actor.states), home, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("module", ["running_mean_std.", "model/running_mean_std.", "running_mean_std/"])
def test_rl_games(tmp_path, net, actor, acts, module):
    tensors = layers(actor, "model/a2c_network.actor_mlp.0", "model/a2c_network.mu")
    tensors |= layers(net((8, 1)), "model/a2c_network.value") | {"model/a2c_network.sigma": np.zeros(2, np.float32)}
    tensors |= running(module, "running_var", "count")
    tensors |= {f"model/value_mean_std.{name}": np.ones(1) for name in ("running_mean", "running_var", "count")}
    save_file(tensors, tmp_path / "a")
    report = import_policy(tmp_path / "a", tmp_path / "p", settings={**OUT, "head": "model/a2c_network.mu"})
    assert any("as rl_games does it (epsilon 1e-05, clip 5)" in note for note in report.notes)
    seen = np.clip((actor.states - MEAN) / np.sqrt(STD**2 + 1e-5), -5, 5)
    assert (abs(seen) == 5).any()
    np.testing.assert_allclose(acts(tmp_path / "p", actor.states), actor.act("elu", "identity", seen), atol=1e-5)


@pytest.mark.parametrize("module", ["state_preprocessor/", "observation_preprocessor/"])
def test_skrl(tmp_path, net, actor, acts, module):
    std = STD * np.array([1, 1, 1, 1, 0])  # a constant observation
    tensors = layers(actor, "policy/net_container.0", "policy/policy_layer")
    tensors |= layers(net((5, 8, 1), seed=3), "value/net_container.0", "value/value_layer")
    tensors |= {"policy/log_std_parameter": np.zeros(2, np.float32)} | running(module, "running_variance", "count")
    tensors |= running("value_preprocessor/", "running_variance", "current_count")
    tensors[f"{module}running_variance"] = std**2
    save_file(tensors, tmp_path / "agent.safetensors")
    stated = {**OUT, "prefix": "policy/", "head": "policy/policy_layer"}
    report = import_policy(tmp_path / "agent.safetensors", tmp_path / "p", settings=stated)
    assert any("as skrl does it (epsilon 1e-16, clip 5)" in note for note in report.notes)
    seen = np.clip((actor.states - MEAN) / (std + 1e-8), -5, 5)
    np.testing.assert_allclose(acts(tmp_path / "p", actor.states), actor.act("elu", "identity", seen), atol=1e-5)
    alone = {name.removeprefix("policy/"): one for name, one in tensors.items() if name.startswith("policy/")}
    (tmp_path / "policy_9.pt").write_bytes(forge.state_dict(alone))
    (tmp_path / "state_preprocessor_9.pt").write_bytes(b"PK")
    with pytest.raises(ConfigError, match=r"state_preprocessor_9\.pt lies beside policy_9\.pt.*normaliser=none"):
        import_policy(tmp_path / "policy_9.pt", tmp_path / "q", settings={**OUT, "head": "policy_layer"})


def test_brax_with_a_gaussian_that_is_not_squashed(tmp_path, net, actor, acts):
    tree = lambda one: {f"hidden_{i}": {"kernel": one.kernels[i], "bias": one.biases[i]} for i in (0, 1)}  # noqa: E731
    statistics = {"mean": MEAN, "std": STD, "summed_variance": STD, "count": {"hi": np.uint32(0), "lo": np.uint32(9)}}
    policy = {"params": {"MLP_0": tree(actor), "std_logparam": np.zeros(2, np.float32)}}
    parameters = {"0": statistics, "1": policy, "2": {"params": tree(net((5, 8, 1)))}}
    (tmp_path / "a").write_bytes(msgpack_serialize(parameters))
    report = import_policy(tmp_path / "a", tmp_path / "p", settings={**OUT, "prefix": "1/"})
    assert any("as brax does it" in note for note in report.notes)
    home = actor.act("elu", "identity", (actor.states - MEAN) / STD)
    np.testing.assert_allclose(acts(tmp_path / "p", actor.states), home, atol=1e-4, rtol=1e-5)


def test_brax_with_observations_of_other_names(tmp_path, net, acts):
    made = net((5, 8, 4))
    tree = {f"hidden_{i}": {"kernel": made.kernels[i], "bias": made.biases[i]} for i in (0, 1)}
    of = lambda x: {"proprio": x, "pixels": np.zeros(9)}  # noqa: E731
    normaliser = {"mean": of(MEAN), "std": of(STD), "summed_variance": of(STD)}
    (tmp_path / "a").write_bytes(msgpack_serialize({"0": normaliser, "1": {"params": tree}}))
    with pytest.raises(ConfigError, match="look like normalisers") as caught:
        import_policy(tmp_path / "a", tmp_path / "p")
    tensors = dict(re.findall(r'"(normaliser/\w+)" = "([^"]+)"', str(caught.value)))
    assert tensors == {"normaliser/mean": "0/mean/proprio", "normaliser/std": "0/std/proprio"}
    import_policy(tmp_path / "a", tmp_path / "p", settings={"tensors": tensors})
    home = np.tanh(made.act("relu", "identity", (made.states - MEAN) / STD)[:, :2])
    np.testing.assert_allclose(acts(tmp_path / "p", made.states), home, atol=1e-5)


@pytest.mark.parametrize(
    ("mean", "spread", "key"),
    [("obs_rms.mean", "obs_rms.var", "var"), ("obs_mean", "obs_std", "std"), ("ob/running_mean", "ob/variance", "var")],
)
def test_of_unknown_kinds(tmp_path, actor, acts, mean, spread, key):
    tensors = layers(actor, "pi.0", "pi.2") | {mean: MEAN, spread: STD**2 if key == "var" else STD}
    save_file(tensors, tmp_path / "a")
    with pytest.raises(ConfigError, match="look like normalisers of the observations") as caught:
        import_policy(tmp_path / "a", tmp_path / "p", settings=OUT)
    found = dict(re.findall(r'"(normaliser/\w+)" = "([^"]+)"', str(caught.value)))
    assert found == {"normaliser/mean": mean, f"normaliser/{key}": spread}
    import_policy(tmp_path / "a", tmp_path / "p", settings={**OUT, "tensors": found, "normaliser.epsilon": 1e-4})
    std = np.sqrt(STD**2 + 1e-4) if key == "var" else STD + 1e-4
    home = actor.act("elu", "identity", (actor.states - MEAN) / std)
    np.testing.assert_allclose(acts(tmp_path / "p", actor.states), home, atol=1e-4, rtol=1e-5)
    import_policy(tmp_path / "a", tmp_path / "q", settings={**OUT, "normaliser": "none"})
    np.testing.assert_allclose(acts(tmp_path / "q", actor.states), actor.act("elu", "identity"), atol=1e-4)


def test_of_batches(tmp_path, actor):
    """BatchNorm has the same words in its names and is no normaliser of observations."""
    for number in (0, 2):
        names = {0: ("1", "3"), 2: ("0", "4")}[number]
        batch = {f"{number}.running_mean": MEAN, f"{number}.running_var": STD}
        save_file(layers(actor, *names) | batch, tmp_path / "a")
        for stated in ({}, {"normaliser": "none"}):
            with pytest.raises(ConfigError, match=rf"{number}\.running_mean, {number}\.running_var would be lost"):
                import_policy(tmp_path / "a", tmp_path / "p", settings={**OUT, **stated})


def test_cleanrl_keeps_none_and_says_so(tmp_path, net, actor, acts):
    tensors = layers(actor, "actor_mean.0", "actor_mean.2") | critic(net, "critic.0", "critic.2")
    (tmp_path / "a").write_bytes(forge.state_dict(tensors | {"actor_logstd": np.zeros((1, 2), np.float32)}))
    with pytest.raises(ConfigError, match=r"NormalizeObservation.*--set normaliser=none"):
        import_policy(tmp_path / "a", tmp_path / "p")
    report = import_policy(tmp_path / "a", tmp_path / "p", settings={"normaliser": "none"})
    assert any("actions of −1 … 1 are assumed" in note for note in report.notes)
    np.testing.assert_allclose(acts(tmp_path / "p", actor.states), actor.act("tanh", "clip"), atol=1e-5)
    numbers = {"normaliser.mean": MEAN.tolist(), "normaliser.var": (STD**2).tolist(), "normaliser.clip": 10.0}
    import_policy(tmp_path / "a", tmp_path / "q", settings=numbers)
    seen = np.clip((actor.states - MEAN) / STD, -10, 10)
    np.testing.assert_allclose(acts(tmp_path / "q", actor.states), actor.act("tanh", "clip", seen), atol=1e-5)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"mean": MEAN, "var": -(STD**2)}, "variances below 0"),
        ({"mean": MEAN, "var": STD * [1, 1, -1, 1, 1]}, "variances below 0"),
        ({"mean": MEAN, "var": np.full(5, np.nan)}, "finite means"),
        ({"mean": np.full(5, np.nan), "std": STD}, "finite means"),
        ({"mean": MEAN, "std": -STD}, "positive standard deviations"),
        ({"mean": MEAN, "std": STD * [1, 0, 1, 1, 1]}, "positive standard deviations"),
        ({"mean": MEAN, "std": np.full(5, np.inf)}, "finite, positive"),
        ({"mean": MEAN, "std": STD[:4]}, r"has \[4, 5\] entries; the policy observes 5"),
    ],
)
@pytest.mark.parametrize("fold", [False, True])
def test_impossible_numbers_are_refused(tmp_path, actor, numbers, message, fold):
    save_file(layers(actor, "0", "2") | {f"obs.{key}": np.asarray(one) for key, one in numbers.items()}, tmp_path / "a")
    tensors = {f"normaliser/{key}": f"obs.{key}" for key in numbers}
    with pytest.raises(ConfigError, match=message):
        import_policy(tmp_path / "a", tmp_path / "p", settings={**OUT, "tensors": tensors, "normaliser.fold": fold})
    for clip in (0.0, -1.0):
        stated = {**OUT, "normaliser.mean": [0.0] * 5, "normaliser.std": [1.0] * 5, "normaliser.clip": clip}
        with pytest.raises(ConfigError, match=r"normaliser\.clip is .*above 0"):
            import_policy(tmp_path / "a", tmp_path / "p", settings=stated)
