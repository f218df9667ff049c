"""A policy's architecture, as canonical JSON with an id, and where each tensor lies in the flat parameter vector."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from epvf_data.errors import ConfigError, DatasetError
from epvf_data.untrusted import parse_json, printable, shown

ACTIVATIONS = ("tanh", "relu", "elu", "swish", "identity")
OUTPUTS = ("tanh", "clip", "identity")
GAUSSIAN = ("mean", "sampled")
EPSILON = 1e-6  # of LayerNorm, added to the variance: flax's
MAX_WIDTH = 1 << 16  # numbers of an observation, an action, or a hidden layer
MAX_LAYERS = 256
LARGEST, SMALLEST = 3.4e38, 1.2e-38  # of float32
MAX_SIZE = 1 << 26  # parameters: 256 MiB
_KEYS = {"kind", "observation_size", "action_size", "dtype", "flatten_order", "normaliser", "layers", "size"}


@dataclass(frozen=True)
class Slot:
    """Where one tensor lies in the flat vector: `flat[offset : offset + prod(shape)].reshape(shape)`."""

    offset: int
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def is_width(size: object) -> bool:
    """Whether it is a size of observations, actions or hidden layers that policies can have."""
    return type(size) is int and 1 <= size <= MAX_WIDTH


def parsed(text: str) -> dict[str, Any]:
    """The JSON object that a specification's text is. Raises ConfigError for any other text."""
    try:
        return parse_json(text.encode(), "the policy specification")
    except (DatasetError, UnicodeError) as error:
        raise ConfigError(printable(error, 300)) from error


def _is_float32(value: object) -> bool:
    """Whether a number is finite as a float32, whole ones as JAX takes them."""
    if type(value) is int:
        return abs(value) < 1 << 31
    return isinstance(value, float) and abs(value) < LARGEST


@dataclass(frozen=True)
class Normaliser:
    """A fixed observation normaliser: (observation − mean) / std, then clipped to ±clip."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    clip: float = 10.0

    def to_dict(self) -> dict[str, Any]:
        return {"mean": list(self.mean), "std": list(self.std), "clip": self.clip}


class Described:
    """What is stored of an architecture, of any kind, and its id."""

    def to_dict(self) -> dict[str, Any]:
        """The specification as plain JSON values."""
        raise NotImplementedError

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces. Equal specifications give equal text."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False)

    @cached_property
    def id(self) -> str:
        """SHA-256 of the canonical JSON, in hexadecimal."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


@dataclass(frozen=True)
class PolicySpec(Described):
    """A multilayer perceptron: observation → action, the action in [−1, 1] unless `output` is identity.

    Layer l computes `activation(x @ kernel_l + bias_l)` with kernel_l of shape [inputs, outputs]; the last layer uses
    `output` in place of `activation`. The flat vector holds kernel_0, bias_0, kernel_1, … each in C order.

    With `layer_norm` (Ba et al. 2016), hidden layers normalise over their units before the activation; norm_scale_l and
    norm_bias_l follow bias_l in the vector. `gaussian` policies end it with log_std [actions], the same in all states:
    they act as `output(x + exp(log_std) · noise)` with standard normal noise ("sampled"), or leave the noise out
    ("mean"). The two are different specifications, so that every row tells how it was evaluated.
    """

    observation_size: int
    action_size: int
    hidden: tuple[int, ...] = (64, 64)
    activation: str = "tanh"
    output: str = "tanh"
    bias: bool = True
    normaliser: Normaliser | None = None
    layer_norm: bool = False
    gaussian: str | None = None  # "mean" or "sampled"; None: the output is the action

    def __post_init__(self) -> None:
        self._check_sizes()
        for name, got, known in (("activation", self.activation, ACTIVATIONS), ("output", self.output, OUTPUTS)):
            if got not in known:
                raise ConfigError(f"{name} is {shown(got)}; choose one of {', '.join(known)}.")
        if self.gaussian is not None and self.gaussian not in GAUSSIAN:
            raise ConfigError(f"gaussian is {shown(self.gaussian)}; choose one of {', '.join(GAUSSIAN)}, or none.")
        if self.layer_norm and not self.hidden:
            raise ConfigError("layer_norm normalises hidden layers, and this policy has none; leave it out.")
        if self.normaliser is not None:
            sizes = {len(self.normaliser.mean), len(self.normaliser.std)}
            if sizes != {self.observation_size}:
                raise ConfigError(
                    f"the normaliser has {sorted(sizes)} entries; the policy observes {self.observation_size} numbers."
                )
            values = (*self.normaliser.mean, *self.normaliser.std, self.normaliser.clip)
            if not all(map(_is_float32, values)) or min(self.normaliser.std) < SMALLEST:
                raise ConfigError("the normaliser needs finite means and finite, positive standard deviations.")

    def _check_sizes(self) -> None:
        """Raises ConfigError for sizes that no policy has, before anything is made of them."""
        for name, size in (("observation_size", self.observation_size), ("action_size", self.action_size)):
            if not is_width(size):
                raise ConfigError(f"{name} is {shown(size)}; a policy needs a whole number from 1 to {MAX_WIDTH:,}.")
        if len(self.hidden) >= MAX_LAYERS:
            raise ConfigError(f"got {len(self.hidden):,} hidden layers; a policy has fewer than {MAX_LAYERS}.")
        if not all(map(is_width, self.hidden)):
            raise ConfigError(
                f"hidden layer widths are {shown(self.hidden)}; each must be a whole number from 1 to {MAX_WIDTH:,}."
            )
        if self.size > MAX_SIZE:
            raise ConfigError(
                f"a policy {printable(self)} has {self.size:,} parameters; at most {MAX_SIZE:,} are possible."
            )

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Observation size, hidden widths, action size."""
        return (self.observation_size, *self.hidden, self.action_size)

    @property
    def bounded(self) -> bool:
        """Whether actions lie in [−1, 1]."""
        return self.output != "identity"

    @property
    def sampled(self) -> bool:
        """Whether actions are drawn, so that returns vary from a fixed start too."""
        return self.gaussian == "sampled"

    @cached_property
    def tensors(self) -> Mapping[str, Slot]:
        """Tensor name → its place in the flat vector, in the vector's order."""
        slots: dict[str, Slot] = {}
        offset = 0
        for layer, (inputs, outputs) in enumerate(zip(self.sizes[:-1], self.sizes[1:], strict=True)):
            shapes: list[tuple[str, tuple[int, ...]]] = [("kernel", (inputs, outputs))]
            if self.bias:
                shapes.append(("bias", (outputs,)))
            if self.layer_norm and layer < len(self.hidden):
                shapes += [("norm_scale", (outputs,)), ("norm_bias", (outputs,))]
            for name, shape in shapes:
                slots[f"layer_{layer}/{name}"] = slot = Slot(offset, shape)
                offset += slot.size
        if self.gaussian is not None:
            slots["log_std"] = Slot(offset, (self.action_size,))
        return slots

    @cached_property
    def size(self) -> int:
        """Number of parameters P of the flat vector."""
        return sum(slot.size for slot in self.tensors.values())

    def to_dict(self) -> dict[str, Any]:
        """The specification as plain JSON values: all a stranger needs to unflatten and run the policy."""
        last = len(self.sizes) - 2
        places = {name: {"offset": slot.offset, "shape": list(slot.shape)} for name, slot in self.tensors.items()}
        # What a policy does not have is not there, also not as null: ids of older specifications stay what they are.
        gaussian = {} if self.gaussian is None else {"evaluated": self.gaussian, "log_std": places.pop("log_std")}
        tensors: dict[str, dict[str, Any]] = {f"layer_{layer}": {} for layer in range(last + 1)}
        for name, place in places.items():
            layer, tensor = name.split("/")
            tensors[layer][tensor] = place
        layers = [
            {
                "name": f"layer_{layer}",
                "activation": self.output if layer == last else self.activation,
                "tensors": tensors[f"layer_{layer}"],
            }
            | ({"norm": {"epsilon": EPSILON}} if self.layer_norm and layer < last else {})
            for layer in range(last + 1)
        ]
        return {
            "kind": "mlp",
            "observation_size": self.observation_size,
            "action_size": self.action_size,
            "dtype": "float32",
            "flatten_order": "C",
            "normaliser": None if self.normaliser is None else self.normaliser.to_dict(),
            "layers": layers,
            "size": self.size,
        } | ({"gaussian": gaussian} if gaussian else {})

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> PolicySpec:
        """Inverse of `to_dict`. Raises ConfigError unless the value describes exactly what we would write ourselves."""
        try:
            layers = value["layers"]
            hidden = tuple(layer["tensors"]["kernel"]["shape"][1] for layer in layers[:-1])
            normaliser = value["normaliser"]
            spec = cls(
                observation_size=value["observation_size"],
                action_size=value["action_size"],
                hidden=hidden,
                activation=layers[0]["activation"] if hidden else "tanh",
                output=layers[-1]["activation"],
                bias="bias" in layers[0]["tensors"],
                normaliser=None
                if normaliser is None
                else Normaliser(tuple(normaliser["mean"]), tuple(normaliser["std"]), normaliser["clip"]),
                layer_norm="norm" in layers[0],
                gaussian=value["gaussian"]["evaluated"] if "gaussian" in value else None,
            )
        except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
            raise ConfigError(
                f"the policy specification cannot be read ({type(error).__name__}: {printable(error)}); "
                f"it needs the keys {', '.join(sorted(_KEYS))}."
            ) from error
        if spec.to_dict() != dict(value):
            raise ConfigError("the policy specification contradicts itself: offsets, shapes or size do not add up.")
        return spec

    @classmethod
    def from_json(cls, text: str) -> PolicySpec:
        """Inverse of `to_json`. Raises ConfigError for what is none, which may be somebody's trick."""
        return cls.from_dict(parsed(text))

    def __str__(self) -> str:
        kinds = ["+layernorm"] * self.layer_norm + [f"+gaussian-{self.gaussian}"] * (self.gaussian is not None)
        return "-".join(map(str, self.sizes)) + "".join(kinds)
