"""Fully connected layers as arrays, and the changes that leave alone what they do. Computed in float64."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from epvf_data.errors import ArchitectureMismatchError, ConfigError


@dataclass(frozen=True)
class Layers:
    """x → … → x @ kernel + bias → …; kernels [inputs, outputs]. A bias that is None is zero."""

    kernels: tuple[Float[np.ndarray, "I O"], ...]
    biases: tuple[Float[np.ndarray, "O"] | None, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Observation size, hidden widths, outputs."""
        return (self.kernels[0].shape[0], *(kernel.shape[1] for kernel in self.kernels))

    @property
    def biased(self) -> bool:
        return any(bias is not None for bias in self.biases)

    def flat(self) -> Float[np.ndarray, "P"]:
        """Kernel, bias, kernel, … in float32, as a specification lays them out. Raises ConfigError if not finite."""
        parts = []
        for kernel, bias in zip(self.kernels, self.biases, strict=True):
            parts.append(np.ravel(kernel))
            if self.biased:
                parts.append(np.zeros(kernel.shape[1]) if bias is None else bias)
        with np.errstate(all="ignore"):
            flat = np.concatenate(parts).astype(np.float32)
        if not np.isfinite(flat).all():
            raise ConfigError(f"{np.count_nonzero(~np.isfinite(flat))} parameters of the policy are not finite.")
        return flat


def checked(
    names: Sequence[str], kernels: Sequence[np.ndarray], biases: Sequence[np.ndarray | None], turned: bool
) -> Layers:
    """Layers whose shapes fit each other, or an ArchitectureMismatchError with the `names`.

    `turned`: whether the matrices were [outputs, inputs] in the file, of which one can be mistaken.
    """
    for name, kernel in zip(names, kernels, strict=True):
        if kernel.ndim != 2 or 0 in kernel.shape:
            raise ArchitectureMismatchError(
                f"{name} has the shape {list(kernel.shape)}; a layer needs a matrix of weights."
            )
    for name, problem in _misfits(names, kernels, biases):
        if not [*_misfits(names, [kernel.T for kernel in kernels], biases)]:
            cure = f"they fit the other way round: --set transpose={str(not turned).lower()}."
        else:
            cure = "if other networks are numbered on, name the policy's layers under [tensors] in --spec."
        raise ArchitectureMismatchError(f"{name} {problem}; {cure}")
    with np.errstate(all="ignore"):  # `flat` refuses what is not finite
        return Layers(
            tuple(np.asarray(kernel, np.float64) for kernel in kernels),
            tuple(None if bias is None else np.asarray(bias, np.float64) for bias in biases),
        )


def _misfits(
    names: Sequence[str], kernels: Sequence[np.ndarray], biases: Sequence[np.ndarray | None]
) -> Iterator[tuple[str, str]]:
    """Layers that do not fit what is beside them: name, problem."""
    for layer, (name, kernel, bias) in enumerate(zip(names, kernels, biases, strict=True)):
        if layer and kernels[layer - 1].shape[1] != kernel.shape[0]:
            yield name, f"takes {kernel.shape[0]} numbers, but the layer before it gives {kernels[layer - 1].shape[1]}"
        if bias is not None and bias.shape != kernel.shape[1:]:
            yield name, f"has a bias of the shape {list(bias.shape)}, and {kernel.shape[1]} outputs"


def fold(layers: Layers, mean: Float[np.ndarray, "I"], std: Float[np.ndarray, "I"]) -> Layers:
    """Layers that do to x what these do to (x − mean) / std: that is linear, so it can be part of the first one."""
    kernel, bias = layers.kernels[0], layers.biases[0]
    with np.errstate(all="ignore"):  # `flat` refuses what is not finite
        kernel = kernel / std[:, None]
        bias = (0.0 if bias is None else bias) - mean @ kernel
    return Layers((kernel, *layers.kernels[1:]), (bias, *layers.biases[1:]))


def keep_outputs(layers: Layers, count: int) -> Layers:
    """The layers with the first `count` outputs alone."""
    kernel, bias = layers.kernels[-1][:, :count], layers.biases[-1]
    biases = (*layers.biases[:-1], None if bias is None else bias[:count])
    return Layers((*layers.kernels[:-1], kernel), biases)


def rescale(layers: Layers, low: Float[np.ndarray, "A"], high: Float[np.ndarray, "A"]) -> Layers:
    """Layers whose outputs −1 and 1 are `low` and `high` of these."""
    kernel, bias = layers.kernels[-1], layers.biases[-1]
    with np.errstate(all="ignore"):  # `flat` refuses what is not finite
        middle, half = (high + low) / 2, (high - low) / 2
        if bias is not None or middle.any():
            bias = ((0.0 if bias is None else bias) - middle) / half
        return replace(layers, kernels=(*layers.kernels[:-1], kernel / half), biases=(*layers.biases[:-1], bias))
