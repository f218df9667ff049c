"""One policy of the tensors at their places: layers, actions, normaliser, then specification and flat parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from epvf_data.errors import ArchitectureMismatchError, ConfigError
from epvf_data.importing import layouts
from epvf_data.importing.layers import Layers, checked, fold, keep_outputs, rescale
from epvf_data.importing.limits import Tensors, listing
from epvf_data.importing.rest import oriented
from epvf_data.importing.settings import ImportSettings, NormaliserSettings, Place
from epvf_data.policies import mlp
from epvf_data.policies.spec import Normaliser, PolicySpec
from epvf_data.untrusted import printable, shown

UNCLIPPED = 1e30  # a specification's clip is finite; no observation is this far from its mean
EXACT = 1e-5  # a normaliser is folded only if the actions stay within this, relative to 1 + |action|


def _find(tensors: Tensors, place: Place) -> np.ndarray:
    if place.name not in tensors:
        raise ConfigError(f"there is no tensor {shown(place.name)}; expected one of {listing(tensors)}.")
    return tensors[place.name]


def layers(tensors: Tensors, chosen: ImportSettings, places: Mapping[str, Place]) -> Layers:
    """The layers at their places, matrices turned to [inputs, outputs]."""
    count = sum(name.endswith("/kernel") for name in places)
    names = [places.get(f"layer_{layer}/kernel") for layer in range(count)]
    kernels, biases, turned = [], [], False
    for layer, place in enumerate(names):
        if place is None:
            raise ConfigError(f"tensors has {count} kernels, but no layer_{layer}/kernel; count layers from 0.")
        stated = chosen.transpose if place.transpose is None else place.transpose
        kernel = _find(tensors, place)
        kernels.append(oriented(place.name, kernel, stated))
        turned = turned or kernels[-1] is not kernel
        bias = places.get(f"layer_{layer}/bias")
        biases.append(None if bias is None else _find(tensors, bias))
    if not count or max(int(name[6:].split("/")[0]) for name in places if name.startswith("layer_")) >= count:
        raise ConfigError("tensors needs a layer_0/kernel, and a kernel for every bias.")
    found = checked([printable(place.name) for place in names if place], kernels, biases, turned)
    if chosen.hidden not in (None, found.sizes[1:-1]):
        raise ArchitectureMismatchError(
            f"the file has hidden layers {list(found.sizes[1:-1])}, and {list(chosen.hidden or ())} are stated."
        )
    if chosen.bias not in (None, found.biased):
        raise ArchitectureMismatchError(f"the file has {'' if found.biased else 'no '}biases, other than stated.")
    return found


def actions(layers: Layers, chosen: ImportSettings, layout: str, notes: list[str]) -> Layers:
    """The layers that give the actions, −1 … 1 where they are bounded."""
    for key in ("activation", "output"):
        if getattr(chosen, key) is None and (key == "output" or len(layers.kernels) > 1):
            raise layouts.missing(key, layout)
    outputs, size = layers.sizes[-1], chosen.action_size
    if size not in (None, outputs):
        if 2 * size != outputs:
            raise ArchitectureMismatchError(
                f"the last layer has {outputs} outputs and action_size is {size}; expected {size}, or {2 * size}: "
                "means, then widths."
            )
        layers = keep_outputs(layers, size)
    bounds = (chosen.action_low, chosen.action_high)
    if bounds == (None, None):
        return layers
    low, high = (np.asarray((bound or ()) * (layers.sizes[-1] if bound and len(bound) == 1 else 1)) for bound in bounds)
    if low.shape != high.shape or low.size != layers.sizes[-1] or not (np.isfinite(high - low) & (low < high)).all():
        raise ConfigError(f"action_low and action_high need {layers.sizes[-1]} finite numbers each, low below high.")
    if (low == -1).all() and (high == 1).all():
        return layers
    notes.append(f"actions −1 … 1 stand for {low.min():g} … {high.max():g} where it was trained")
    return rescale(layers, low, high) if chosen.output != "tanh" else layers


def normaliser(
    tensors: Tensors, chosen: ImportSettings, places: Mapping[str, Place]
) -> tuple[np.ndarray, np.ndarray] | None:
    """(mean, std) of the observations, in float64."""
    stated = chosen.normaliser
    if stated is None:
        return None
    parts = {}
    for key in ("mean", "std", "var"):
        if getattr(stated, key) is not None:
            parts[key] = np.asarray(getattr(stated, key), np.float64)
        elif (place := places.get(f"normaliser/{key}")) is not None:
            parts[key] = np.asarray(_find(tensors, place), np.float64)
    if not parts and stated == NormaliserSettings():
        return None
    if "mean" not in parts or ("std" in parts) == ("var" in parts):
        raise ConfigError("the normaliser needs a mean, and either a std or a var.")
    if "var" in parts and (parts["var"] < 0).any():
        raise ConfigError("the normaliser has variances below 0; no observations give these.")
    with np.errstate(all="ignore"):  # a specification refuses what is not finite
        std = parts["std"] + stated.epsilon if "std" in parts else np.sqrt(parts["var"] + stated.epsilon)
    return np.ravel(parts["mean"]), np.ravel(std)


def policy(
    layers: Layers, chosen: ImportSettings, normaliser: tuple[np.ndarray, np.ndarray] | None
) -> tuple[PolicySpec, Float[np.ndarray, "P"]]:
    """The specification and flat parameters, with the normaliser in one or the other."""
    sizes, activation, output = layers.sizes, chosen.activation or "tanh", chosen.output or "tanh"
    spec = PolicySpec(sizes[0], sizes[-1], sizes[1:-1], activation, output, layers.biased)
    if normaliser is None or chosen.normaliser is None:
        return spec, layers.flat()
    mean, std = normaliser
    if not mean.size == std.size == spec.observation_size:  # before a list is made of either
        entries = sorted({mean.size, std.size})
        raise ConfigError(f"the normaliser has {entries} entries; the policy observes {spec.observation_size} numbers.")
    clip = chosen.normaliser.clip
    spec = replace(spec, normaliser=Normaliser(_floats(mean), _floats(std), UNCLIPPED if clip is None else clip))
    if not chosen.normaliser.fold:
        return spec, layers.flat()
    if clip is not None:
        raise ConfigError("a normaliser that clips cannot be folded into a layer; leave normaliser.fold or .clip out.")
    folded = fold(layers, mean, std)
    plain = replace(spec, bias=folded.biased, normaliser=None)
    _check_fold(spec, layers.flat(), plain, folded.flat())
    return plain, folded.flat()


def _floats(values: np.ndarray) -> tuple[float, ...]:
    return tuple(map(float, values))


def _check_fold(spec: PolicySpec, flat: np.ndarray, plain: PolicySpec, folded: np.ndarray) -> None:
    """Raises ConfigError where float32 cannot hold the folded layer: a deviation that is tiny beside the mean."""
    assert spec.normaliser is not None
    mean, std = np.asarray(spec.normaliser.mean), np.asarray(spec.normaliser.std)
    noise = np.random.default_rng(0).normal(size=(256, spec.observation_size))
    states = jnp.asarray(mean + 2 * std * noise, jnp.float32)
    acts = [
        np.asarray(jax.vmap(partial(mlp.apply, kind, mlp.unflatten(kind, jnp.asarray(numbers))))(states))
        for kind, numbers in ((spec, flat), (plain, folded))
    ]
    error = float(np.max(np.abs(acts[0] - acts[1]) / (1 + np.abs(acts[0]))))
    if not error <= EXACT:
        raise ConfigError(
            f"folding the normaliser would change actions by up to {error:.1g}: some observation varies too little "
            "around a large mean; leave normaliser.fold out."
        )
