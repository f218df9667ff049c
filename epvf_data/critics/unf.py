"""Universal neural functionals for multilayer perceptrons (Zhou, Finn and Harrison 2024), written in factored form.

The hidden units of a policy can be renumbered without changing what it does; its inputs and outputs cannot. A layer of
a UNF maps the policy's tensors, each with c channels, to tensors with the same axes in the most general linear way that
commutes with renumbering. Where every axis has a label (kernel l lies between axes l and l + 1, bias l along l + 1,
LayerNorm's scales and biases like it, log_std along the last axis), that is: for every pair of tensors and every subset
of the axes that they share, the source is averaged over its other axes, multiplied by a matrix of its own, and spread
out along the target's. For L layers of kernels and biases these are 4L² + 10L - 4 matrices. Averages come before the
products and spreading after them, so that only one product in each kernel has the kernel's size, and a layer costs
about 2 P c² operations for P parameters, however many terms there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, combinations
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from epvf_data.critics.base import Critic, Params, Row
from epvf_data.critics.mlp import Network
from epvf_data.critics.settings import FIXED
from epvf_data.errors import ConfigError
from epvf_data.policies import mlp as policy
from epvf_data.policies.spec import PolicySpec

Features = dict[str, Array]  # tensor name → [*its axes, channels]
Axes = Mapping[str, tuple[int, ...]]  # tensor name → labels of its axes; 0 is the policy's input, L its output
Lift = Callable[[str, Params, Array], Array]  # tensor name, its parameters, tensor → features
InitLift = Callable[[str, PRNGKeyArray], Params]


class Term(NamedTuple):
    """One matrix of a layer: `source`, averaged over the axes that are not in `kept`."""

    source: str
    kept: tuple[int, ...]


def axes_of(spec: PolicySpec, fold: bool = False) -> dict[str, tuple[int, ...]]:
    """Labels of every tensor's axes; with `fold`, of those alone that can be renumbered."""
    ends = {0, len(spec.sizes) - 1}
    found = {}
    for name in spec.tensors:
        layer = len(spec.hidden) if name == "log_std" else int(name.split("/")[0].removeprefix("layer_"))
        labels = (layer, layer + 1) if name.endswith("/kernel") else (layer + 1,)
        found[name] = tuple(label for label in labels if not (fold and label in ends))
    return found


def terms(axes: Axes) -> dict[str, dict[tuple[int, ...], list[Term]]]:
    """The terms of every tensor, by the axes they lie along: those of one group share one product."""
    found: dict[str, dict[tuple[int, ...], list[Term]]] = {}
    for target, here in axes.items():
        found[target] = {}
        for source, there in axes.items():
            shared = [label for label in there if label in here]
            for kept in _subsets(shared):
                found[target].setdefault(kept, []).append(Term(source, kept))
    return found


def init_layer(key: PRNGKeyArray, axes: Axes, channels: int) -> Params:
    """A matrix [terms · channels, channels] for each group of terms, and a bias for each tensor.

    Every term has unit size before its product (see `unit`), so matrices of variance 1 / (terms · channels)
    give a result of unit size: the signal neither fades nor grows from layer to layer.
    """
    found = terms(axes)
    rows = [len(listed) * channels for grouped in found.values() for listed in grouped.values()]
    drawn = iter(jnp.split(jax.random.normal(key, (sum(rows), channels)), np.cumsum(rows)[:-1]))  # one draw for all
    params: Params = {}
    for name, grouped in found.items():
        count = sum(map(len, grouped.values()))
        params[name] = {"bias": jnp.zeros(channels)}
        for kept in grouped:
            params[name][_along(kept)] = next(drawn) / math.sqrt(count * channels)
    return params


def apply_layer(axes: Axes, params: Params, features: Features) -> Features:
    """One equivariant layer on the features of one policy."""
    whole = {name: unit(found) for name, found in features.items()}
    pooled: dict[Term, Array] = {}
    for name, labels in axes.items():
        for kept in _subsets(labels):
            left = tuple(place for place, label in enumerate(labels) if label not in kept)
            pooled[Term(name, kept)] = unit(jnp.mean(whole[name], axis=left)) if left else whole[name]
    result: Features = {}
    for name, grouped in terms(axes).items():
        total = _widen(params[name]["bias"], len(axes[name]))
        for kept, listed in grouped.items():
            part = jnp.concatenate([pooled[term] for term in listed], axis=-1) @ params[name][_along(kept)]
            spread = [part.shape[kept.index(label)] if label in kept else 1 for label in axes[name]]
            total = total + part.reshape(*spread, part.shape[-1])
        result[name] = jnp.broadcast_to(total, features[name].shape)
    return result


def unit(features: Float[Array, "*axes c"]) -> Float[Array, "*axes c"]:
    """Brought to a root mean square of one over all places and channels: what is large and small in it stays so."""
    size = jnp.mean(jnp.square(features.astype(jnp.result_type(float))))
    return features * jax.lax.rsqrt(size + 1e-6).astype(features.dtype)


def unf(
    spec: PolicySpec,
    head: Network,
    channels: int = 16,
    layers: int = 3,
    fixed: str = "position",
    raw: bool = False,
    remat: bool = False,
    dtype: str = "float32",
) -> Critic:
    """Residual equivariant layers, means over the hidden axes, and the head on what is left.

    The policy's inputs and outputs keep their places: with `fixed` = "position" through learned embeddings of their
    axes, with "fold" by making these axes channels of the first features. With `raw`, the scaled θ stands beside the
    pooled features. `remat` computes layers again in the backward pass in place of keeping them: less memory, more
    time. `dtype` is that of the layers' features; "bfloat16" halves memory where the device multiplies it quickly.

    It reads θ unscaled, and itself puts tensors in units of 1/√fan_in, the spread of fresh policies: units of its own
    for every parameter would tell the hidden units apart. Raises ConfigError for impossible sizes and other policies.
    """
    _check_sizes(channels, layers, fixed)
    axes = axes_of(spec, fixed == "fold")
    lift, init_lift = (_fold if fixed == "fold" else _position)(spec, channels)

    def cast(leaf: Array) -> Array:
        return leaf if dtype == "float32" else leaf.astype(dtype)

    def layer(features: Features, params: Params) -> Features:
        return {name: features[name] + jax.nn.relu(new) for name, new in apply_layer(axes, params, features).items()}

    step = jax.checkpoint(layer) if remat else layer

    def read(params: Params, theta: Float[Array, "P"]) -> Float[Array, "F"]:
        features = {
            name: cast(lift(name, params["lift"][name], tensor))
            for name, tensor in policy.unflatten(spec, policy.relative(spec, theta)).items()
        }
        for matrices in params["layers"]:
            features = step(features, jax.tree.map(cast, matrices))
        return pool(spec, axes, {name: unit(found) for name, found in features.items()})

    def init(key: PRNGKeyArray) -> Params:
        keys = jax.random.split(key, layers + 2)
        tensors = zip(spec.tensors, jax.random.split(keys[0], len(spec.tensors)), strict=True)
        params: Params = {"lift": {name: init_lift(name, own) for name, own in tensors}}
        params["layers"] = [init_layer(own, axes, channels) for own in keys[1:-1]]
        length = jax.eval_shape(read, params, jnp.zeros(spec.size)).shape[0] + (spec.size if raw else 0)
        params["head"] = head.init(keys[-1], length)
        return params

    def apply(params: Params, row: Row) -> Float[Array, "outputs"]:
        if row.vector.shape[-1] != spec.size:
            raise ConfigError(
                f"got policies of {row.vector.shape[-1]} parameters; this critic was made for {spec}, "
                f"which has {spec.size}."
            )
        pooled = read(params, row.vector)
        return head.apply(params["head"], jnp.concatenate([pooled, row.scaled]) if raw else pooled)

    return Critic("unf+raw" if raw else "unf", init, apply)


def pool(spec: PolicySpec, axes: Axes, features: Features) -> Float[Array, "F"]:
    """Means over the hidden axes of every tensor, one after the other: renumbering hidden units changes none."""
    ends, wide = (0, len(spec.sizes) - 1), jnp.result_type(float)
    hidden = lambda name: tuple(place for place, label in enumerate(axes[name]) if label not in ends)  # noqa: E731
    return jnp.concatenate([jnp.ravel(features[name].astype(wide).mean(axis=hidden(name))) for name in axes])


def _check_sizes(channels: int, layers: int, fixed: str) -> None:
    for name, got in (("channels", channels), ("layers", layers)):
        if not isinstance(got, int) or got < 1:
            raise ConfigError(f"the critic's {name} are {got!r}; expected a whole number of at least 1.")
    if fixed not in FIXED:
        raise ConfigError(f"a policy's inputs and outputs are fixed by {' or '.join(FIXED)}; got {fixed!r}.")


def _position(spec: PolicySpec, channels: int) -> tuple[Lift, InitLift]:
    """Every weight becomes `channels` features; along the policy's inputs and outputs, learned vectors are added."""
    sides = {
        name: [place for place, label in enumerate(labels) if label in (0, len(spec.sizes) - 1)]
        for name, labels in axes_of(spec).items()
    }

    def lift(name: str, params: Params, tensor: Array) -> Array:
        value = tensor[..., None] * _widen(params["scale"], tensor.ndim) + _widen(params["shift"], tensor.ndim)
        for place in sides[name]:
            vectors = params[f"axis_{place}"]
            value = value + vectors.reshape(*(1 if axis != place else -1 for axis in range(tensor.ndim)), channels)
        return value

    def init(name: str, key: PRNGKeyArray) -> Params:
        keys = jax.random.split(key, 4)
        shapes = {"scale": (channels,), "shift": (channels,)}
        shapes |= {f"axis_{place}": (spec.tensors[name].shape[place], channels) for place in sides[name]}
        return {part: jax.random.normal(own, shape) for own, (part, shape) in zip(keys, shapes.items(), strict=False)}

    return lift, init


def _fold(spec: PolicySpec, channels: int) -> tuple[Lift, InitLift]:
    """The policy's inputs and outputs become channels of the hidden units that they belong to."""
    free = axes_of(spec, fold=True)
    kept = {
        name: [place for place, label in enumerate(labels) if label in free[name]]
        for name, labels in axes_of(spec).items()
    }

    def inputs(name: str) -> int:
        return math.prod(size for place, size in enumerate(spec.tensors[name].shape) if place not in kept[name])

    def lift(name: str, params: Params, tensor: Array) -> Array:
        rest = [place for place in range(tensor.ndim) if place not in kept[name]]
        hidden = [tensor.shape[place] for place in kept[name]]
        features = tensor.transpose(*kept[name], *rest).reshape(*hidden, -1) @ params["scale"]
        return features + _widen(params["shift"], len(hidden))

    def init(name: str, key: PRNGKeyArray) -> Params:
        first, second = jax.random.split(key)
        scale = jax.random.normal(first, (inputs(name), channels)) / math.sqrt(inputs(name))
        return {"scale": scale, "shift": jax.random.normal(second, (channels,))}

    return lift, init


def _subsets(labels: Sequence[int]) -> Iterator[tuple[int, ...]]:
    return chain.from_iterable(combinations(labels, size) for size in range(len(labels) + 1))


def _widen(vector: Float[Array, "c"], axes: int) -> Float[Array, "*ones c"]:
    """With so many axes of length one before its own."""
    return vector.reshape(*(1 for _ in range(axes)), -1)


def _along(kept: tuple[int, ...]) -> str:
    """The name of a group of terms."""
    return "along_" + "_".join(map(str, kept)) if kept else "everywhere"
