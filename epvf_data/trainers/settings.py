"""The settings of offline training, checked when they are made."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from epvf_data.critics import CRITICS, Critic, mlp
from epvf_data.errors import ConfigError

SPLITS = {"iid": ("iid",), "lineage": ("lineage",), "both": ("iid", "lineage")}
TARGETS = ("mean return over episodes",)


@dataclass(frozen=True)
class OfflineConfig:
    """What is fitted, on which rows, and how long. Raises ConfigError for values that make no sense."""

    critic: str = "mlp"  # a name of critics.CRITICS
    split: str = "both"  # "iid": any rows are held out; "lineage": whole families of related policies; "both"
    seeds: int = 3  # critics trained side by side from different initialisations on the same batches
    epochs: int | None = None  # None: as many as give 300 steps, and at least 10
    patience: int | None = (
        None  # epochs without a better validation loss of any seed; None: a fifth of epochs, at least 3
    )
    batch_size: int = 256
    learning_rate: float = 3e-4  # falls to zero along a cosine
    weight_decay: float = 3.0  # P parameters outnumber the rows, so decay is strong
    clip: float = 1.0  # limit on the norm of a gradient
    widths: tuple[int, ...] = (256, 256)  # hidden layers of the MLP
    test_fraction: float = 0.1
    validation_fraction: float = 0.1  # of the training rows; they choose the epoch and the ridge's penalty
    seed: int = 0  # of the splits, the order of the batches and the first critic
    architecture: str | None = None  # id of the policies to learn from; None where the data set has one only
    target: str = TARGETS[0]
    checkpoint_seconds: float = 15.0  # between checkpoints; more often only costs time, results are the same
    device_bytes: int = 1 << 30  # parameters beyond this are streamed from the store in place of kept in memory
    resamples: int = 400  # bootstrap resamples of the test rows

    def __post_init__(self) -> None:
        for name, known in (("critic", CRITICS), ("split", SPLITS), ("target", TARGETS)):
            if (got := getattr(self, name)) not in known:
                near = difflib.get_close_matches(str(got), known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(known)}."
                raise ConfigError(f"there is no {name} {got!r}; {hint}")
        for name in ("seeds", "epochs", "patience", "batch_size", "resamples"):
            got = getattr(self, name)
            if got is not None and got < 1:
                raise ConfigError(f"{name} is {got}; it must be at least 1.")
        for name in ("test_fraction", "validation_fraction"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must lie between 0 and 1.")
        for name in ("learning_rate", "clip"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be above 0.")
        for name in ("seed", "weight_decay", "checkpoint_seconds", "device_bytes"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must not be negative.")
        self.build_critic()

    def build_critic(self) -> Critic:
        """The critic that the settings name."""
        return mlp(self.widths) if self.critic == "mlp" else CRITICS[self.critic]()

    def plan(self, rows: int) -> tuple[int, int, int]:
        """Epochs, steps an epoch and patience in epochs, for so many fitting rows."""
        steps = -(-rows // self.batch_size)
        epochs = self.epochs or max(10, -(-300 // steps))
        return epochs, steps, self.patience or max(3, epochs // 5)
