"""The settings of a critic, which offline and online training share."""

from __future__ import annotations

from dataclasses import dataclass

from epvf_data.config import MAX_FLOAT, check_one_of, check_range
from epvf_data.errors import ConfigError

LOSSES = ("mse", "hl-gauss", "rank", "listnet", "rank-top")
FIXED = ("position", "fold")
BOUNDS = ("mean", "min", "lower")
AUGMENTS = ("none", "permute", "flip", "both")
DTYPES = ("float32", "bfloat16")
STARTS = ("states", "noise")
MAX_LAYERS = 64


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
    loss: str = "mse"  # "hl-gauss": a histogram of returns; the others: an order, see losses.py
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
        check_range(self, "", 1, 1 << 16, "widths", "channels")
        check_range(self, "", 1, MAX_LAYERS, "layers")
        check_range(self, "", 1, 100_000, "probes")
        check_range(self, "", 1, 1_000, "ensemble")
        check_range(self, "", 1, 10**8, "block")
        check_range(self, "", 2, 10_000, "bins")
        check_range(self, "", 0, MAX_FLOAT, "gradient_penalty")
        if self.widths is not None and len(self.widths) > MAX_LAYERS:
            raise ConfigError(f"widths has {len(self.widths)} layers; a critic has at most {MAX_LAYERS}.")


@dataclass(frozen=True)
class Conservative:
    """How conservative a critic is, and by which climbs."""

    limit: float = 0.5  # of E V(z⁻) − E V(z), in standardised returns
    steps: int = 50  # T
    rate: float = 0.05  # η
    rows: int = 32  # policies of a batch from which is climbed
    dual_rate: float = 0.05  # of log α
    first: float = 0.1  # α at the start
