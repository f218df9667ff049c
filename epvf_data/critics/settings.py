"""The settings of a critic, which offline and online training share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from epvf_data.critics.losses import LOSSES
from epvf_data.critics.unf import FIXED
from epvf_data.errors import ConfigError
from epvf_data.untrusted import shown

BOUNDS = ("mean", "min", "lower")
AUGMENTS = ("none", "permute", "flip", "both")
DTYPES = ("float32", "bfloat16")
STARTS = ("states", "noise")


@dataclass(frozen=True, kw_only=True)
class CriticSettings:
    """What a critic is made of. Raises ConfigError for values that make no sense."""

    widths: tuple[int, ...] | None = None  # of the MLP, or of the head behind other features; None: the family's own
    zero_last: bool = False  # the last layer starts at zero: no random gradient before anything is learned
    probes: int = 200  # learned probing states
    probe_start: str = "states"  # they start at recorded observations, or at standard normal ones ("noise")
    probe_generator: bool = False  # states are linear in learned codes
    channels: int = 16  # features of every weight in UNF
    layers: int = 3  # of UNF
    fixed: str = "position"  # how UNF tells inputs and outputs apart: "position" (embeddings) or "fold" (channels)
    remat: bool = False  # UNF computes its layers again in the backward pass in place of keeping them
    dtype: str = "float32"  # of UNF's features
    loss: str = "mse"  # "hl-gauss": a histogram of returns; "rank": the order of pairs
    bins: int = 101  # of the histogram
    ensemble: int = 1  # critics from different initialisations, fitted to the same batches
    bound: str = "mean"  # what an ensemble says: "mean", "min", or "lower" (mean − standard deviation)
    gradient_penalty: float = 0.0  # times the mean squared norm of ∂V/∂θ, in standardised units
    augment: str = "none"  # policies in a batch get hidden units renumbered, signs flipped (tanh only), or both
    block: int | None = None  # rows computed at a time, and again in the backward pass; None: the batch at once

    def __post_init__(self) -> None:
        check_one_of("loss", self.loss, LOSSES)
        check_one_of("bound", self.bound, BOUNDS)
        check_one_of("augment", self.augment, AUGMENTS)
        check_one_of("fixed", self.fixed, FIXED)
        check_one_of("dtype", self.dtype, DTYPES)
        check_one_of("probe_start", self.probe_start, STARTS)
        for name in ("probes", "channels", "layers", "ensemble", "block"):
            if (got := getattr(self, name)) is not None and got < 1:
                raise ConfigError(f"{name} is {got}; it must be at least 1.")
        if self.bins < 2:
            raise ConfigError(f"bins is {self.bins}; a histogram needs at least 2.")
        if not self.gradient_penalty >= 0:
            raise ConfigError(f"gradient_penalty is {self.gradient_penalty}; it must not be negative.")


def check_one_of(what: str, got: Any, known: Iterable[str]) -> None:
    """Raises ConfigError, with the nearest known name, for one that is not known."""
    known = list(known)
    if got not in known:
        near = difflib.get_close_matches(shown(got).strip("'"), known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(known)}."
        raise ConfigError(f"there is no {what} {shown(got)}; {hint}")
