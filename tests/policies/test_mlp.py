import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epvf_data.policies import mlp
from epvf_data.policies.perturb import LAWS, clip_weights, noise, perturb
from epvf_data.policies.probe import probe
from epvf_data.policies.spec import ACTIVATIONS, OUTPUTS, Normaliser, PolicySpec

SPEC = PolicySpec(5, 3, (7, 6))


def by_hand(spec: PolicySpec, flat: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The policy from its JSON alone, in float64: what a stranger would write."""
    description = spec.to_dict()
    functions = {
        "tanh": np.tanh,
        "relu": lambda v: np.maximum(v, 0),
        "elu": lambda v: np.where(v > 0, v, np.expm1(np.minimum(v, 0))),
        "swish": lambda v: v / (1 + np.exp(-v)),
        "clip": lambda v: np.clip(v, -1, 1),
        "identity": lambda v: v,
    }
    if description["normaliser"]:
        n = description["normaliser"]
        x = np.clip((x - np.array(n["mean"])) / np.array(n["std"]), -n["clip"], n["clip"])
    for layer in description["layers"]:
        get = {
            name: flat[t["offset"] : t["offset"] + int(np.prod(t["shape"]))].reshape(t["shape"])
            for name, t in layer["tensors"].items()
        }
        x = x @ get["kernel"] + get.get("bias", 0.0)
        if "norm" in layer:
            x = (x - x.mean()) / np.sqrt(x.var() + layer["norm"]["epsilon"]) * get["norm_scale"] + get["norm_bias"]
        x = functions[layer["activation"]](x)
    return x


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        PolicySpec(5, 3, ()),
        PolicySpec(5, 3, (4,), "relu", "clip"),
        PolicySpec(5, 3, (4, 4, 4), "elu", "identity", bias=False),
        PolicySpec(5, 3, (4, 6), "relu", layer_norm=True, gaussian="sampled"),
        PolicySpec(5, 3, (4, 6), "elu", bias=False, layer_norm=True, gaussian="mean"),
        PolicySpec(5, 3, (9,), "swish", normaliser=Normaliser((0.5,) * 5, (2.0,) * 5, clip=1.0)),
    ],
    ids=str,
)
def test_apply_agrees_with_numpy_from_the_specification(spec):
    flat = mlp.init(jax.random.key(1), spec, 2.0)
    x = np.random.default_rng(0).normal(size=5)
    got = mlp.apply(spec, mlp.unflatten(spec, flat), jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(got, by_hand(spec, np.asarray(flat, float), x), atol=2e-6)


class Flax(nn.Module):
    """The same policy in another library's words; its Dense and LayerNorm are numbered from 0."""

    spec: PolicySpec

    @nn.compact
    def __call__(self, x):
        for width in self.spec.hidden:
            x = nn.Dense(width, use_bias=self.spec.bias)(x)
            x = nn.LayerNorm(use_fast_variance=False)(x)
            x = mlp.ACTIVATIONS[self.spec.activation](x)
        return mlp.ACTIVATIONS[self.spec.output](nn.Dense(self.spec.action_size, use_bias=self.spec.bias)(x))


@settings(max_examples=4)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple),
    st.sampled_from(ACTIVATIONS),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_layer_norm_is_flaxs(hidden, activation, bias, seed):
    spec = PolicySpec(5, 3, hidden, activation, bias=bias, layer_norm=True)
    tensors = mlp.unflatten(spec, mlp.init(jax.random.key(seed), spec, 2.0))
    params = {}
    for layer in range(len(hidden) + 1):
        names = {"kernel": "kernel"} | ({"bias": "bias"} if bias else {})
        params[f"Dense_{layer}"] = {name: tensors[f"layer_{layer}/{name}"] for name in names}
        if layer < len(hidden):
            params[f"LayerNorm_{layer}"] = {
                "scale": tensors[f"layer_{layer}/norm_scale"],
                "bias": tensors[f"layer_{layer}/norm_bias"],
            }
    x = jax.random.normal(jax.random.key(seed + 1), (5,))
    np.testing.assert_allclose(mlp.apply(spec, tensors, x), Flax(spec).apply({"params": params}, x), atol=1e-5)


@given(st.integers(0, 2**31))
def test_flatten_inverts_unflatten(seed):
    flat = mlp.init(jax.random.key(seed), SPEC)
    np.testing.assert_array_equal(mlp.flatten(SPEC, mlp.unflatten(SPEC, flat)), flat)


def test_init_fills_the_uniform_law_of_each_layer_biases_too():
    spec = PolicySpec(34, 8)
    flats = np.asarray(jax.vmap(lambda key: mlp.init(key, spec, 2.0))(jax.random.split(jax.random.key(0), 200)))
    for name, slot in spec.tensors.items():
        fan_in = spec.tensors[name.replace("bias", "kernel")].shape[0]
        bound = 2.0 / np.sqrt(fan_in)
        values = flats[:, slot.offset : slot.offset + slot.size]
        assert np.abs(values).max() <= bound
        assert np.abs(values).max() > 0.98 * bound
        assert values.std() == pytest.approx(bound / np.sqrt(3), rel=0.03)


def test_scales_start_around_one_and_the_noise_around_its_size():
    spec = PolicySpec(34, 8, (64, 25), layer_norm=True, gaussian="sampled")
    keys = jax.random.split(jax.random.key(0), 500)
    flats = np.asarray(jax.vmap(lambda key: mlp.init(key, spec, 2.0))(keys))
    for name, centre, fan_in in (
        ("layer_0/norm_scale", 1.0, 34),
        ("layer_1/norm_bias", 0.0, 64),
        ("layer_2/bias", 0.0, 25),
        ("log_std", -0.5, 25),
    ):
        slot = spec.tensors[name]
        values = flats[:, slot.offset : slot.offset + slot.size] - centre
        bound = 2.0 / np.sqrt(fan_in)
        assert 0.98 * bound < np.abs(values).max() <= bound + 1e-6
        assert values.std() == pytest.approx(bound / np.sqrt(3), rel=0.03)
    unit = np.asarray(jax.vmap(lambda flat: mlp.relative(spec, flat))(jnp.asarray(flats)))
    assert np.abs(unit).max() <= 2.0 + 1e-4
    assert unit.std() == pytest.approx(2 / np.sqrt(3), rel=0.01)


@pytest.mark.parametrize("output", OUTPUTS)
def test_sampled_actions_have_the_deviation_that_log_std_says(output):
    spec = PolicySpec(5, 2, (7,), output=output, gaussian="sampled")
    tensors = mlp.unflatten(spec, mlp.init(jax.random.key(1), spec, 0.1))
    tensors["log_std"] = jnp.log(jnp.array([0.05, 0.2]))
    x = jax.random.normal(jax.random.key(2), (5,))
    drawn = jax.vmap(lambda key: mlp.sample(spec, tensors, x, key))(jax.random.split(jax.random.key(3), 20_000))
    mean = mlp.apply(spec, tensors, x)
    raw, centre = (jnp.arctanh(drawn), jnp.arctanh(mean)) if output == "tanh" else (drawn, mean)
    np.testing.assert_allclose(raw.std(axis=0), [0.05, 0.2], rtol=0.03)
    np.testing.assert_allclose(raw.mean(axis=0), centre, atol=0.01)
    assert abs(np.corrcoef(np.asarray(raw).T)[0, 1]) < 0.03
    twin = PolicySpec(5, 2, (7,), output=output, gaussian="mean")
    np.testing.assert_array_equal(mlp.apply(twin, tensors, x), mean)


@pytest.mark.parametrize("law", LAWS)
def test_noise_has_the_size_that_its_law_says(law):
    base = jnp.linspace(-2.0, 2.0, 20_001).at[10_000].set(0.0)
    sample = np.asarray(noise(law, jax.random.key(0), base, 0.3))
    magnitude = np.ones(base.size) if law == "gaussian" else np.abs(np.asarray(base))
    unit = sample / np.where(magnitude > 0, 0.3 * magnitude, 1.0)
    if law == "uniform_scaled":
        assert np.abs(unit).max() <= 1.0 + 1e-6
        assert unit.std() == pytest.approx(1 / np.sqrt(3), rel=0.03)
    else:
        assert unit.std() == pytest.approx(1.0, rel=0.03)
    assert (sample[10_000] == 0.0) == (law != "gaussian")


@pytest.mark.parametrize("law", LAWS)
@given(st.integers(0, 2**31), st.floats(0.01, 1.0))
def test_antithetic_pairs_mirror_at_the_base(law, seed, scale):
    base = mlp.init(jax.random.key(3), SPEC)
    key = jax.random.key(seed)
    plus, minus = perturb(law, key, base, scale), perturb(law, key, base, scale, sign=-1.0)
    np.testing.assert_allclose((plus + minus) / 2, base, atol=1e-6)
    assert not np.array_equal(plus, minus)


def test_floor_moves_zero_parameters_and_clip_bounds_them():
    zero = jnp.zeros(100)
    assert not noise("uniform_scaled", jax.random.key(0), zero, 0.3).any()
    moved = noise("uniform_scaled", jax.random.key(0), zero, 0.3, floor=0.1)
    assert 0.02 < np.abs(moved).max() <= 0.03
    assert np.abs(clip_weights(jnp.linspace(-1, 1, 9), 0.1)).max() == np.float32(0.1)
    np.testing.assert_array_equal(clip_weights(zero + 5, None), zero + 5)


def test_probe_is_the_policy_in_each_state():
    flat = mlp.init(jax.random.key(0), SPEC)
    states = jax.random.normal(jax.random.key(1), (6, 5))
    actions = probe(SPEC, flat, states)
    assert actions.shape == (6, 3)
    for state, action in zip(states, actions, strict=True):
        np.testing.assert_allclose(action, mlp.apply(SPEC, mlp.unflatten(SPEC, flat), state), atol=1e-6)
