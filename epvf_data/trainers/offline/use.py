"""A fitted critic as a function of a policy's parameters: its value, its gradient, and how far to trust it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from epvf_data.errors import ArchitectureMismatchError, ConfigError
from epvf_data.policies.kinds import Spec
from epvf_data.policies.loading import PolicyCode
from epvf_data.store.reader import Dataset
from epvf_data.trainers.offline.fitted import FittedSplit
from epvf_data.trainers.offline.run import Own, choose_split, load_run

BATCH = 256  # policies at once: one compiled function for any number of them


@dataclass(frozen=True, eq=False)
class TrainedCritic:
    """V(θ) of a run of `train-offline`: `critic(theta)` predicts the mean return of an episode, in units of the return.

    `theta` is one policy's flat parameters [P] or those of several [N, P], as `spec.size` and the rows of a data set
    have them; a prediction is the mean over the run's seeds (each of which may be an ensemble). A policy far from all
    training rows gets a number, too: `interval` says how far off the critic was on held-out policies, no more.

    Methods raise ArchitectureMismatchError where the size is none of an architecture that the critic was fitted to.
    """

    run: Path
    split: str  # whose critics these are
    specs: tuple[Spec, ...]  # architectures that it was fitted to
    fitted: FittedSplit

    def __call__(self, theta: Float[np.ndarray, "P"] | Float[np.ndarray, "N P"]) -> float | Float[np.ndarray, "N"]:
        """The predicted return: a float for one policy, an array [N] for several."""
        found = self.seeds(theta).mean(-1)
        return float(found) if found.ndim == 0 else found

    def seeds(
        self, theta: Float[np.ndarray, "P"] | Float[np.ndarray, "N P"]
    ) -> Float[np.ndarray, "S"] | Float[np.ndarray, "N S"]:
        """What each seed predicts: their spread tells what training left open, not how wrong all of them are."""
        return self._run(0, theta)

    def grad(
        self, theta: Float[np.ndarray, "P"] | Float[np.ndarray, "N P"]
    ) -> Float[np.ndarray, "P"] | Float[np.ndarray, "N P"]:
        """∇V with respect to the parameters, of the mean over seeds."""
        return self._run(1, theta)

    def interval(
        self, theta: Float[np.ndarray, "P"] | Float[np.ndarray, "N P"], level: float = 0.9
    ) -> tuple[float | Float[np.ndarray, "N"], float | Float[np.ndarray, "N"]]:
        """The lowest and highest return that are plausible: V ± the error that `level` of the held-out policies keep.

        Split-conformal prediction (Lei et al. 2018, "Distribution-free predictive inference for regression"): the true
        return of one more policy of the kind that was held out lies inside with probability `level`, whatever the
        critic is; with the split "lineage" of another family, with "iid" of a relative. Policies that a search found
        are of no such kind. With fewer than level / (1 − level) held-out policies the interval is infinite.
        """
        if not 0 < level < 1:
            raise ConfigError(f"the level is {level}; expected a number between 0 and 1, as 0.9.")
        errors, rank = self._errors, int(np.ceil((len(self._errors) + 1) * level))
        half = float(errors[rank - 1]) if rank <= len(errors) else np.inf
        middle = self(theta)
        return middle - half, middle + half

    @cached_property
    def _errors(self) -> Float[np.ndarray, "held_out"]:
        """Absolute errors on the split's held-out rows, in ascending order; those of diverged episodes left out."""
        test = self.fitted.ground.test
        wrong = np.abs(self.fitted.predict(test).mean(0) - self.fitted.source.labels[test])
        return np.sort(wrong[np.isfinite(wrong)])

    def function(self, spec: Spec | None = None) -> Callable[[Float[Array, "P"]], Float[Array, ""]]:
        """V of one policy [P] → a scalar, as a pure function of JAX's for programs that are compiled as a whole."""
        place = 0 if spec is None else self._place(spec.size, spec)
        if not self.fitted.config.closed:
            _ = self.fitted.calibration  # measured before anything is traced
        return lambda theta: self.fitted.value(place, theta).mean()

    def _place(self, size: int, spec: Spec | None = None) -> int:
        found = [place for place, one in enumerate(self.specs) if (one.id == spec.id if spec else one.size == size)]
        if len(found) != 1:
            known = ", ".join(f"{one} ({one.size} parameters)" for one in self.specs)
            raise ArchitectureMismatchError(f"got {size} parameters a policy; {self.run} was fitted to {known}.")
        return found[0]

    def _run(self, derivative: int, theta: np.ndarray) -> np.ndarray:
        theta = np.asarray(theta, np.float32)
        if theta.ndim not in (1, 2):
            raise ArchitectureMismatchError(f"got parameters of shape {theta.shape}; expected [P] or [policies, P].")
        several = np.atleast_2d(theta)
        work = self._compiled(self._place(several.shape[1]), derivative)
        blocks = []
        for start in range(0, len(several), BATCH):
            block = several[start : start + BATCH]
            size = 1 if len(several) == 1 else BATCH
            padded = np.pad(block, ((0, size - len(block)), (0, 0)))
            blocks.append(np.asarray(work(jnp.asarray(padded)))[: len(block)])
        found = np.concatenate(blocks) if blocks else np.zeros((0, *theta.shape[1:]), np.float32)
        return found if theta.ndim == 2 else found[0]

    @lru_cache  # noqa: B019 (a critic lives as long as the process that looks at it)
    def _compiled(self, place: int, derivative: int):
        mean = self.function(self.specs[place])
        one = jax.grad(mean) if derivative else partial(self.fitted.value, place)
        return jax.jit(jax.vmap(one))


def load_critic(
    run_dir: str | Path,
    *,
    split: str | None = None,
    dataset: str | Path | Dataset | None = None,
    critic: Own | None = None,
    policy: PolicyCode | None = None,
) -> TrainedCritic:
    """The critic of a run of `train-offline`, ready to be asked: `load_critic("ant-mlp")(theta)`.

    `split` names whose critics these are, `lineage` if there are some, else the run's first. `dataset` is needed only
    where the rows that the run was started on have moved: they are read for the critic's scale and its intervals.
    `critic` names the critic again where it is one of your own, see `train_offline`: a run, which may be a stranger's,
    loads no code by itself. `policy` is the code of policies of your own, where the critic looks at their actions.

    Raises RunError where there is no run, no such split, no checkpoint yet, or where the rows are others.
    """
    name, fitted = choose_split(load_run(run_dir, dataset, critic, policy), split)
    return TrainedCritic(Path(run_dir), name, tuple(table.spec for table in fitted.source.tables), fitted)
