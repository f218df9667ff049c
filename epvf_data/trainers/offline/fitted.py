"""A split's critic as its checkpoints have it, ready to predict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from epvf_data.critics.base import Critic, Params, make_row
from epvf_data.critics.families import family_of
from epvf_data.critics.losses import make_loss
from epvf_data.critics.ridge import ridge
from epvf_data.critics.value import combine
from epvf_data.critics.zoo import make_critic
from epvf_data.errors import RunError
from epvf_data.policies.kinds import Spec
from epvf_data.policies.probe import probe
from epvf_data.trainers import checkpoint
from epvf_data.trainers.fit import Fit, FitState, make_fit, make_optimiser
from epvf_data.trainers.mesh import Layout, make_layout
from epvf_data.trainers.offline.batches import Shape, shape_epoch, stream_seed
from epvf_data.trainers.offline.ground import Ground, restore_ground
from epvf_data.trainers.offline.settings import OfflineConfig
from epvf_data.trainers.offline.source import Rows, Source

_BLOCK = 1024  # rows predicted at a time; one shape, so one compilation
FINAL = ("best", "best_epoch", "epoch", "seconds")  # fields of Progressed that a finished split keeps
_CALIBRATION = 4096  # fitting rows that give an order the units of the return


class Progressed(NamedTuple):
    """What training carries from epoch to epoch, over S members (seeds × ensemble), as stored."""

    state: FitState
    best: Params  # of each member's best epoch by validation loss
    best_loss: Float[np.ndarray, "S"]
    best_epoch: Int[np.ndarray, "S"]
    epoch: Int[np.ndarray, ""]
    seconds: Float[np.ndarray, ""]


class Setup(NamedTuple):
    """The functions of one split's training, and how long it is."""

    critic: Critic
    fit: Fit
    shape: Shape
    epochs: int
    patience: int
    specs: tuple[Spec | None, ...]
    layout: Layout


def set_up(source: Source, ground: Ground, config: OfflineConfig) -> Setup:
    """The critic and its training on these rows. Deterministic: a resumed run gets the same."""
    shape = shape_epoch(tuple(len(rows) for rows in source.local(ground.fit)), config.batch_size)
    epochs, patience = config.plan(shape.steps)
    loss = make_loss(config.loss, ground.support, config.bins)
    critic = critic_of(source, config, loss.outputs)
    reads_theta = family_of(config.critic).reads == "params"
    specs = tuple(table.spec if reads_theta else None for table in source.tables)
    optimiser = make_optimiser(config.learning_rate, config.weight_decay, epochs * shape.steps, config.clip)
    seed = stream_seed(config.seed, "augment")
    layout = make_layout(config.members, shape.sizes, config.devices)
    fit = make_fit(critic, optimiser, specs, loss, config, seed, config.conservatism, layout)
    return Setup(critic, fit, shape, epochs, patience, specs, layout)


def critic_of(source: Source, config: OfflineConfig, outputs: int = 1) -> Critic:
    """The critic of the settings for these rows. Raises ConfigError where the user's own cannot be fitted to them."""
    table = source.tables[0]
    return make_critic(config.critic, config, table.spec, outputs, source.sizes[0], table.probe_states)


def member_keys(config: OfflineConfig) -> Array:
    """One key for each member; it does not depend on how many there are."""
    return jnp.stack([jax.random.key(stream_seed(config.seed, "init", member)) for member in range(config.members)])


def template(setup: Setup, config: OfflineConfig) -> Progressed:
    """Shapes and dtypes of what a checkpoint holds, without computing anything."""
    state = jax.eval_shape(lambda: setup.fit.init(member_keys(config)))
    leaves: list[Any] = [jax.ShapeDtypeStruct((config.members,), dtype) for dtype in (np.float32, np.int32)]
    leaves += [jax.ShapeDtypeStruct((), dtype) for dtype in (np.int32, np.float64)]
    return Progressed(state, state.params, *leaves)


@dataclass(frozen=True, eq=False)
class FittedSplit:
    """A split's critic and ridges, ready to predict."""

    source: Source
    ground: Ground
    config: OfflineConfig
    setup: Setup
    params: Params  # leading axis S
    epochs: int
    best_epochs: list[int]
    seconds: float  # of fitting, over all interruptions
    finished: bool

    def members(self, rows: Rows) -> Float[np.ndarray, "seeds ensemble n"]:
        """Returns predicted by every member."""
        if self.config.closed:
            return self.ridge(rows)[None]
        found = self.values(outputs_of(self.setup, self.params, self.source, rows, self.ground))
        return found.reshape(self.config.seeds, self.config.ensemble, -1)

    def predict(self, rows: Rows) -> Float[np.ndarray, "seeds n"]:
        """Returns predicted by every seed: of an ensemble what its bound says."""
        return combine(self.members(rows), self.config.bound)

    def value(self, place: int, theta: Float[Array, "P"], seed: int | None = None) -> Float[Array, "seeds"]:
        """V of one policy of architecture number `place` by every seed, or by one; differentiable with respect to θ."""
        size = self.config.ensemble
        own = None if seed is None else slice(seed * size, (seed + 1) * size)
        return combine(self.each(place, theta, own).reshape(-1, size), self.config.bound, 1)

    def each(self, place: int, theta: Float[Array, "P"], some: slice | Array | None = None) -> Float[Array, "M"]:
        """V of one policy by every member (all ensembles' seeds), or by some; differentiable with respect to θ.

        `some` may be the members' numbers, which need not be known when this is compiled.
        """
        table, scale = self.source.tables[place], self.ground.scales[place]
        vector, ridge = theta, self.config.closed
        if self.source.column == "probe_actions":
            vector = jnp.ravel(probe(table.spec, theta, jnp.asarray(table.probe_states)))
        row = make_row(scale, vector, table.spec)
        params = self.ground.planes[place] if ridge else self.params
        slope, bias = (np.ones(1), np.zeros(1)) if ridge else self.calibration
        if some is not None:
            params, slope, bias = jax.tree.map(lambda leaf: jnp.asarray(leaf)[some], (params, slope, bias))
        outputs = jax.vmap(self.setup.critic.apply, in_axes=(0, None))(params, row)
        read = self.setup.fit.value(outputs, scale)
        return jnp.asarray(slope, jnp.float32) * read + jnp.asarray(bias, jnp.float32)

    def predict_elsewhere(self, other: Source, place: int) -> Float[np.ndarray, "seeds n"]:
        """Returns of all rows of a source of one architecture, scaled as rows of architecture number `place` were."""
        spec = other.specs[0] if self.source.column == "params" else None
        scale, pieces = self.ground.scales[place], []
        if other.sizes[0] != len(scale.theta_mean):  # an architecture that was not there; only its actions are read
            size = other.sizes[0]
            scale = scale._replace(theta_mean=np.zeros(size, np.float32), theta_std=np.ones(size, np.float32))
        params = self.ground.planes[place] if self.config.closed else self.params
        for vectors, keep in _read(other, 0, np.arange(other.tables[0].rows)):
            pieces.append(np.asarray(self.setup.fit.outputs(params, vectors, scale, spec))[:, :keep])
        found = np.concatenate(pieces, axis=1)
        if self.config.closed:
            return np.asarray(self.setup.fit.value(found, scale), np.float64)
        return combine(self.values(found).reshape(self.config.seeds, self.config.ensemble, -1), self.config.bound)

    def ridge(self, rows: Rows) -> Float[np.ndarray, "1 n"]:
        """Returns predicted by the plane of each row's architecture."""
        found = np.empty((1, len(rows)))
        places = self.source.places(rows)
        for place, (plane, scale) in enumerate(zip(self.ground.planes, self.ground.scales, strict=True)):
            fit = make_fit(ridge(self.source.sizes[place]), make_optimiser())
            mine = places == place
            local = rows[mine] - self.source.starts[place]
            pieces = [
                fit.outputs(plane, vectors, scale)[:, :keep] for vectors, keep in _read(self.source, place, local)
            ]
            if pieces:
                found[:, mine] = fit.value(np.concatenate(pieces, axis=1).astype(np.float64), scale)
        return found

    def values(self, outputs: Float[np.ndarray, "S n outputs"]) -> Float[np.ndarray, "S n"]:
        """Outputs in units of the return."""
        read = np.asarray(self.setup.fit.value(outputs, self.ground.scales[0]), np.float64)
        slope, bias = self.calibration
        return slope[:, None] * read + bias[:, None]

    @cached_property
    def calibration(self) -> tuple[Float[np.ndarray, "S"], Float[np.ndarray, "S"]]:
        """Slope and bias of each member that give an order the units of the return: least squares on fitting rows."""
        count = self.config.members
        if self.setup.fit.loss.calibrated:
            return np.ones(count), np.zeros(count)
        fit = self.ground.fit
        rows = fit[np.linspace(0, len(fit) - 1, min(_CALIBRATION, len(fit))).astype(int)]
        with jax.ensure_compile_time_eval():  # who asks first may be a gradient that is being compiled
            outputs = outputs_of(self.setup, self.params, self.source, rows, self.ground)
            scores = np.asarray(self.setup.fit.value(outputs, self.ground.scales[0]), np.float64)
        labels = self.source.labels[rows]
        centred = scores - scores.mean(1, keepdims=True)
        spread = np.square(centred).mean(1)
        slope = np.maximum(0.0, (centred * (labels - labels.mean())).mean(1) / np.where(spread > 0, spread, 1.0))
        return slope, labels.mean() - slope * scores.mean(1)


def held_out(folds: Sequence[FittedSplit]) -> tuple[Rows, Float[np.ndarray, "seeds n"]]:
    """The held-out rows of a split, fold after fold, and what those critics predict that saw none of their fold."""
    rows = [one.ground.split.test for one in folds]
    predicted = [one.predict(own) for one, own in zip(folds, rows, strict=True)]
    return np.concatenate(rows), np.concatenate(predicted, axis=1)


def held_out_ridge(folds: Sequence[FittedSplit]) -> Float[np.ndarray, "1 n"]:
    """The same of the folds' ridges."""
    return np.concatenate([one.ridge(one.ground.split.test) for one in folds], axis=1)


def fold_name(split: str, fold: int) -> str:
    """What the folder of a fold's checkpoints is called, and what progress calls it: of the first as the split."""
    return split if fold == 0 else f"{split}-{fold + 1}"


def load_fitted(source: Source, name: str, config: OfflineConfig, directory: Path) -> FittedSplit | None:
    """The split as its checkpoints have it, or None before the first; of an unfinished run, the best epoch so far."""
    folder = directory / "checkpoints" / name
    if checkpoint.latest(folder / "ground") is None:
        return None
    ground = restore_ground(folder / "ground", source)
    setup = set_up(source, ground, config)
    if config.closed:
        return FittedSplit(source, ground, config, setup, None, 0, [], float(ground.seconds), True)
    finished = checkpoint.latest(folder / "final") is not None
    if not finished and checkpoint.latest(folder / "epochs") is None:
        return None
    stored = restore_progress(folder / ("final" if finished else "epochs"), setup, config, FINAL if finished else ())
    if not checkpoint.finite(stored["best"]):
        raise RunError(f"{folder} holds critics whose parameters are not finite; train the run again.")
    seconds = float(ground.seconds) + float(stored["seconds"])
    best_epochs = [int(epoch) for epoch in stored["best_epoch"]]
    return FittedSplit(
        source, ground, config, setup, stored["best"], int(stored["epoch"]), best_epochs, seconds, finished
    )


def restore_progress(folder: Path, setup: Setup, config: OfflineConfig, names: tuple[str, ...] = ()) -> dict[str, Any]:
    """The fields of Progressed, or those named, as stored. Raises RunError for counters that no training reaches."""
    shapes = template(setup, config)._asdict()
    found = checkpoint.restore(folder, {name: shapes[name] for name in names or shapes})
    epoch, best = int(found["epoch"]), found["best_epoch"]
    if not (0 <= best.min() <= best.max() <= epoch <= setup.epochs and 0 <= found["seconds"] < np.inf):
        raise RunError(
            f"{folder} is of epoch {epoch} of {setup.epochs}, which no training leaves; train the run again."
        )
    return found


def outputs_of(
    setup: Setup, params: Params, source: Source, rows: Rows, ground: Ground
) -> Float[np.ndarray, "S n outputs"]:
    """The critics' own outputs, in standardised units; blocks of one shape bound memory and compile once."""
    places = source.places(rows)
    found = None
    for place in np.unique(places).tolist():
        mine = places == place
        local = rows[mine] - source.starts[place]
        scale = ground.scales[place]
        pieces = [
            np.asarray(setup.fit.outputs(params, vectors, scale, setup.specs[place]))[:, :keep]
            for vectors, keep in _read(source, place, local)
        ]
        piece = np.concatenate(pieces, axis=1)
        if found is None:
            found = np.empty((piece.shape[0], len(rows), piece.shape[2]), np.float32)
        found[:, mine] = piece
    assert found is not None  # a split has rows
    return found


def _read(source: Source, place: int, rows: Rows) -> Iterable[tuple[Float[np.ndarray, "b D"], int]]:
    """Vectors in blocks of one size, and how many of each are rows."""
    for start in range(0, len(rows), _BLOCK):
        vectors = source.read(place, rows[start : start + _BLOCK])
        yield np.pad(vectors, ((0, _BLOCK - len(vectors)), (0, 0))), len(vectors)
