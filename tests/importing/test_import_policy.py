"""An imported policy acts as it did at home; what cannot be one is refused with a sentence."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax.serialization import msgpack_serialize, to_bytes
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

import epvf_data
from epvf_data.collectors.collect import collect
from epvf_data.collectors.lot import lot_of
from epvf_data.collectors.setting import collect_config
from epvf_data.errors import ArchitectureMismatchError, ConfigError, DatasetError
from epvf_data.importing.run import import_policy
from epvf_data.importing.settings import ImportSettings, NormaliserSettings, Place, build
from epvf_data.policies.files import load_policy
from epvf_data.policies.spec import PolicySpec

GOLDEN = Path(__file__).parent / "golden"
TANH = {"activation": "tanh", "output": "tanh"}
SIZES = st.lists(st.integers(1, 9), min_size=2, max_size=5)


class Mlp(nn.Module):
    """As people write them."""

    widths: tuple[int, ...]
    activation: str = "swish"
    bias: bool = True

    @nn.compact
    def __call__(self, x):
        for width in self.widths[:-1]:
            x = getattr(nn, self.activation)(nn.Dense(width, use_bias=self.bias)(x))
        return jnp.tanh(nn.Dense(self.widths[-1], use_bias=self.bias)(x))


class TestFlax:
    @settings(max_examples=3)
    @given(sizes=SIZES, bias=st.booleans(), seed=st.integers(0, 2**31))
    def test_msgpack_of_flax(self, tmp_path_factory, acts, sizes, bias, seed):
        folder = tmp_path_factory.mktemp("flax")
        module = Mlp(tuple(sizes[1:]), bias=bias)
        params = module.init(jax.random.key(seed), jnp.zeros(sizes[0]))
        (folder / "a.msgpack").write_bytes(to_bytes(params))
        stated = {"activation": "silu", "output": "tanh", "hidden": sizes[1:-1], "bias": bias}
        report = import_policy(folder / "a.msgpack", folder / "p", settings=stated)
        assert report.sizes == tuple(sizes)
        assert (report.format, report.activation) == ("msgpack", "swish")
        states = 3 * jax.random.normal(jax.random.key(1), (16, sizes[0]))
        np.testing.assert_allclose(acts(folder / "p", states), module.apply(params, states), atol=1e-5)

    def test_orbax_of_flax(self, tmp_path, acts, capfd):
        module = Mlp((7, 5, 2), "elu")
        params = module.init(jax.random.key(0), jnp.zeros(3))
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(tmp_path / "run" / "7" / "default", params)
        for number, folder in enumerate(("run/7/default", "run")):  # a manager's folder with one checkpoint
            report = import_policy(
                tmp_path / folder, tmp_path / f"{number}", settings={"activation": "elu", "output": "tanh"}
            )
            assert (report.sizes, report.format) == ((3, 7, 5, 2), "orbax")
            states = 3 * jax.random.normal(jax.random.key(1), (64, 3))
            actions = acts(tmp_path / f"{number}", states)
            np.testing.assert_allclose(actions, module.apply(params, states), atol=1e-5)
        manifest = tmp_path / "run" / "7" / "default" / "manifest.ocdbt"
        manifest.write_bytes(manifest.read_bytes()[:-5])
        capfd.readouterr()
        with pytest.raises(ConfigError, match="a damaged checkpoint of orbax") as caught:
            import_policy(tmp_path / "run", tmp_path / "q", settings=TANH)
        assert "\n" not in str(caught.value)
        assert capfd.readouterr() == ("", "")

    def test_a_train_state_with_its_optimizer(self, tmp_path, net, acts):
        made = net((4, 8, 2))
        layers = {f"Dense_{i}": {"kernel": made.kernels[i], "bias": made.biases[i]} for i in range(2)}
        state = {"step": 3, "params": {"params": layers}, "opt_state": {"0": {"mu": {"params": layers}}}}
        (tmp_path / "a").write_bytes(msgpack_serialize(state))
        import_policy(tmp_path / "a", tmp_path / "p", settings=TANH)
        np.testing.assert_allclose(acts(tmp_path / "p", made.states), made.act("tanh", "tanh"), atol=1e-5)

    def test_two_networks_in_one_file_need_a_prefix(self, tmp_path, net, acts):
        actor, critic = net((4, 8, 2)), net((4, 8, 1), seed=1)
        tensors = actor.named("actor/Dense_0/", "actor/Dense_1/") | critic.named("critic/Dense_0/", "critic/Dense_1/")
        save_file(tensors, tmp_path / "both")
        with pytest.raises(ConfigError, match=r"several stacks of layers \(actor/Dense_, critic/Dense_\)"):
            import_policy(tmp_path / "both", tmp_path / "p", settings=TANH)
        import_policy(tmp_path / "both", tmp_path / "p", settings={**TANH, "prefix": "actor/"})
        np.testing.assert_allclose(acts(tmp_path / "p", actor.states), actor.act("tanh", "tanh"), atol=1e-5)
        import_policy(tmp_path / "both", tmp_path / "q", settings={**TANH, "ignore": ["critic/*"]})
        np.testing.assert_array_equal(load_policy(tmp_path / "p")[1], load_policy(tmp_path / "q")[1])


class TestStableBaselines3:
    """golden/*.zip were saved by stable-baselines3 2.9, less their pickles; actions.json is what `predict` said."""

    @pytest.mark.parametrize(
        ("name", "activation", "output"),
        [("ppo", "tanh", "clip"), ("ppo-wide", "elu", "clip"), ("sac", "relu", "tanh"), ("td3", "relu", "tanh")],
    )
    def test_acts_as_at_home(self, tmp_path, acts, name, activation, output):
        known = json.loads((GOLDEN / "actions.json").read_text())
        report = import_policy(GOLDEN / f"{name}.zip", tmp_path / "p")
        assert (report.format, report.activation, report.output) == ("sb3", activation, output)
        assert report.layout.startswith("stable-baselines3")
        assert not any("assumed" in note for note in report.notes)
        home = np.array(known[name]) / (0.4 if name == "ppo-wide" else 1.0)  # trained for actions of ±0.4
        assert any("stand for -0.4 … 0.4" in note for note in report.notes) == (name == "ppo-wide")
        assert any("at its mean" in note for note in report.notes) == (name != "td3")
        np.testing.assert_allclose(acts(tmp_path / "p", known["observations"]), home, atol=1e-5)

    def test_the_state_dict_alone_assumes_the_default_activation_and_says_so(self, tmp_path, net, acts):
        made = net((5, 6, 4, 2))
        names = ("mlp_extractor.policy_net.0.", "mlp_extractor.policy_net.2.", "action_net.")
        value = net((5, 6, 1)).named("mlp_extractor.value_net.0.", "value_net.", kernel="weight", turned=True)
        tensors = made.named(*names, kernel="weight", turned=True) | value | {"log_std": np.zeros(2, np.float32)}
        save_file(tensors, tmp_path / "a")
        report = import_policy(tmp_path / "a", tmp_path / "p")
        assert any("activation tanh is assumed" in note for note in report.notes)
        np.testing.assert_allclose(acts(tmp_path / "p", made.states), made.act("tanh", "clip"), atol=1e-5)

    def test_vecnormalize_is_stated(self, tmp_path, acts):
        known = json.loads((GOLDEN / "actions.json").read_text())
        mean, var = [0.1, -2.0, 0.0, 3.0, 0.5], [1.0, 4.0, 0.01, 2.0, 9.0]
        (tmp_path / "spec.toml").write_text(f"[normaliser]\nmean = {mean}\nvar = {var}\nepsilon = 1e-8\nclip = 10.0\n")
        report = import_policy(GOLDEN / "ppo.zip", tmp_path / "p", spec=tmp_path / "spec.toml")
        assert report.normaliser
        assert not any("VecNormalize" in note for note in report.notes)
        seen = np.array(known["observations"]) * np.sqrt(np.array(var) + 1e-8) + mean
        np.testing.assert_allclose(acts(tmp_path / "p", seen), known["ppo"], atol=1e-5)
        with pytest.raises(ConfigError, match="clips cannot be folded"):
            import_policy(
                GOLDEN / "ppo.zip", tmp_path / "q", spec=tmp_path / "spec.toml", settings={"normaliser.fold": True}
            )

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            (["q_net.q_net.0.weight"], "DQN"),
            (["action_net.weight"], "no Gaussian head"),
            (["actor.latent_pi.0.weight", "actor.mu.0.weight"], "use_sde"),
        ],
    )
    def test_other_heads(self, tmp_path, names, message):
        save_file({name: np.zeros((2, 2), np.float32) for name in names}, tmp_path / "a")
        with pytest.raises(ConfigError, match=message):
            import_policy(tmp_path / "a", tmp_path / "p")


def brax(net, value=True, key=None):
    """(tree as brax saves it, mean, std); a tuple is a dictionary of numbers in flax's format."""
    made = net((4, 8, 6, 4))
    draw = np.random.default_rng(3)
    mean = draw.normal(size=4).astype(np.float32)
    std = draw.uniform(0.2, 3, 4).astype(np.float32)
    layers = {f"hidden_{i}": {"kernel": k, "bias": made.biases[i]} for i, k in enumerate(made.kernels)}
    at = (lambda x: x) if key is None else (lambda x: {key: x, "privileged": np.zeros(9, np.float32)})
    count = {"hi": np.uint32(0), "lo": np.uint32(9)}
    normaliser = {"count": count, "mean": at(mean), "std": at(std), "summed_variance": at(std)}
    tree = {"0": normaliser, "1": {"params": layers}}
    if value:
        tree["2"] = {"params": {"hidden_0": {"kernel": np.ones((4, 1), np.float32), "bias": np.ones(1, np.float32)}}}
    return made, tree, mean, std


class TestBrax:
    """Trees of brax's shape; test_brax.py compares with brax itself where it is installed."""

    @pytest.mark.parametrize(("value", "activation"), [(True, "swish"), (False, "relu")])
    @pytest.mark.parametrize("fold", [False, True])
    def test_the_normaliser_comes_along_and_widths_stay_behind(self, tmp_path, net, acts, value, activation, fold):
        made, tree, mean, std = brax(net, value)
        (tmp_path / "a").write_bytes(msgpack_serialize(tree))
        report = import_policy(tmp_path / "a", tmp_path / "p", settings={"normaliser.fold": fold})
        assert report.sizes == (4, 8, 6, 2)
        assert report.normaliser == (not fold)
        assert any(f"activation {activation} is assumed" in note for note in report.notes)
        states = mean + 2 * std * np.random.default_rng(0).normal(size=(64, 4))
        expected = made.act(activation, "identity", (states.astype(np.float32) - mean) / std)
        np.testing.assert_allclose(acts(tmp_path / "p", states), np.tanh(expected[:, :2]), atol=1e-5)

    def test_observations_that_are_dictionaries(self, tmp_path, net, acts):
        made, tree, mean, std = brax(net, key="state")
        (tmp_path / "a").write_bytes(msgpack_serialize(tree))
        import_policy(tmp_path / "a", tmp_path / "p")
        expected = made.act("swish", "identity", (made.states - mean) / std)
        np.testing.assert_allclose(acts(tmp_path / "p", made.states), np.tanh(expected[:, :2]), atol=1e-5)

    @pytest.mark.parametrize("normalise", [True, pytest.param(False, marks=pytest.mark.soak)])
    def test_orbax_with_braxs_description(self, tmp_path, net, acts, normalise):
        made, tree, mean, std = brax(net)
        ocp.PyTreeCheckpointer().save(tmp_path / "7", (tree["0"], tree["1"], tree["2"]))
        network = {"activation": "elu", "distribution_type": "tanh_normal", "policy_obs_key": "state"}
        said = {"network_factory_kwargs": network, "action_size": 2, "normalize_observations": normalise}
        (tmp_path / "7" / "ppo_network_config.json").write_text(json.dumps(said))
        report = import_policy(tmp_path / "7", tmp_path / "p")
        assert report.activation == "elu"
        assert not any("assumed" in note for note in report.notes)
        seen = (made.states - mean) / std if normalise else made.states
        expected = np.tanh(made.act("elu", "identity", seen)[:, :2])
        np.testing.assert_allclose(acts(tmp_path / "p", made.states), expected, atol=1e-5)
        network["distribution_type"] = "normal"
        (tmp_path / "7" / "ppo_network_config.json").write_text(json.dumps(said))
        with pytest.raises(ConfigError, match="only brax's tanh_normal"):
            import_policy(tmp_path / "7", tmp_path / "q")

    def test_a_fold_that_float32_cannot_hold_is_refused(self, tmp_path, net):
        _, tree, _, _ = brax(net)
        tree["0"]["mean"], tree["0"]["std"] = np.full(4, 100, np.float32), np.full(4, 1e-5, np.float32)
        (tmp_path / "a").write_bytes(msgpack_serialize(tree))
        with pytest.raises(ConfigError, match="varies too little"):
            import_policy(tmp_path / "a", tmp_path / "p", settings={"normaliser.fold": True})
        assert import_policy(tmp_path / "a", tmp_path / "p").normaliser


class TestNamedTensors:
    @settings(max_examples=8)
    @given(
        sizes=SIZES,
        seed=st.integers(0, 2**31),
        bias=st.booleans(),
        turned=st.booleans(),
        activation=st.sampled_from(["tanh", "relu", "elu", "swish", "identity"]),
        output=st.sampled_from(["tanh", "clip", "identity"]),
    )
    def test_foreign_names(self, tmp_path_factory, net, acts, sizes, seed, bias, turned, activation, output):
        folder, made = tmp_path_factory.mktemp("named"), net(sizes, seed, bias)
        layers = [f"pi.{'abcdefg'[layer]}." for layer in range(len(sizes) - 1)]
        save_file({**made.named(*layers, kernel="w", turned=turned), "vf": np.ones(3, np.float32)}, folder / "a")
        lines = [f'activation = "{activation}"', f'output = "{output}"', 'ignore = ["v*"]', "[tensors]"]
        for layer, name in enumerate(layers):
            lines.append(f'"layer_{layer}/kernel" = {{ name = "{name}w", transpose = {str(turned).lower()} }}')
            lines += [f'"layer_{layer}/bias" = "{name}bias"'] * bias
        (folder / "spec.toml").write_text("\n".join(lines))
        report = import_policy(folder / "a", folder / "p", spec=folder / "spec.toml")
        assert report.sizes == tuple(sizes)
        assert load_policy(folder / "p")[0].bias == bias
        np.testing.assert_allclose(acts(folder / "p", made.states), made.act(activation, output), atol=1e-5, rtol=1e-5)

    def test_a_normaliser_among_the_tensors(self, tmp_path, net, acts):
        made = net((3, 4, 1))
        mean, var = np.array([1, 2, 3], np.float32), np.array([4, 1, 0.25], np.float32)
        save_file(made.named("layers/0/", "layers/1/") | {"obs.mean": mean, "obs.var": var}, tmp_path / "a")
        tensors = {"normaliser/mean": "obs.mean", "normaliser/var": "obs.var"}
        stated = {**TANH, "tensors": tensors, "normaliser.clip": 0.7}
        import_policy(tmp_path / "a", tmp_path / "p", settings=stated)
        seen = np.clip((made.states - mean) / np.sqrt(var), -0.7, 0.7)
        np.testing.assert_allclose(acts(tmp_path / "p", made.states), made.act("tanh", "tanh", seen), atol=1e-5)

    def test_actions_of_another_range(self, tmp_path, net, acts):
        made = net((3, 4, 2))
        save_file(made.named("layers/0/", "layers/1/"), tmp_path / "a")
        stated = {"activation": "tanh", "output": "clip", "action_low": [-0.4, 0.0], "action_high": [0.4, 2.0]}
        import_policy(tmp_path / "a", tmp_path / "p", settings=stated)
        expected = np.clip((made.act("tanh", "identity") - [0, 1]) / [0.4, 1], -1, 1)
        np.testing.assert_allclose(acts(tmp_path / "p", made.states), expected, atol=1e-5)


def test_what_a_policy_here_cannot_do_is_refused(tmp_path, net):
    made = net((4, 8, 2))
    plain = made.named("Dense_0/", "Dense_1/")
    ones = np.ones(8, np.float32)

    def refused(message, held, kind=ConfigError, **stated):
        save_file(held, tmp_path / "a")
        with pytest.raises(kind, match=message) as caught:
            import_policy(tmp_path / "a", tmp_path / "p", settings={**TANH, **stated})
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "p").exists()

    norm = {**plain, "LayerNorm_0/scale": ones, "LayerNorm_0/bias": ones}
    refused("LayerNorm_0/bias, LayerNorm_0/scale would be lost", norm)
    refused("Conv_0/kernel would be lost", {**plain, "Conv_0/kernel": np.ones((3, 3, 1, 2), np.float32)})
    refused("2 parameters of the policy are not finite", {**plain, "Dense_1/bias": np.array([np.nan, np.inf])})
    refused("not finite", {**plain, "Dense_1/bias": np.full(2, 1e300)})
    swapped = {**plain, "Dense_1/kernel": made.kernels[1].T.copy()}
    refused("takes 2 numbers, but the layer before it gives 8", swapped, ArchitectureMismatchError)
    short = {**plain, "Dense_0/bias": ones[:3]}
    refused(r"Dense_0/kernel has a bias of the shape \[3\]", short, ArchitectureMismatchError)
    refused(r"hidden layers \[8\], and \[7\] are stated", plain, ArchitectureMismatchError, hidden=[7])
    refused("has biases, other than stated", plain, ArchitectureMismatchError, bias=False)
    refused("2 outputs and action_size is 3", plain, ArchitectureMismatchError, action_size=3)
    refused("choose one of tanh, relu", plain, activation="gelu")
    refused("no known names of layers", {"w": ones})
    refused("there is no tensor 'x'", plain, tensors={"layer_0/kernel": "x"})
    refused("count layers from 0", plain, tensors={"layer_1/kernel": "Dense_0/kernel"})
    refused("needs a layer_0/kernel", plain, tensors={"layer_0/bias": "Dense_0/bias"})
    refused("expected layer_0/kernel", plain, tensors={"kernel": "x"})
    refused("expected a name, or", plain, tensors={"layer_0/kernel": 3})
    refused("no tensor's name begins", plain, prefix="actor.")
    refused("there is no setting activatoin", plain, activatoin="tanh")
    refused("needs a mean, and either", plain, normaliser={"clip": 3.0})
    refused("4 numbers", plain, normaliser={"mean": [1.0], "std": [1.0]})
    refused("positive standard deviations", plain, normaliser={"mean": [1.0] * 4, "std": [0.0] * 4})
    refused("low below high", plain, action_low=[1.0], action_high=[-1.0])
    refused("low below high", plain, action_low=[-2.0])
    save_file(plain, tmp_path / "a")
    for lost in ("activation", "output"):
        rest = {key: value for key, value in TANH.items() if key != lost}
        with pytest.raises(ConfigError, match=f"the {lost} is not in the file; state"):
            import_policy(tmp_path / "a", tmp_path / "p", settings=rest)


def test_the_environment_must_fit(tmp_path, net):
    save_file(net((34, 16, 8)).named("0.", "1."), tmp_path / "a")
    with pytest.raises(
        ArchitectureMismatchError, match="34 observations to 8 actions; environment hopper has 11 and 3"
    ):
        import_policy(tmp_path / "a", tmp_path / "p", settings=TANH, env="hopper")
    import_policy(tmp_path / "a", tmp_path / "p", settings=TANH, env="ant")
    with pytest.raises(DatasetError, match="exists already"):
        import_policy(tmp_path / "a", tmp_path / "p", settings=TANH)
    with pytest.raises(ConfigError, match="a policy file of this package already"):
        import_policy(tmp_path / "p", tmp_path / "q")


def test_imported_policies_become_rows(in_tmp, net):
    """Whatever their architecture, also with a normaliser, without naming it to `collect`."""
    made = net((4, 5, 1))
    save_file(made.named("layers/0/", "layers/1/"), "a")
    normal = {"normaliser.mean": [0.1] * 4, "normaliser.std": [2.0] * 4}
    import_policy("a", "p.safetensors", settings={"activation": "relu", "output": "clip", **normal}, env="cartpole")
    config = collect_config("cartpole", envs=8, horizon=5, **{"perturbed.bases": ["p.safetensors"]})
    assert lot_of(config).spec == load_policy("p.safetensors")[0]
    collect(config, "rows.zarr")
    table = epvf_data.open("rows.zarr").table()
    assert table.spec == load_policy("p.safetensors")[0]
    assert load_policy("p.safetensors")[1].tolist() in table.column("params").tolist()
    stated = collect_config("cartpole", **{"perturbed.bases": ["p.safetensors"], "policy.hidden": [6]})
    with pytest.raises(ArchitectureMismatchError, match="this collection makes 4-6-1"):
        lot_of(stated)
    assert PolicySpec(4, 1) == lot_of(collect_config("cartpole")).spec


def test_the_documents_example_states_every_setting():
    page = (Path(__file__).parents[2] / "docs" / "importing.md").read_text()
    example = tomllib.loads(page.split("```toml\n")[1].split("```")[0])
    stated, places = build(example)
    assert stated.normaliser is not None
    assert places["layer_1/kernel"] == Place("pi.last.w", transpose=True)
    for kind, table in ((ImportSettings, example), (NormaliserSettings, example["normaliser"])):
        named = {field.name for field in dataclasses.fields(kind)} - {"bias", "std"}  # in comments
        assert named <= {*table}


def test_the_command_line(in_tmp, net, shell):
    save_file(net((4, 5, 2)).named("pi/0.", "pi/1.", kernel="weight", turned=True), "a.safetensors")
    run = lambda *words: shell("import-policy", "a.safetensors", *words, code=None)  # noqa: E731
    done = run()
    assert done.returncode == 2
    assert done.stderr.startswith("error: PyTorch layers 'pi/': the activation is not in the file; state")
    words = ("--set", "activation=relu", "--set", "output=tanh")
    done = run(*words)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "a-policy.safetensors: 4-5-2 (relu, tanh), 37 parameters, from PyTorch layers 'pi/'\n"
    done = run(*words, "--out", "b", "--json")
    assert json.loads(done.stdout)["sizes"] == [4, 5, 2]
    assert run(*words).returncode == 1
