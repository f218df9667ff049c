"""An import acts as the original or is refused; whoever follows the hint of a refusal gets a policy that acts so."""

from __future__ import annotations

import base64
import json
import pickle
import re
import shlex
import zipfile

import gymnasium
import numpy as np
import pytest
from flax.serialization import msgpack_serialize
from importing import forge_torch as forge
from safetensors.numpy import save_file

from epvf_data.errors import ConfigError, EpvfError
from epvf_data.importing.run import import_policy

TANH = {"activation": "tanh", "output": "tanh"}
CLIP = {"activation": "tanh", "output": "clip"}


@pytest.fixture
def actor(net):
    """5 observations, 2 actions."""
    return net((5, 8, 6, 2))


def torch_names(made, *names):
    return made.named(*names, kernel="weight", turned=True)


def followed(file, out, stated):
    """Imports, doing what error sentences say with --set until there is none; gives the report and the sentences."""
    said = []
    for _ in range(5):
        try:
            return import_policy(file, out, settings=stated), said
        except EpvfError as error:
            said.append(str(error))
            hint = re.search(r"--set '?(\w+)=(?:'([^']*)'|(\S+?))[.,;]?(?: |$)", said[-1])
            assert hint, said[-1]
            assert stated.get(hint[1]) is None, said
            value = hint[3] or hint[2]
            stated = {**stated, hint[1]: {"true": True, "false": False}.get(value, value)}
    raise AssertionError(said)


def same(acts, path, states, expected):
    np.testing.assert_allclose(acts(path, states), expected, atol=1e-5)


class Sb3:
    """Writes models as Stable-Baselines3's `save` does, of Gymnasium's spaces."""

    def __init__(self, folder, actor):
        value = np.ones((1, 6), np.float32)
        names = ("mlp_extractor.policy_net.0.", "mlp_extractor.policy_net.2.", "action_net.")
        self.tensors = torch_names(actor, *names) | {"value_net.weight": value, "log_std": np.zeros(2, np.float32)}
        self.tensors["mlp_extractor.value_net.0.weight"] = np.ones((6, 5), np.float32)
        self.folder = folder

    @staticmethod
    def space(space, **changes):
        """What `data_to_json` makes of a space."""
        said = {":type:": str(type(space)), ":serialized:": base64.b64encode(pickle.dumps(space)).decode()}
        for key, item in vars(space).items():
            try:
                json.dumps(item)
            except TypeError:
                item = str(item)
            said[key] = item
        return {key: item for key, item in {**said, **changes}.items() if item is not ...}

    def save(self, actions, observations=None, **said):
        data = {"policy_kwargs": {}, "use_sde": False, "action_space": actions, **said}
        if observations is not None:
            data["observation_space"] = self.space(observations)
        with zipfile.ZipFile(self.folder / "m.zip", "w") as archive:
            archive.writestr("data", json.dumps(data))
            archive.writestr("policy.pth", forge.state_dict(self.tensors))
        return self.folder / "m.zip"


@pytest.fixture
def sb3(tmp_path, actor):
    return Sb3(tmp_path, actor)


def box(low, high, shape=(2,), dtype=np.float32):
    low, high = (np.broadcast_to(bound, shape).astype(dtype) for bound in (low, high))
    return gymnasium.spaces.Box(low, high, dtype=dtype)


class TestBoundsOfStableBaselines3:
    @pytest.mark.parametrize(
        ("space", "changes"),
        [
            (box([-0.4, 0], [0.4, 2]), {}),
            (box([-0.4, 0], [0.4, 2]), {"low_repr": "[-0.4  0. ]", "high_repr": "[0.4 2. ]"}),
            (box([[-0.4, 0]], [[0.4, 2]], (1, 2)), {}),  # reshaped
            (box([-0.4, 0], [0.4, 2]), {"_shape": ..., "shape": [2]}),  # gym before 0.21
            (box([-0.4, 0], [0.4, 2]), {":serialized:": ..., ":type:": "<class 'gym.spaces.box.Box'>"}),
            (box([-0.4, 0], [0.4, 2], dtype=np.float64), {}),
            (box([-1 / 3, -1e-7], [1 / 3, 1e3]), {}),
        ],
    )
    def test_spellings_that_are_read(self, tmp_path, actor, acts, sb3, space, changes):
        import_policy(sb3.save(sb3.space(space, **changes)), tmp_path / "p")
        low, high = space.low.ravel().astype(float), space.high.ravel().astype(float)
        home = np.clip(actor.act("tanh", "identity"), low, high)
        same(acts, tmp_path / "p", actor.states, 2 * (home - low) / (high - low) - 1)

    @pytest.mark.parametrize("bound", ["-2.0", "[-2. -2.]"])
    def test_one_number_for_all_is_exact_where_the_vector_was_shortened(self, tmp_path, actor, acts, sb3, bound):
        space = sb3.space(box(-2, 2), low="[-2. ... -2.]", high="[2. ... 2.]", low_repr=bound, high_repr="2.0")
        if bound.startswith("["):
            with pytest.raises(ConfigError, match=r"shortened, rounded or missing"):
                import_policy(sb3.save(space), tmp_path / "p")
        else:
            import_policy(sb3.save(space), tmp_path / "p")
            same(acts, tmp_path / "p", actor.states, np.clip(actor.act("tanh", "identity") / 2, -1, 1))

    @pytest.mark.parametrize(
        ("space", "changes", "message"),
        [
            (box(-1 / 3, 1 / 3), {"low": "[-0.33 -0.33]", "high": "[0.33 0.33]"}, "rounded"),
            (box(-2, 2), {"low": ...}, "missing"),
            (box(-2, 2), {"_shape": ...}, "missing"),
            (box(-2, 2), {"_shape": [3]}, "missing"),
            (box(-2, 2), {"low": "[two -2.]"}, "missing"),
            (box(-2, 2), {":type:": ...}, "missing"),
            (box([-2, -np.inf], [2, np.inf]), {}, "infinite in part"),
            (box(-np.inf, 2), {}, "infinite in part"),
        ],
    )
    def test_what_cannot_be_known_must_be_stated(self, tmp_path, actor, acts, sb3, space, changes, message):
        file = sb3.save(sb3.space(space, **changes))
        with pytest.raises(ConfigError, match=message) as caught:
            import_policy(file, tmp_path / "p")
        keys = re.findall(r"--set (\w+)=\[…\]", str(caught.value))
        import_policy(file, tmp_path / "p", settings=dict(zip(keys, ([-3], [5]), strict=True)))
        same(acts, tmp_path / "p", actor.states, np.clip((actor.act("tanh", "identity") - 1) / 4, -1, 1))
        with pytest.raises(ConfigError, match=message):
            import_policy(file, tmp_path / "q", settings={"activation": "tanh"})

    def test_actions_without_bounds_stay_as_they_are(self, tmp_path, actor, acts, sb3):
        report = import_policy(sb3.save(sb3.space(box(-np.inf, np.inf))), tmp_path / "p")
        assert report.output == "identity"
        assert any("no bounds" in note for note in report.notes)
        same(acts, tmp_path / "p", actor.states, actor.act("tanh", "identity"))

    def test_squashed_outputs(self, tmp_path, actor, acts, sb3):
        options = {"policy_kwargs": {"squash_output": True}}
        import_policy(sb3.save(sb3.space(box(-2, 2)), use_sde=True, **options), tmp_path / "p")
        same(acts, tmp_path / "p", actor.states, actor.act("tanh", "tanh"))
        with pytest.raises(ConfigError, match=r"squash_output without use_sde.*--set output=tanh, clip or identity"):
            import_policy(sb3.save(sb3.space(box(-2, 2)), **options), tmp_path / "q")
        import_policy(sb3.save(sb3.space(box(-2, 2)), **options), tmp_path / "q", settings={"output": "clip"})
        same(acts, tmp_path / "q", actor.states, np.clip(actor.act("tanh", "identity") / 2, -1, 1))


class TestWhatElseStableBaselines3Does:
    @pytest.mark.parametrize(
        ("space", "message"),
        [
            (gymnasium.spaces.Dict({"a": box(-1, 1), "b": box(-1, 1, (3,))}), "observes a Dict"),
            (gymnasium.spaces.Discrete(5), "observes a Discrete"),
            (gymnasium.spaces.Box(0, 255, (5, 1, 1), np.uint8), "observes images"),
        ],
    )
    def test_observations_that_it_makes_others_of(self, tmp_path, actor, acts, sb3, space, message):
        file = sb3.save(sb3.space(box(-1, 1)), space)
        with pytest.raises(ConfigError, match=f"{message}.* unpack policy.pth from the archive"):
            import_policy(file, tmp_path / "p")
        (tmp_path / "policy.pth").write_bytes(zipfile.ZipFile(file).read("policy.pth"))
        report = import_policy(tmp_path / "policy.pth", tmp_path / "p")
        assert any("actions of −1 … 1 are assumed" in note for note in report.notes)
        same(acts, tmp_path / "p", actor.states, actor.act("tanh", "clip"))

    def test_plain_observations_of_any_shape(self, tmp_path, actor, acts, sb3):
        import_policy(sb3.save(sb3.space(box(-1, 1)), box(-9, 9, (5, 1))), tmp_path / "p")
        same(acts, tmp_path / "p", actor.states, actor.act("tanh", "clip"))

    @pytest.mark.parametrize(
        "said",
        [
            {"policy_class": {":type:": "<class 'abc.ABCMeta'>", "__module__": "my.policies"}},
            {"policy_kwargs": {"features_extractor_class": "<class 'my.policies.Scaled'>"}},
        ],
    )
    def test_classes_of_other_people(self, tmp_path, actor, acts, sb3, said):
        file = sb3.save(sb3.space(box(-1, 1)), **said)
        with pytest.raises(ConfigError, match=r"of the class .*my\.policies.*under \[tensors\]"):
            import_policy(file, tmp_path / "p")
        layers = ("mlp_extractor.policy_net.0", "mlp_extractor.policy_net.2", "action_net")
        tensors = {f"layer_{i}/kernel": f"{name}.weight" for i, name in enumerate(layers)}
        tensors |= {f"layer_{i}/bias": f"{name}.bias" for i, name in enumerate(layers)}
        import_policy(file, tmp_path / "p", settings={"tensors": tensors, **CLIP})
        same(acts, tmp_path / "p", actor.states, actor.act("tanh", "clip"))
        own = {"policy_class": {":type:": "<class 'abc.ABCMeta'>", "__module__": "stable_baselines3.common.policies"}}
        import_policy(sb3.save(sb3.space(box(-1, 1)), **own), tmp_path / "q")

    @pytest.mark.parametrize("place", ["vec_normalize.pkl", "m_vecnormalize_1000_steps.pkl", "Ant-v5/vecnormalize.pkl"])
    def test_a_normaliser_in_a_pickle_beside(self, tmp_path, actor, acts, sb3, place):
        file = sb3.save(sb3.space(box(-1, 1)))
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_bytes(b"\x80\x05")
        with pytest.raises(ConfigError, match=rf"{(tmp_path / place).name} lies beside m.zip.*--set normaliser=none"):
            import_policy(file, tmp_path / "p")
        import_policy(file, tmp_path / "p", settings={"normaliser": "none"})
        same(acts, tmp_path / "p", actor.states, actor.act("tanh", "clip"))
        numbers = {"normaliser.mean": [1.0] * 5, "normaliser.var": [4.0] * 5, "normaliser.clip": 10.0}
        import_policy(file, tmp_path / "q", settings=numbers)
        same(acts, tmp_path / "q", actor.states, actor.act("tanh", "clip", np.clip((actor.states - 1) / 2, -10, 10)))

    def test_layers_that_policy_and_critic_shared_until_1_7(self, tmp_path, actor, acts):
        names = ("mlp_extractor.shared_net.0.", "mlp_extractor.policy_net.0.", "action_net.")
        save_file(torch_names(actor, *names) | {"log_std": np.zeros(2, np.float32)}, tmp_path / "a")
        import_policy(tmp_path / "a", tmp_path / "p")
        same(acts, tmp_path / "p", actor.states, actor.act("tanh", "clip"))


@pytest.mark.parametrize("around", ["{}", "_orig_mod.{}", "module.{}", "module._orig_mod.{}", "model_state_dict/{}"])
@pytest.mark.parametrize("stated", [{}, {"prefix": "mlp_extractor.policy_net.", **CLIP}])
def test_wrapped_modules_keep_their_heads(tmp_path, actor, acts, sb3, around, stated):
    inside = "{}" if around == "{}" else around
    save_file({inside.format(name): one for name, one in sb3.tensors.items()}, tmp_path / "a")
    if stated:
        stated = {**stated, "prefix": inside.format(stated["prefix"])}
    report, said = followed(tmp_path / "a", tmp_path / "p", stated)
    assert report.sizes == (5, 8, 6, 2)
    assert len(said) == bool(stated)  # the head lies outside of the stated prefix
    same(acts, tmp_path / "p", actor.states, actor.act("tanh", "clip"))


def test_a_compiled_network_inside_of_another(tmp_path, actor, acts, net):
    critic = torch_names(net((5, 8, 1)), "critic._orig_mod.0.", "critic._orig_mod.2.")
    named = torch_names(actor, "actor._orig_mod.0.", "actor._orig_mod.2.", "actor._orig_mod.4.")
    save_file(named | critic, tmp_path / "a")
    _, said = followed(tmp_path / "a", tmp_path / "p", TANH)
    assert said[0].startswith("there are several stacks of layers (actor., critic.)")
    same(acts, tmp_path / "p", actor.states, actor.act("tanh", "tanh"))
    import_policy(tmp_path / "a", tmp_path / "q", settings={**TANH, "prefix": "actor._orig_mod."})
    same(acts, tmp_path / "q", actor.states, actor.act("tanh", "tanh"))
    save_file(named | {name.replace("_orig_mod.", ""): one for name, one in named.items()}, tmp_path / "a")
    with pytest.raises(ConfigError, match="twice, compiled and plain"):
        import_policy(tmp_path / "a", tmp_path / "r", settings=TANH)


class TestHints:
    """What a sentence says is done; the policy then acts as the original."""

    @pytest.mark.parametrize(
        ("names", "others"),
        [
            (("critics.", "pi."), {}),
            (("a.critic.", "a.policy."), {}),
            (("net.qf1.", "net.actor.layers."), {"net.actor.log_std": np.zeros(2, np.float32)}),
            (("value.", "z/actor_body."), {"log_alpha": np.zeros(1, np.float32)}),
        ],
    )
    def test_prefix(self, tmp_path, actor, acts, net, names, others):
        first, second = ([f"{name}{layer}." for layer in (0, 2, 4)] for name in names)
        critic = net((5, 8, 8, 1), seed=1)
        save_file(torch_names(critic, *first) | torch_names(actor, *second) | others, tmp_path / "a")
        _, said = followed(tmp_path / "a", tmp_path / "p", TANH)
        assert len(said) == 1
        same(acts, tmp_path / "p", actor.states, actor.act("tanh", "tanh"))

    def test_prefix_inside_of_a_prefix(self, tmp_path, actor, acts, net):
        critic = torch_names(net((5, 8, 1), seed=1), "agent.critic.0.", "agent.critic.2.")
        named = torch_names(actor, *(f"agent.net.{layer}." for layer in (0, 2, 4)))
        save_file(critic | named, tmp_path / "a")
        with pytest.raises(ConfigError, match=r"--set prefix='agent\.net\.', or its tensors"):
            import_policy(tmp_path / "a", tmp_path / "p", settings={**TANH, "prefix": "agent."})

    @pytest.mark.parametrize("tool", ["cleanrl-td3", "cleanrl-sac", "rl_games", "skrl"])
    def test_head(self, tmp_path, actor, acts, net, tool):
        wide = torch_names(net((6, 2), seed=2), {"cleanrl-sac": "fc_logstd."}.get(tool, "value_layer."))
        names = {
            "cleanrl-td3": ("fc1.", "fc2.", "fc_mu."),
            "cleanrl-sac": ("fc1.", "fc2.", "fc_mean."),
            "rl_games": ("model/a2c_network.actor_mlp.0.", "model/a2c_network.actor_mlp.2.", "model/a2c_network.mu."),
            "skrl": ("policy/net_container.0.", "policy/net_container.2.", "policy/policy_layer."),
        }[tool]
        extra = {"model/a2c_network.sigma": np.zeros(2, np.float32)} if tool == "rl_games" else wide
        save_file(torch_names(actor, *names) | extra, tmp_path / "a")
        report, said = followed(tmp_path / "a", tmp_path / "p", TANH)
        assert "would be lost: take the policy's last layer along with --set head=" in said[0]
        assert report.sizes == (5, 8, 6, 2)
        same(acts, tmp_path / "p", actor.states, actor.act("tanh", "tanh"))
        with pytest.raises(ConfigError, match=r"there is no x\.weight"):
            import_policy(tmp_path / "a", tmp_path / "q", settings={**TANH, "head": "x"})

    @pytest.mark.parametrize("turned", [True, False])
    def test_transpose(self, tmp_path, actor, acts, turned):
        names = ("0.", "1.", "2.")
        save_file(actor.named(*names, kernel="kernel" if turned else "weight", turned=turned), tmp_path / "a")
        _, said = followed(tmp_path / "a", tmp_path / "p", TANH)
        assert said[0].endswith(f"they fit the other way round: --set transpose={str(turned).lower()}.")
        same(acts, tmp_path / "p", actor.states, actor.act("tanh", "tanh"))

    def test_output_and_activation(self, tmp_path, actor, acts):
        save_file(torch_names(actor, "0.", "2.", "4."), tmp_path / "a")
        with pytest.raises(ConfigError) as caught:
            import_policy(tmp_path / "a", tmp_path / "p")
        assert re.findall(r'(\w+) = "(\w+)"', str(caught.value)) == [("activation", "tanh"), ("output", "clip")]
        import_policy(tmp_path / "a", tmp_path / "p", settings=CLIP)
        same(acts, tmp_path / "p", actor.states, actor.act("tanh", "clip"))

    def test_the_rest_of_named_layers_is_ignored_as_the_sentence_says(self, tmp_path, actor, acts):
        gate = f"x.gate{'_' * 90}"  # in the list it is cut, in what is to be typed it is not
        extra = {gate: np.ones((2, 2), np.float32), "x.scale": np.ones(5, np.float32)}
        save_file(torch_names(actor, "x.a.", "x.b.", "x.c.") | extra, tmp_path / "a")
        tensors = {f"layer_{i}/kernel": f"x.{name}.weight" for i, name in enumerate("abc")}
        tensors |= {f"layer_{i}/bias": f"x.{name}.bias" for i, name in enumerate("abc")}
        stated = {**TANH, "tensors": tensors}
        with pytest.raises(ConfigError, match=r"x\.gate_+…, x\.scale would be lost") as caught:
            import_policy(tmp_path / "a", tmp_path / "p", settings=stated)
        patterns = json.loads(re.search(r"ignore=(\[.*\])'", str(caught.value))[1])
        import_policy(tmp_path / "a", tmp_path / "p", settings={**stated, "ignore": patterns})
        same(acts, tmp_path / "p", actor.states, actor.act("tanh", "tanh"))

    def test_one_of_several_checkpoints(self, tmp_path, actor, acts):
        import orbax.checkpoint as ocp

        layers = {f"Dense_{i}": {"kernel": k, "bias": actor.biases[i]} for i, k in enumerate(actor.kernels)}
        with ocp.StandardCheckpointer() as checkpointer:
            for step in (100, 200):
                checkpointer.save(tmp_path / "run" / str(step) / "default", layers)
        with pytest.raises(ConfigError, match="name one of the 2 inside, such as ") as caught:
            import_policy(tmp_path / "run", tmp_path / "p", settings=TANH)
        import_policy(str(caught.value).split("such as ")[1][:-1], tmp_path / "p", settings=TANH)
        same(acts, tmp_path / "p", actor.states, actor.act("tanh", "tanh"))


class TestWhatIsLeftOut:
    """`prefix` and `ignore` take nothing away that the policy acts with."""

    def refused(self, tmp_path, tensors, message, **stated):
        save_file(tensors, tmp_path / "a")
        with pytest.raises(ConfigError, match=message) as caught:
            import_policy(tmp_path / "a", tmp_path / "p", settings={**TANH, **stated})
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "p").exists()

    def test_ignored_layers(self, tmp_path, actor, net, acts):
        ones, square = np.ones(8, np.float32), net((5, 8, 8, 2))
        norm = {"net.1.weight": ones, "net.1.bias": ones}
        named = torch_names(square, "net.0.", "net.2.", "net.4.")
        among = "ignore leaves out net.{}, which lies among the policy's layers"
        self.refused(tmp_path, named | norm, among.format("1.bias"), ignore=["net.1.*"])
        self.refused(tmp_path, named, among.format("2.bias"), ignore=["net.2.*"])
        flax = square.named("p/Dense_0/", "p/Dense_1/", "p/Dense_2/")
        among = "ignore leaves out p/{}, which lies among"
        self.refused(tmp_path, flax | {"p/LayerNorm_0/scale": ones}, among.format("LayerNorm_0/scale"), ignore=["p/L*"])
        conv = {"p/Conv_0/kernel": np.ones((3, 3, 1, 5), np.float32)}
        self.refused(tmp_path, flax | conv, among.format("Conv_0/kernel"), ignore=["*Conv*"])
        lost = r"LayerNorm_0/scale would be lost.*if it acts without them, name the policy's layers themselves"
        self.refused(tmp_path, flax | {"p/LayerNorm_0/scale": ones}, lost)
        tensors = {f"layer_{i}/{part}": f"p/Dense_{i}/{part}" for i in range(3) for part in ("kernel", "bias")}
        save_file(flax | {"p/LayerNorm_0/scale": ones}, tmp_path / "a")
        stated = {**TANH, "tensors": tensors, "ignore": ["p/LayerNorm_0/scale"]}
        import_policy(tmp_path / "a", tmp_path / "p", settings=stated)  # somebody who names all layers knows
        same(acts, tmp_path / "p", square.states, square.act("tanh", "tanh"))

    def test_networks_before_and_behind(self, tmp_path, actor, net):
        encoder = torch_names(net((9, 8, 5)), "encoder.0.", "encoder.2.")
        decoder = torch_names(net((2, 8, 3)), "tail.0.", "tail.2.")
        named = torch_names(actor, "actor.0.", "actor.2.", "actor.4.")
        for stated in ({"prefix": "actor."}, {"ignore": ["encoder.*"]}):
            message = r"encoder\.2\.weight, which is left out, gives the 5 numbers that the layers take"
            self.refused(tmp_path, named | encoder, message, **stated)
        message = r"tail\.0\.weight, which is left out, takes what they give"
        self.refused(tmp_path, named | decoder, message, prefix="actor.")
        lost = r"actor\.norms\.0\.weight would be lost"
        inner = torch_names(actor, "actor.fc.0.", "actor.fc.2.", "actor.fc.4.")
        norms = {"actor.norms.0.weight": np.ones(8, np.float32)}
        critic = torch_names(net((5, 1)), "critic.fc.0.")
        self.refused(tmp_path, inner | norms | critic, lost, prefix="actor.fc.")
        cnn = {"cnn.weight": np.ones((4, 3, 3, 3), np.float32)}
        self.refused(tmp_path, named | cnn | critic, r"cnn\.weight would be lost", prefix="actor.")

    def test_layers_that_run_on_into_a_critic(self, tmp_path, net, acts):
        """As in one flax module for both, which numbers its layers in the order of their calls."""
        actor, critic = net((2, 8, 2)), net((2, 8, 1), seed=1)
        width = {"params/log_std": np.zeros(2, np.float32)}
        both = actor.named("params/Dense_0/", "params/Dense_1/") | critic.named("params/Dense_2/", "params/Dense_3/")
        self.refused(tmp_path, both | width, "log_std has 2 numbers and the layers give 1 actions")
        import_policy(tmp_path / "a", tmp_path / "p", settings={**TANH, "ignore": ["params/Dense_[23]/*"]})
        same(acts, tmp_path / "p", actor.states, actor.act("tanh", "tanh"))
        wide = net((5, 8, 1)).named("params/Dense_2/", "params/Dense_3/")
        save_file(net((5, 8, 2)).named("params/Dense_0/", "params/Dense_1/") | wide, tmp_path / "b")
        with pytest.raises(EpvfError, match=r"takes 5 numbers, but the layer before it gives 2; if other networks are"):
            import_policy(tmp_path / "b", tmp_path / "q", settings=TANH)

    def test_scaled_actions_of_cleanrl(self, tmp_path, actor, acts):
        named = torch_names(actor, "fc1.", "fc2.", "fc_mu.")
        scale = {"action_scale": np.full((1, 2), 0.5, np.float32), "action_bias": np.full((1, 2), 1, np.float32)}
        save_file(named | scale, tmp_path / "a")
        stated = {"activation": "relu", "head": "fc_mu"}
        report = import_policy(tmp_path / "a", tmp_path / "p", settings=stated)
        assert "actions −1 … 1 stand for 0.5 … 1.5 where it was trained" in report.notes
        same(acts, tmp_path / "p", actor.states, actor.act("relu", "tanh"))
        with pytest.raises(ConfigError, match="action_scale and action_bias are of actions that tanh gives"):
            import_policy(tmp_path / "a", tmp_path / "q", settings={**stated, "output": "identity"})

    def test_layers_without_an_activation_between(self, tmp_path, actor):
        for names, number in ((("0.", "1.", "3."), 1), (("0.", "2.", "3."), 3)):
            self.refused(tmp_path, torch_names(actor, *names), rf"no activation lies before {number}\.weight")
        for number, names in enumerate((("0.", "1.", "2."), ("0.", "2.", "5."))):  # a list of layers; dropout
            save_file(torch_names(actor, *names), tmp_path / "a")
            import_policy(tmp_path / "a", tmp_path / f"{number}", settings=TANH)


def test_hints_go_through_a_shell(in_tmp, actor, acts, net, shell):
    critic = torch_names(net((5, 8, 1), seed=1), "a.critic.0.", "a.critic.2.")
    save_file(torch_names(actor, "a.pi.fc1.", "a.pi.fc2.", "a.pi.out.") | critic, "a.safetensors")
    words = ["--set", "activation=tanh", "--set", "output=tanh"]
    for hint in ("prefix", "head"):
        done = shell("import-policy", "a.safetensors", *words, code=None)
        assert done.returncode == 2
        found = re.search(rf"--set {hint}='[^']*'", done.stderr)
        assert found, done.stderr
        words += shlex.split(found[0])
    assert shell("import-policy", "a.safetensors", *words, "--out", "p", code=None).returncode == 0
    same(acts, "p", actor.states, actor.act("tanh", "tanh"))


class TestPopulations:
    def test_stacked_policies(self, tmp_path, net, acts):
        import jax

        members = [net((5, 8, 2), seed) for seed in range(3)]
        trees = [{f"Dense_{i}": {"kernel": one.kernels[i], "bias": one.biases[i]} for i in (0, 1)} for one in members]
        params = jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
        (tmp_path / "a").write_bytes(msgpack_serialize(params))
        with pytest.raises(ConfigError, match="hold 3 policies at once, stacked; save one of them: ") as caught:
            import_policy(tmp_path / "a", tmp_path / "p", settings=TANH)
        code = str(caught.value).split("save one of them: ")[1].rstrip(".")
        (tmp_path / "a").write_bytes(msgpack_serialize(eval(code, {"jax": jax, "params": params})))
        import_policy(tmp_path / "a", tmp_path / "p", settings=TANH)
        same(acts, tmp_path / "p", members[0].states, members[0].act("tanh", "tanh"))

    def test_a_list_of_policies_is_no_tuple_of_brax(self, tmp_path, net, acts):
        members = [net((5, 8, 2), seed) for seed in range(3)]
        layers = lambda one: {f"hidden_{i}": {"kernel": one.kernels[i], "bias": one.biases[i]} for i in (0, 1)}  # noqa: E731
        tree = {str(i): {"params": layers(one)} for i, one in enumerate(members)}
        (tmp_path / "a").write_bytes(msgpack_serialize(tree))
        with pytest.raises(ConfigError, match="several stacks of layers .*prefix='0/' or prefix='1/' or prefix='2/'"):
            import_policy(tmp_path / "a", tmp_path / "p", settings=TANH)
        import_policy(tmp_path / "a", tmp_path / "p", settings={**TANH, "prefix": "1/"})
        same(acts, tmp_path / "p", members[0].states, members[1].act("tanh", "tanh", members[0].states))


class TestKindsOfNumbers:
    """A weight of any kind is read exactly, or its kind is named; none is taken for a counter."""

    KINDS = ("float16", "bfloat16", "float64", ">f4", "int8", "uint16", "int64", "complex64", "bool")

    def tree(self, net, kind):
        import ml_dtypes

        made, dtype = net((5, 8, 2)), np.dtype(ml_dtypes.bfloat16 if kind == "bfloat16" else kind)
        cast = lambda x: (4 * x).astype(np.float32).astype(dtype)  # noqa: E731
        made.kernels, made.biases = [4 * k for k in made.kernels], [cast(bias) for bias in made.biases]
        tree = {f"Dense_{i}": {"kernel": made.kernels[i], "bias": made.biases[i]} for i in (0, 1)}
        if kind != "complex64":
            made.biases = [bias.astype(np.float64) for bias in made.biases]
        return made, tree | {"step": np.int32(7), "rng": np.zeros(2, np.uint32)}

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("format", ["safetensors", "msgpack", "orbax", "torch"])
    def test_biases_of_every_kind(self, tmp_path, net, acts, kind, format):
        import orbax.checkpoint as ocp
        from flax.traverse_util import flatten_dict

        made, tree = self.tree(net, kind)
        flat = flatten_dict(tree, sep="/")
        if kind == ">f4" and format != "safetensors":
            pytest.skip("the format's own writer has no order of bytes, or turns them")
        if format == "torch" and flat["Dense_0/bias"].dtype.char not in forge.KINDS:
            pytest.skip("PyTorch has no such kind, or the forger")
        if format == "safetensors":
            save_file({name: np.asarray(one) for name, one in flat.items()}, tmp_path / "a")
        elif format == "msgpack":
            (tmp_path / "a").write_bytes(msgpack_serialize(tree))
        elif format == "orbax":
            with ocp.PyTreeCheckpointer() as checkpointer:
                checkpointer.save(tmp_path / "a", tree)
        else:
            (tmp_path / "a").write_bytes(forge.state_dict({name: np.asarray(one) for name, one in flat.items()}))
        if kind == "complex64":
            with pytest.raises(ConfigError, match=r"holds numbers of the kind .*; expected float32"):
                import_policy(tmp_path / "a", tmp_path / "p", settings={**TANH, "transpose": False})
            return
        import_policy(tmp_path / "a", tmp_path / "p", settings={**TANH, "transpose": False})
        same(acts, tmp_path / "p", made.states, made.act("tanh", "tanh"))


@pytest.mark.parametrize("length", [0x280, 0x580, 0x4B50])
def test_a_header_as_long_as_another_formats_mark(tmp_path, actor, acts, length):
    """The first bytes of a safetensors file are a number: of a pickle's and of a Zip archive's, too."""
    tensors = torch_names(actor, "0.", "2.", "4.")
    save_file(tensors, tmp_path / "a")
    short = int.from_bytes((tmp_path / "a").read_bytes()[:8], "little")
    save_file(tensors, tmp_path / "a", metadata={"note": "x" * (length - short - 32)})
    for more in range(40):
        if int.from_bytes((tmp_path / "a").read_bytes()[:8], "little") == length:
            break
        save_file(tensors, tmp_path / "a", metadata={"note": "x" * (length - short - 32 + more)})
    assert (tmp_path / "a").read_bytes()[:2] in (b"\x80\x02", b"\x80\x05", b"PK")
    import_policy(tmp_path / "a", tmp_path / "p", settings=TANH)
    same(acts, tmp_path / "p", actor.states, actor.act("tanh", "tanh"))


def test_what_an_interrupted_save_left_is_no_checkpoint(tmp_path, actor, acts):
    import shutil

    import orbax.checkpoint as ocp

    layers = {f"Dense_{i}": {"kernel": k, "bias": actor.biases[i]} for i, k in enumerate(actor.kernels)}
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "run" / "100" / "default", layers)
    for left in ("200.orbax-checkpoint-tmp", "300.orbax-checkpoint-tmp-1700000000"):
        shutil.copytree(tmp_path / "run" / "100", tmp_path / "run" / left)
    shutil.copytree(tmp_path / "run" / "100" / "default", tmp_path / "run" / "400" / "default.orbax-checkpoint-tmp-17")
    (tmp_path / "run" / "checkpoint_tmp").write_bytes(b"\x81")
    (tmp_path / "run" / "500").mkdir()
    import_policy(tmp_path / "run", tmp_path / "p", settings=TANH)
    same(acts, tmp_path / "p", actor.states, actor.act("tanh", "tanh"))
    for name in ("200.orbax-checkpoint-tmp", "200.orbax-checkpoint-tmp/default", "400"):
        with pytest.raises(ConfigError, match="was not saved to the end; name a finished one"):
            import_policy(tmp_path / "run" / name, tmp_path / "q", settings=TANH)
    shutil.rmtree(tmp_path / "run" / "100")
    with pytest.raises(ConfigError, match="was not saved to the end; name a finished one"):
        import_policy(tmp_path / "run", tmp_path / "q", settings=TANH)
