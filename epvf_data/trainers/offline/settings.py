"""The settings of offline training, checked when they are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from epvf_data.config import MAX_FLOAT, check_one_of, check_range
from epvf_data.critics.families import CRITICS, Family, check_name, resolve
from epvf_data.critics.settings import Conservative, CriticSettings
from epvf_data.errors import ConfigError

# Name → what the test rows are, as a sentence about the critic begins.
SPLITS = {
    "iid": "On held-out policies whose relatives it has seen",
    "lineage": "On families of policies that it never saw",
    "high": "On the policies of the highest returns, none of which it saw",
    "source": "On policies made in a way that it never saw",
    "architecture": "On policies of an architecture that it never saw",
}
PAIR = ("iid", "lineage")
TARGETS = ("mean return over episodes",)
QUICK = {"seeds": 1, "folds": 1, "steps": 100, "resamples": 100}  # a first look; `quicker` says at what cost
_FEWEST = 10  # epochs
MAX_MEMBERS, MAX_OUTPUTS = 1_000, 100_000  # critics side by side, and numbers that all of them give for a policy


def headline(available: Sequence[str]) -> str:
    """The split that speaks for a run: unseen families where there are some, which no relative gives away."""
    return "lineage" if "lineage" in available else available[0]


def parse_splits(text: str) -> tuple[str, ...]:
    """ "both" (iid and lineage), "all", or names with commas between them. Raises ValueError naming an unknown one."""
    if text in ("both", "all"):
        return PAIR if text == "both" else tuple(SPLITS)
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in SPLITS:
            raise ValueError(name)
    return tuple(dict.fromkeys(names))


def check_splits(text: str) -> None:
    """Raises ConfigError for names of splits that `parse_splits` does not know."""
    try:
        parse_splits(text)
    except ValueError as error:
        check_one_of("split", str(error), (*SPLITS, "both", "all"))


@dataclass(frozen=True, kw_only=True)
class OfflineConfig(CriticSettings):
    """What is fitted, on which rows, and how long. Raises ConfigError for values that make no sense."""

    # A name of critics.CRITICS, FILE.py:FUNCTION, or a CriticFamily; by default what ranks unseen families best.
    critic: str | Family = "ridge-actions"
    split: str = "both"  # names of splits with commas between them; "both": iid and lineage; "all"
    seeds: int = 5  # critics trained side by side from different initialisations on the same batches
    steps: int = 300  # batches that every critic sees at least, where `epochs` is left out
    epochs: int | None = None  # at most; None: as many as give `steps`, and at least 10
    patience: int | None = (
        None  # epochs without a better validation loss of any seed; None: a fifth of epochs, at least 3
    )
    batch_size: int = 256
    learning_rate: float = 3e-4  # falls to zero along a cosine
    weight_decay: float = 3.0  # P parameters outnumber the rows, so decay is strong
    clip: float = 1.0  # limit on the norm of a gradient
    folds: int = 5  # by lineage: every family is held out once; 1: a tenth of the rows, once
    test_fraction: float = 0.1  # of splits without folds
    held_out: str | None = None  # source or (the beginning of the) id of the architecture that those splits hold out
    validation_fraction: float = 0.1  # of the training rows; they choose the epoch and the ridge's penalty
    seed: int = 0  # of the splits, the order of the batches and the first critic
    architecture: str | None = None  # id of the policies to learn from; None: all that the critic can read together
    target: str = TARGETS[0]
    conservative: float | None = None  # how far V may rise along a climb, in deviations of the return; None: at will
    climb_steps: int = 50  # of those climbs, whose rate is climb_rate · √(numbers that the critic reads)
    climb_rate: float = 0.05
    climb_rows: int = 32  # of a batch, from which is climbed
    checkpoint_seconds: float = 15.0  # between checkpoints; more often only costs time, results are the same
    device_bytes: int = 1 << 30  # policies beyond this are streamed from the store in place of kept in memory
    devices: int | None = None  # at most so many share a fit; None: all that are here
    resamples: int = 400  # bootstrap resamples of the test rows

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.critic, str):
            check_name(self.critic)
        else:  # what was passed from Python, as settings have it
            object.__setattr__(self, "critic", resolve(self.critic))
        check_one_of("target", self.target, TARGETS)
        check_splits(self.split)
        if self.widths is not None and any(not isinstance(width, int) for width in self.widths):
            raise ConfigError(f"the critic's widths are {self.widths!r}; each must be a whole number of at least 1.")
        check_range(self, "", 1, MAX_MEMBERS, "seeds")
        check_range(self, "", 1, 10**6, "steps", "epochs", "patience")
        check_range(self, "", 1, 10**7, "batch_size")
        check_range(self, "", 1, 10_000, "folds")
        check_range(self, "", 1, 10_000, "resamples", "devices")
        check_range(self, "", 0, MAX_FLOAT, "learning_rate", "clip", above=True)
        check_range(self, "", 0, MAX_FLOAT, "weight_decay", "checkpoint_seconds", "conservative")
        check_range(self, "", 0, MAX_FLOAT, "climb_rate", above=True)
        check_range(self, "", 1, 10_000, "climb_steps", "climb_rows")
        check_range(self, "", 0, 1 << 63, "seed", "device_bytes")
        for name in ("test_fraction", "validation_fraction"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must lie between 0 and 1.")
        outputs = self.members * (self.bins if self.loss == "hl-gauss" else 1)
        if self.members > MAX_MEMBERS or outputs > MAX_OUTPUTS:
            raise ConfigError(
                f"seeds × ensemble is {self.members:,}, which give {outputs:,} numbers for a policy; at most "
                f"{MAX_MEMBERS:,} critics and {MAX_OUTPUTS:,} numbers are allowed."
            )
        if self.closed and (self.loss, self.ensemble, self.conservative) != ("mse", 1, None):
            raise ConfigError(
                f"{self.critic} is solved in closed form; leave loss, ensemble and conservative alone, or take another "
                "critic (--critic linear, stored-probing, mlp)."
            )

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        return parse_splits(self.split)

    @property
    def fits(self) -> int:
        """How often all critics are fitted: once for each split, by lineage for each fold."""
        return sum(self.folds if name == "lineage" else 1 for name in self.splits)

    @property
    def closed(self) -> bool:
        """Whether the critic is solved in closed form, once for all seeds."""
        return isinstance(self.critic, str) and self.critic in CRITICS and CRITICS[self.critic].closed

    @property
    def members(self) -> int:
        """Critics trained side by side: seeds times the size of an ensemble."""
        return self.seeds * self.ensemble

    @property
    def conservatism(self) -> Conservative | None:
        """The conservative term of the loss, if there is one."""
        if self.conservative is None:
            return None
        return Conservative(self.conservative, self.climb_steps, self.climb_rate, self.climb_rows)

    def plan(self, steps: int) -> tuple[int, int]:
        """Epochs, and patience in epochs, for so many steps an epoch."""
        epochs = self.epochs or max(_FEWEST, -(-self.steps // steps))
        return epochs, self.patience or max(3, epochs // 5)

    def quicker(self, epochs: int) -> int:
        """How many times fewer batches, seeds counted, a first look fits than this run of so many epochs.

        What was stated is kept there: number of epochs, of steps, of seeds.
        """
        stated = self.epochs is not None or self.steps != OfflineConfig.steps
        quick = epochs if stated else max(_FEWEST, -(-epochs * QUICK["steps"] // self.steps))
        fits = self.fits / len(self.splits) if self.folds == OfflineConfig.folds else 1
        return round(epochs / quick * fits * (self.seeds if self.seeds == OfflineConfig.seeds else 1))
