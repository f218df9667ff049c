"""Training of one split: scale, ridge, critic over seeds with early stopping, and checkpoints of all of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from epvf_data.critics import Params, Scale, ridge
from epvf_data.critics.ridge import fit_ridge
from epvf_data.errors import RunError
from epvf_data.trainers import checkpoint, rundir
from epvf_data.trainers.fit import Fit, FitState, make_fit, make_optimiser
from epvf_data.trainers.settings import OfflineConfig
from epvf_data.trainers.source import Rows, Source, Split, Stream, epoch_order, measure_scale, stream_seed

_FINAL = ("best", "best_epoch", "epoch", "seconds")  # fields of Progressed that a finished split keeps
_BLOCK = 1024  # rows predicted at a time; one shape, so one compilation


class Ground(NamedTuple):
    """What is settled before the first step, as stored: row numbers, scale, ridge."""

    fit: Rows
    validation: Rows
    test: Rows
    scale: dict[str, np.ndarray]
    ridge: dict[str, np.ndarray]
    penalty: Float[np.ndarray, ""]  # the ridge's λ / P
    ridge_rows: Int[np.ndarray, ""]  # training rows that the ridge was fitted on: all of them, unless that is too many
    seconds: Float[np.ndarray, ""]


class Progressed(NamedTuple):
    """What training carries from epoch to epoch, over S seeds, as stored."""

    state: FitState
    best: Params  # of each seed's best epoch by validation loss
    best_loss: Float[np.ndarray, "S"]
    best_epoch: Int[np.ndarray, "S"]
    epoch: Int[np.ndarray, ""]
    seconds: Float[np.ndarray, ""]


@dataclass(frozen=True, eq=False)
class FittedSplit:
    """A split's critic and ridge, ready to predict."""

    split: Split
    scale: Scale
    critic: Fit
    params: Params  # leading axis S
    ridge: Params
    penalty: float
    ridge_rows: int
    epochs: int
    best_epochs: list[int]
    seconds: float  # of fitting, over all interruptions
    finished: bool


def fit_split(
    source: Source,
    name: str,
    split: Split,
    config: OfflineConfig,
    directory: Path,
    progress: Callable[[dict[str, Any]], None] | None,
) -> FittedSplit:
    """Fits ridge and critic on the split's training rows, or goes on from the checkpoints in the run directory."""
    folder = directory / "checkpoints" / name
    if checkpoint.latest(folder / "ground") is None:
        checkpoint.save(folder / "ground", 0, _lay_ground(source, split)._asdict())
    ground = Ground(**checkpoint.restore(folder / "ground"))
    if config.critic != "ridge" and checkpoint.latest(folder / "final") is None:
        done = _train(source, name, ground, config, directory, progress)
        checkpoint.save(folder / "final", int(done.epoch), {name: getattr(done, name) for name in _FINAL})
    checkpoint.remove(folder / "epochs")
    fitted = load_fitted(source, name, config, directory)
    assert fitted is not None  # its checkpoint was just written
    return fitted


def load_fitted(source: Source, name: str, config: OfflineConfig, directory: Path) -> FittedSplit | None:
    """The split as its checkpoints have it, or None before the first; of an unfinished run, the best epoch so far."""
    folder = directory / "checkpoints" / name
    if checkpoint.latest(folder / "ground") is None:
        return None
    ground = Ground(**checkpoint.restore(folder / "ground"))
    scale = Scale(**ground.scale)
    plane = jax.tree.map(lambda leaf: leaf[None], ground.ridge)
    fit, _ = _make_fit(config, len(ground.fit))
    finished = True
    if config.critic == "ridge":
        params, best_epochs, epochs, seconds = plane, [], 0, 0.0
    else:
        template = _template(fit, source.size, config)
        if checkpoint.latest(folder / "final") is not None:
            shape = {"best": template.best, "best_epoch": template.best_epoch}
            stored = checkpoint.restore(
                folder / "final", {**shape, "epoch": template.epoch, "seconds": template.seconds}
            )
        elif checkpoint.latest(folder / "epochs") is not None:
            stored, finished = checkpoint.restore(folder / "epochs", template)._asdict(), False
        else:
            return None
        params, best_epochs = stored["best"], [int(epoch) for epoch in stored["best_epoch"]]
        epochs, seconds = int(stored["epoch"]), float(stored["seconds"])
    return FittedSplit(
        split=Split(ground.fit, ground.validation, ground.test),
        scale=scale,
        critic=fit,
        params=params,
        ridge=plane,
        penalty=float(ground.penalty),
        ridge_rows=int(ground.ridge_rows),
        epochs=epochs,
        best_epochs=best_epochs,
        seconds=float(ground.seconds) + seconds,
        finished=finished,
    )


def predict_rows(source: Source, rows: Rows, fitted: FittedSplit) -> dict[str, Float[np.ndarray, "S n"]]:
    """Predicted returns of the rows by {"critic" [S, n], "ridge" [1, n], "mean" [1, n]}."""
    plane = make_fit(ridge(), make_optimiser())
    return {
        "critic": _predict(fitted.critic, fitted.params, source, rows, fitted.scale),
        "ridge": _predict(plane, fitted.ridge, source, rows, fitted.scale),
        "mean": np.full((1, len(rows)), float(fitted.scale.return_mean)),
    }


def _lay_ground(source: Source, split: Split) -> Ground:
    """Scale and ridge from the training rows alone."""
    started = time.perf_counter()
    train = split.train
    scale = measure_scale(source, train)

    def read(start: int, stop: int) -> np.ndarray:
        return (source.read(train[start:stop]) - scale.theta_mean) / scale.theta_std

    targets = (source.labels[train] - float(scale.return_mean)) / float(scale.return_std)
    plane = fit_ridge(read, targets, np.isin(train, split.validation), source.size)
    return Ground(
        *split,
        scale=scale._asdict(),
        ridge={"weights": plane.weights, "bias": np.array(plane.bias, np.float32)},
        penalty=np.array(plane.penalty),
        ridge_rows=np.array(plane.rows),
        seconds=np.array(time.perf_counter() - started),
    )


def _make_fit(config: OfflineConfig, rows: int) -> tuple[Fit, int]:
    """The critic's functions and its number of epochs, for so many fitting rows."""
    epochs, steps, _ = config.plan(rows)
    optimiser = make_optimiser(config.learning_rate, config.weight_decay, epochs * steps, config.clip)
    return make_fit(config.build_critic(), optimiser), epochs


def _keys(config: OfflineConfig) -> Array:
    """One key for each seed; a seed's key does not depend on how many seeds there are."""
    return jnp.stack([jax.random.key(stream_seed(config.seed, "init", seed)) for seed in range(config.seeds)])


def _start(fit: Fit, size: int, config: OfflineConfig) -> Progressed:
    state = fit.init(_keys(config), size)
    return Progressed(
        state=state,
        best=jax.tree.map(jnp.copy, state.params),  # the state's own buffers are given away by the first step
        best_loss=np.full(config.seeds, np.inf, np.float32),
        best_epoch=np.zeros(config.seeds, np.int32),
        epoch=np.zeros((), np.int32),
        seconds=np.zeros(()),
    )


def _template(fit: Fit, size: int, config: OfflineConfig) -> Progressed:
    """Shapes and dtypes of what a checkpoint holds, without computing anything."""
    state = jax.eval_shape(lambda: fit.init(_keys(config), size))
    leaves: list[Any] = [jax.ShapeDtypeStruct((config.seeds,), dtype) for dtype in (np.float32, np.int32)]
    leaves += [jax.ShapeDtypeStruct((), dtype) for dtype in (np.int32, np.float64)]
    return Progressed(state, state.params, *leaves)


def _train(
    source: Source,
    name: str,
    ground: Ground,
    config: OfflineConfig,
    directory: Path,
    progress: Callable[[dict[str, Any]], None] | None,
) -> Progressed:
    """Epochs until all seeds stop improving on the validation rows, from the newest checkpoint where there is one."""
    folder = directory / "checkpoints" / name / "epochs"
    fit, epochs = _make_fit(config, len(ground.fit))
    patience = config.plan(len(ground.fit))[2]
    if checkpoint.latest(folder) is None:
        now = _start(fit, source.size, config)
    else:
        now = checkpoint.restore(folder, _template(fit, source.size, config))
    rundir.rewind_metrics(directory, lambda line: line["split"] != name or line["epoch"] <= int(now.epoch))
    run_epoch = _epoch_runner(source, ground, config, fit)
    started = saved = time.perf_counter()
    before = float(now.seconds)
    while int(now.epoch) < epochs and int(now.epoch) - int(now.best_epoch.max()) < patience:
        epoch = int(now.epoch) + 1
        state, train_loss, gradient_norm = run_epoch(now.state, epoch)
        losses = _validation_loss(fit, state.params, source, ground)
        if not (np.isfinite(losses).all() and np.isfinite(train_loss).all()):
            raise RunError(f"the loss is not finite after epoch {epoch} of the {name} split; lower learning_rate.")
        better = losses < now.best_loss
        now = Progressed(
            state=state,
            best=_keep_better(jnp.asarray(better), state.params, now.best),
            best_loss=np.where(better, losses, now.best_loss),
            best_epoch=np.where(better, epoch, now.best_epoch).astype(np.int32),
            epoch=np.array(epoch, np.int32),
            seconds=np.array(before + time.perf_counter() - started),
        )
        record = {"split": name, "epoch": epoch, "epochs": epochs}
        seeds = {"train_loss": train_loss, "validation_loss": losses, "gradient_norm": gradient_norm}
        record.update({key: [float(value) for value in values] for key, values in seeds.items()})
        rundir.append_metrics(directory, record)
        if progress is not None:
            progress({**record, "seconds": float(now.seconds)})
        if time.perf_counter() - saved >= config.checkpoint_seconds:
            checkpoint.save(folder, epoch, now)
            saved = time.perf_counter()
    return now


def _epoch_runner(source: Source, ground: Ground, config: OfflineConfig, fit: Fit) -> Callable[..., Any]:
    """(state, epoch) → (state, mean loss [S], mean gradient norm [S]): one scan on the device, or batches streamed."""
    scale = Scale(**ground.scale)
    if source.theta is not None:
        theta, labels = jnp.asarray(source.theta), jnp.asarray(source.labels, jnp.float32)

        def resident(state: FitState, epoch: int):
            index, weight = epoch_order(ground.fit, config.batch_size, config.seed, epoch)
            state, found = fit.many(state, theta, labels, index.astype(np.int32), weight, scale)
            return state, np.asarray(found["loss"]).mean(0), np.asarray(found["gradient_norm"]).mean(0)

        return resident

    stream = Stream(source, ground.fit, config.batch_size, config.seed)

    def streamed(state: FitState, epoch: int):
        losses, norms = [], []
        for theta, labels, weight in stream.epoch(epoch):
            state, found = fit.step(state, theta, labels, weight, scale)
            losses.append(found["loss"])
            norms.append(found["gradient_norm"])
        return state, np.mean(losses, axis=0), np.mean(norms, axis=0)

    return streamed


@jax.jit
def _keep_better(better: Array, new: Params, old: Params) -> Params:
    """Each seed's new parameters where they are better, else its old ones."""
    return jax.tree.map(lambda a, b: jnp.where(better.reshape(-1, *[1] * (a.ndim - 1)), a, b), new, old)


def _validation_loss(fit: Fit, params: Params, source: Source, ground: Ground) -> Float[np.ndarray, "S"]:
    """Mean squared error of each seed on the validation rows, in standardised units."""
    predicted = _predict(fit, params, source, ground.validation, Scale(**ground.scale))
    errors = (predicted - source.labels[ground.validation]) / ground.scale["return_std"]
    return np.square(errors).mean(1).astype(np.float32)


def _predict(fit: Fit, params: Params, source: Source, rows: Rows, scale: Scale) -> Float[np.ndarray, "S n"]:
    """Predicted returns in blocks of one shape, so that memory is bounded and nothing compiles twice."""
    pieces = []
    for start in range(0, len(rows), _BLOCK):
        theta = source.read(rows[start : start + _BLOCK])
        padded = np.pad(theta, ((0, _BLOCK - len(theta)), (0, 0)))
        pieces.append(np.asarray(fit.predict(params, padded, scale))[:, : len(theta)])
    return np.concatenate(pieces, axis=1).astype(np.float64)
