"""Training of one split: critics over seeds with early stopping, and checkpoints of all that it takes to go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from epvf_data.critics.base import Params
from epvf_data.errors import RunError
from epvf_data.trainers import checkpoint, rundir
from epvf_data.trainers.fit import FitState
from epvf_data.trainers.offline.batches import Stream, epoch_order
from epvf_data.trainers.offline.fitted import (
    FINAL,
    FittedSplit,
    Progressed,
    Setup,
    load_fitted,
    member_keys,
    outputs_of,
    restore_progress,
    set_up,
)
from epvf_data.trainers.offline.ground import Ground, lay_ground, restore_ground
from epvf_data.trainers.offline.settings import OfflineConfig
from epvf_data.trainers.offline.source import Source
from epvf_data.trainers.offline.splits import Split

_PAIRS = 4096  # validation rows whose order is judged pair by pair

Progress = Callable[[dict[str, Any]], None]


def fit_split(
    source: Source, name: str, split: Split, config: OfflineConfig, directory: Path, progress: Progress | None
) -> tuple[FittedSplit, float]:
    """Fits ridge and critic on the split's training rows, or goes on from the checkpoints in the run directory.

    Beside the split come the seconds of fitting that this call has added to its own.
    """
    folder, spent = directory / "checkpoints" / name, 0.0
    if checkpoint.latest(folder / "ground") is None:
        laid = lay_ground(source, split)
        checkpoint.save(folder / "ground", 0, laid._asdict())
        spent += float(laid.seconds)
    ground = restore_ground(folder / "ground", source)
    if not config.closed and checkpoint.latest(folder / "final") is None:
        done, more = _train(source, name, ground, config, directory, progress)
        spent += more
        checkpoint.save(folder / "final", int(done.epoch), {name: getattr(done, name) for name in FINAL})
    checkpoint.remove(folder / "epochs")
    fitted = load_fitted(source, name, config, directory)
    assert fitted is not None  # its checkpoint was just written
    return fitted, spent


def _start(setup: Setup, config: OfflineConfig) -> Progressed:
    state = setup.layout.members(setup.fit.init(member_keys(config)))
    return Progressed(
        state=state,
        best=jax.tree.map(jnp.copy, state.params),  # the state's own buffers are given away by the first step
        best_loss=np.full(config.members, np.inf, np.float32),
        best_epoch=np.zeros(config.members, np.int32),
        epoch=np.zeros((), np.int32),
        seconds=np.zeros(()),
    )


def _train(
    source: Source, name: str, ground: Ground, config: OfflineConfig, directory: Path, progress: Progress | None
) -> tuple[Progressed, float]:
    """Epochs until all members stop improving on the validation rows, from the newest checkpoint where there is one.

    Beside the result come the seconds of this call. Where `progress` raises, as on Ctrl-C, the epoch is saved before.
    """
    folder = directory / "checkpoints" / name / "epochs"
    setup = set_up(source, ground, config)
    if checkpoint.latest(folder) is None:
        now = _start(setup, config)
    else:
        now = Progressed(**restore_progress(folder, setup, config))
        now = now._replace(state=setup.layout.members(now.state), best=setup.layout.members(now.best))
    rundir.rewind_metrics(directory, lambda line: line.get("split") != name or _reached(line, int(now.epoch)))
    run_epoch = _epoch_runner(source, ground, config, setup)
    started = saved = time.perf_counter()
    before = float(now.seconds)
    while int(now.epoch) < setup.epochs and int(now.epoch) - int(now.best_epoch.max()) < setup.patience:
        epoch = int(now.epoch) + 1
        state, train_loss, gradient_norm = run_epoch(now.state, epoch)
        losses = _validation_loss(setup, state.params, source, ground)
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
        record = {"split": name, "epoch": epoch, "epochs": setup.epochs}
        members = {"train_loss": train_loss, "validation_loss": losses, "gradient_norm": gradient_norm}
        record.update({key: [float(value) for value in values] for key, values in members.items()})
        rundir.append_metrics(directory, record)
        try:
            if progress is not None:
                progress({**record, "seconds": float(now.seconds)})
        except KeyboardInterrupt:
            checkpoint.save(folder, epoch, now)
            raise
        if time.perf_counter() - saved >= config.checkpoint_seconds:
            checkpoint.save(folder, epoch, now)
            saved = time.perf_counter()
    return now, float(now.seconds) - before


def _reached(line: Mapping[str, Any], epoch: int) -> bool:
    """Whether a line of metrics tells of an epoch up to this one."""
    return rundir.fits(line, {"epoch": int}) and line["epoch"] <= epoch


def _epoch_runner(source: Source, ground: Ground, config: OfflineConfig, setup: Setup) -> Callable[..., Any]:
    """(state, epoch) → (state, mean loss [S], mean gradient norm [S]): one scan on the device, or batches streamed."""
    fit, shape, scales, layout = setup.fit, setup.shape, ground.scales, setup.layout
    local = source.local(ground.fit)
    if source.vectors is not None:
        vectors = layout.copied(tuple(jnp.asarray(own) for own in source.vectors))
        labels = jnp.asarray(source.labels, jnp.float32)
        targets = tuple(labels[start:stop] for start, stop in zip(source.starts[:-1], source.starts[1:], strict=True))

        def resident(state: FitState, epoch: int):
            orders = [
                epoch_order(rows, size, config.seed, epoch, shape.steps)
                for rows, size in zip(local, shape.sizes, strict=True)
            ]
            index = tuple(order[0].astype(np.int32) for order in orders)
            weight = tuple(order[1] for order in orders)
            state, found = fit.many(state, vectors, targets, index, weight, scales)
            return state, np.asarray(found["loss"]).mean(0), np.asarray(found["gradient_norm"]).mean(0)

        return resident

    stream = Stream(source, local, shape, config.seed)

    def streamed(state: FitState, epoch: int):
        losses, norms = [], []
        for batch in stream.epoch(epoch):
            state, found = fit.step(state, *layout.rows((batch.vectors, batch.labels, batch.weight)), scales)
            losses.append(found["loss"])
            norms.append(found["gradient_norm"])
        return state, np.mean(losses, axis=0), np.mean(norms, axis=0)

    return streamed


@jax.jit
def _keep_better(better: Array, new: Params, old: Params) -> Params:
    """Each member's new parameters where they are better, else its old ones."""
    return jax.tree.map(lambda a, b: jnp.where(better.reshape(-1, *[1] * (a.ndim - 1)), a, b), new, old)


def _validation_loss(setup: Setup, params: Params, source: Source, ground: Ground) -> Float[np.ndarray, "S"]:
    """The loss of each member on the validation rows."""
    rows, loss = ground.validation, setup.fit.loss
    if not loss.calibrated and len(rows) > _PAIRS:
        rows = rows[np.linspace(0, len(rows) - 1, _PAIRS).astype(int)]
    outputs = outputs_of(setup, params, source, rows, ground)
    scale = ground.scales[0]
    targets = ((source.labels[rows] - scale.return_mean) / scale.return_std).astype(np.float32)
    return np.array([loss.loss(own, targets, np.ones(len(rows), np.float32)) for own in outputs], np.float32)
