"""UNF: symmetric in hidden units, and in nothing else; the factored layer equals the sum of its terms."""

from __future__ import annotations

import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epvf_data.critics.base import Row
from epvf_data.critics.mlp import network
from epvf_data.critics.unf import apply_layer, axes_of, init_layer, terms, unf, unit
from epvf_data.errors import ConfigError
from epvf_data.policies import mlp
from epvf_data.policies.spec import PolicySpec

WIDTHS = st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple)


RICH = {"layer_norm": True, "gaussian": "sampled"}


@functools.cache  # the same critic is compiled once
def made(spec, widths=(16,), **changes):
    return unf(spec, network(widths), **changes)


@partial(jax.jit, static_argnums=0)
def value_of(critic, params, theta):
    return critic.apply(params, Row(theta, theta))[0]


def renumber(spec, tensors, orders):
    """The tensors with axis l of the policy (0: input, L: output) in the order `orders[l]`."""
    moved = {}
    for name, labels in axes_of(spec).items():
        tensor = tensors[name]
        for place, label in enumerate(labels):
            if label in orders:
                tensor = jnp.take(tensor, orders[label], axis=place)
        moved[name] = tensor
    return moved


def hidden_orders(spec, seed):
    draw = np.random.default_rng(seed)
    return {label + 1: draw.permutation(width) for label, width in enumerate(spec.hidden)}


def random_features(spec, channels, seed=0):
    keys = jax.random.split(jax.random.key(seed), len(spec.tensors))
    shapes = [(*slot.shape, channels) for slot in spec.tensors.values()]
    return {name: jax.random.normal(key, shape) for name, key, shape in zip(spec.tensors, keys, shapes, strict=True)}


@pytest.mark.parametrize(("hidden", "count"), [((5,), 32), ((5, 6), 62), ((5, 6, 7), 100)])
def test_the_number_of_terms_is_that_of_the_paper(hidden, count):
    found = terms(axes_of(PolicySpec(3, 2, hidden)))
    assert sum(len(listed) for grouped in found.values() for listed in grouped.values()) == count


@pytest.mark.parametrize("examples", [1, pytest.param(20, marks=pytest.mark.soak)])
def test_a_layer_commutes_with_renumbering(examples):
    settings(max_examples=examples)(given(WIDTHS, st.integers(0, 2**16), st.booleans(), st.booleans())(commutes))()


def commutes(hidden, seed, bias, more):
    spec = PolicySpec(3, 2, hidden, bias=bias, layer_norm=more, gaussian="mean" if more else None)
    axes = axes_of(spec)
    params = init_layer(jax.random.key(seed), axes, 4)
    features = random_features(spec, 4, seed)
    orders = hidden_orders(spec, seed)
    layer = jax.jit(lambda params, features: apply_layer(axes, params, features))
    after = renumber(spec, layer(params, features), orders)
    before = layer(params, renumber(spec, features, orders))
    for name in spec.tensors:
        np.testing.assert_allclose(before[name], after[name], atol=1e-5)


def term_by_term(spec, params, features):
    """The layer as its formula says it: every term at full size, with a product of its own."""
    layers = range(len(spec.sizes) - 1)
    whole = {name: unit(found) for name, found in features.items()}
    kernel = lambda layer: whole.get(f"layer_{layer}/kernel")  # noqa: E731
    bias = lambda layer: whole.get(f"layer_{layer}/bias")  # noqa: E731
    axes, result = axes_of(spec), {}
    grouped = terms(axes)

    def matrix(name, source, kept):
        group = grouped[name][kept]
        at = next(index for index, term in enumerate(group) if term.source == source)
        channels = features[name].shape[-1]
        along = "along_" + "_".join(map(str, kept)) if kept else "everywhere"
        return params[name][along][at * channels : (at + 1) * channels]

    def everywhere(name):
        total = jnp.broadcast_to(
            params[name]["bias"].reshape(*(1 for _ in features[name].shape[1:]), -1), features[name].shape
        )
        for source in spec.tensors:
            mean = unit(whole[source].mean(axis=tuple(range(whole[source].ndim - 1))))
            mean = mean.reshape(*(1 for _ in features[name].shape[1:]), -1)
            total = total + jnp.broadcast_to(mean, features[name].shape) @ matrix(name, source, ())
        return total

    for layer in layers:
        w, b, shape = f"layer_{layer}/kernel", f"layer_{layer}/bias", features[f"layer_{layer}/kernel"].shape
        total = everywhere(w) + kernel(layer) @ matrix(w, w, (layer, layer + 1))
        rows = {w: unit(kernel(layer).mean(axis=1))}
        if layer > 0:
            rows[f"layer_{layer - 1}/kernel"] = unit(kernel(layer - 1).mean(axis=0))
            rows[f"layer_{layer - 1}/bias"] = bias(layer - 1)
        for source, row in rows.items():
            total = total + jnp.broadcast_to(row[:, None], shape) @ matrix(w, source, (layer,))
        columns = {w: unit(kernel(layer).mean(axis=0)), b: bias(layer)}
        if layer + 1 < len(layers):
            columns[f"layer_{layer + 1}/kernel"] = unit(kernel(layer + 1).mean(axis=1))
        for source, column in columns.items():
            total = total + jnp.broadcast_to(column[None], shape) @ matrix(w, source, (layer + 1,))
        result[w] = total
        total = everywhere(b)
        for source, column in columns.items():
            total = total + column @ matrix(b, source, (layer + 1,))
        result[b] = total
    return result


@pytest.mark.parametrize("hidden", [*(pytest.param(one, marks=pytest.mark.soak) for one in [(5,), (4, 5, 6)]), (4, 6)])
def test_the_factored_layer_is_the_sum_of_its_terms(hidden):
    spec = PolicySpec(3, 2, hidden)
    axes = axes_of(spec)
    params, features = init_layer(jax.random.key(1), axes, 4), random_features(spec, 4)
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)
    wanted = jax.jit(lambda params, features: term_by_term(spec, params, features))(params, features)
    for name, found in jax.jit(lambda params, features: apply_layer(axes, params, features))(params, features).items():
        np.testing.assert_allclose(found, wanted[name], atol=1e-5)


@pytest.mark.parametrize("fixed", ["position", pytest.param("fold", marks=pytest.mark.soak)])
@pytest.mark.parametrize(
    ("hidden", "more"),
    [*(pytest.param(*one, marks=pytest.mark.soak) for one in [((6,), {}), ((6, 5), {}), ((6, 5), RICH)]), ((6,), RICH)],
)
def test_the_value_knows_inputs_and_outputs_apart_and_hidden_units_not(fixed, hidden, more):
    spec = PolicySpec(3, 2, hidden, **more)
    critic = made(spec, channels=8, layers=2, fixed=fixed)
    params = jax.jit(critic.init)(jax.random.key(0))
    theta = mlp.init(jax.random.key(1), spec)
    value = lambda orders: float(  # noqa: E731
        value_of(critic, params, mlp.flatten(spec, renumber(spec, mlp.unflatten(spec, theta), orders)))
    )
    for seed in range(5):
        assert value(hidden_orders(spec, seed)) == pytest.approx(value({}), abs=1e-5)
    assert abs(value({0: np.array([1, 2, 0])}) - value({})) > 1e-4
    assert abs(value({len(hidden) + 1: np.array([1, 0])}) - value({})) > 1e-4


@pytest.mark.parametrize("fixed", ["position", pytest.param("fold", marks=pytest.mark.soak)])
@pytest.mark.parametrize("hidden", [(6,), pytest.param((6, 5), marks=pytest.mark.soak)])
def test_the_value_reads_scales_and_noise(hidden, fixed):
    spec = PolicySpec(3, 2, hidden, **RICH)
    critic = made(spec, channels=8, layers=2, fixed=fixed)
    params = jax.jit(critic.init)(jax.random.key(0))
    tensors = mlp.unflatten(spec, mlp.init(jax.random.key(1), spec))
    value = lambda each: float(value_of(critic, params, mlp.flatten(spec, each)))  # noqa: E731
    for name in ("layer_0/norm_scale", f"layer_{len(hidden) - 1}/norm_bias", "log_std"):
        assert abs(value({**tensors, name: tensors[name].at[1].add(0.5)}) - value(tensors)) > 1e-4, name


def test_beside_raw_parameters_it_is_not_symmetric():
    spec = PolicySpec(3, 2, (6,))
    critic = made(spec, channels=4, layers=1, raw=True)
    params = jax.jit(critic.init)(jax.random.key(0))
    theta = mlp.init(jax.random.key(1), spec)
    moved = mlp.flatten(spec, renumber(spec, mlp.unflatten(spec, theta), {1: np.roll(np.arange(6), 1)}))
    assert abs(value_of(critic, params, theta) - value_of(critic, params, moved)) > 1e-3


@pytest.mark.soak
@pytest.mark.parametrize("fixed", ["position", "fold"])
def test_gradients_are_those_of_finite_differences(fixed):
    spec = PolicySpec(3, 2, (4,))
    with jax.enable_x64(True):
        critic = made(spec, (8,), channels=4, layers=2, fixed=fixed)
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), jax.jit(critic.init)(jax.random.key(0)))
        theta = mlp.init(jax.random.key(1), spec).astype(jnp.float64)
        value = lambda row: value_of(critic, params, row)  # noqa: E731
        gradient = jax.jit(jax.grad(partial(value_of, critic), argnums=1))(params, theta)
        for seed in range(5):
            direction = jax.random.normal(jax.random.key(seed), (spec.size,), jnp.float64)
            slope = (value(theta + 1e-6 * direction) - value(theta - 1e-6 * direction)) / 2e-6
            np.testing.assert_allclose(jnp.dot(gradient, direction), slope, rtol=1e-4, atol=1e-7)


@pytest.mark.soak
def test_the_signal_keeps_its_size_from_layer_to_layer():
    spec = PolicySpec(34, 8, (64, 64))
    axes = axes_of(spec)
    features = random_features(spec, 16)
    step = jax.jit(lambda params, features: apply_layer(axes, params, features))
    for layer in range(6):
        features = step(init_layer(jax.random.key(layer), axes, 16), features)
        for name, found in features.items():
            assert 0.5 < float(jnp.std(found)) < 2.0, (layer, name)


@pytest.mark.soak
def test_computing_layers_again_changes_nothing():
    spec = PolicySpec(3, 2, (4,))
    theta = mlp.init(jax.random.key(1), spec)
    kept, again = (made(spec, channels=4, layers=1, remat=remat) for remat in (False, True))
    params = jax.jit(kept.init)(jax.random.key(0))
    for first, second in zip(
        jax.tree.leaves(jax.jit(jax.grad(lambda params: value_of(kept, params, theta)))(params)),
        jax.tree.leaves(jax.jit(jax.grad(lambda params: value_of(again, params, theta)))(params)),
        strict=True,
    ):
        np.testing.assert_allclose(first, second, atol=1e-6)


def test_impossible_sizes_are_refused():
    spec = PolicySpec(3, 2, (4,))
    for changes, message in (
        ({"channels": 0}, "channels are 0"),
        ({"layers": -1}, "layers are -1"),
        ({"fixed": "none"}, "'none'"),
    ):
        with pytest.raises(ConfigError, match=message):
            made(spec, **changes)
    critic = made(spec)
    with pytest.raises(ConfigError, match="policies of 5 parameters"):
        value_of(critic, jax.jit(critic.init)(jax.random.key(0)), jnp.zeros(5))


@pytest.mark.soak
def test_half_precision_gives_nearly_the_same():
    spec = PolicySpec(3, 2, (6, 6))
    full, half = (made(spec, channels=8, layers=2, dtype=dtype) for dtype in ("float32", "bfloat16"))
    params = jax.jit(full.init)(jax.random.key(0))
    thetas = jax.vmap(lambda key: mlp.init(key, spec))(jax.random.split(jax.random.key(1), 20))
    exact, rough = ([float(value_of(critic, params, theta)) for theta in thetas] for critic in (full, half))
    assert np.corrcoef(exact, rough)[0, 1] > 0.99
