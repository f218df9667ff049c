"""Fits and rollouts on as many devices as XLA_FLAGS forces; prints what they found. Run in a process of its own."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

import epvf_data
from epvf_data.critics.base import Scale
from epvf_data.critics.mlp import mlp
from epvf_data.policies.spec import PolicySpec
from epvf_data.trainers.fit import make_fit, make_optimiser
from epvf_data.trainers.mesh import make_layout
from epvf_data.trainers.offline.run import train_offline
from epvf_data.trainers.offline.settings import OfflineConfig
from epvf_data.trainers.online.loop import make_loop
from epvf_data.trainers.online.run import resolve
from epvf_data.trainers.online.settings import online_config

SIZE, STEPS = 10, 100


def offline(members: int, devices: int | None) -> tuple[list, list]:
    """The loss of each member in each of 100 steps, with the batches on the device, and of the last steps streamed."""
    random = np.random.default_rng(0)
    theta, target = random.normal(size=(256, SIZE)).astype(np.float32), random.normal(size=256).astype(np.float32)
    index = random.integers(0, 256, (STEPS, 32)).astype(np.int32)
    weight = np.ones((STEPS, 32), np.float32)
    scale = (Scale(np.zeros(SIZE, np.float32), np.ones(SIZE, np.float32), np.float32(0), np.float32(1)),)
    layout = make_layout(members, [32], devices)
    fit = make_fit(mlp(SIZE, (32, 32)), make_optimiser(1e-2), layout=layout)
    state = layout.members(fit.init(jax.random.split(jax.random.key(1), members)))
    rows = layout.copied(((theta,), (target,)))
    state, found = fit.many(state, *rows, (index,), (weight,), scale)
    losses = np.asarray(found["loss"]).tolist()
    batch = layout.rows(((theta[:32],), (target[:32],), (weight[0],)))
    state, found = fit.step(state, *batch, scale)
    used = {str(leaf.sharding.device_set) for leaf in jax.tree.leaves(state.params)}
    assert len(used) == 1
    assert len(jax.tree.leaves(state.params)[0].sharding.device_set) == min(devices or 99, len(jax.devices()))
    return losses, np.asarray(found["loss"]).tolist()


def online(compiled: bool, **settings: object) -> dict:
    """What two chunks of an online run found."""
    plain = {"env": "cartpole", "horizon": 30, "envs": 64, "iterations": 8, "log_every": 4, "backend": "mjx"}
    plain |= {"policy.hidden": [4], "critic.widths": [16], "replay.capacity": 128, "replay.batch_size": 32}
    config = online_config("cartpole-paper", **{**plain, **settings})
    actual = jax.default_backend
    jax.default_backend = lambda: "gpu" if compiled else actual()  # type: ignore[assignment]
    try:
        loop = make_loop(config, *resolve(config))
        state, found = loop.init(), []
        for _ in range(2):
            chunk = loop.advance(state, np.ones(config.seeds, bool), False)
            state = chunk.state
            found.append({name: np.asarray(value).tolist() for name, value in chunk.metrics.items()})
    finally:
        jax.default_backend = actual
    return {"metrics": found, "unperturbed": chunk.unperturbed.tolist()}


def stopped_and_resumed(dataset: str, run: Path, device_bytes: int, devices: int | None) -> list:
    """The validation losses of an offline run that is stopped in the middle, by epoch."""
    shape = {"critic": "mlp", "split": "iid", "epochs": 4, "patience": 4, "widths": (32,), "batch_size": 32}
    config = OfflineConfig(**shape, seeds=2, resamples=20, device_bytes=device_bytes, devices=devices)  # type: ignore

    def stop(now: dict) -> None:
        if now["epoch"] == 2:
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        train_offline(dataset, config, run, progress=stop)
    train_offline(dataset, config, run, resume=True)
    return [json.loads(line)["validation_loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def returns(backend: str, devices: int | None) -> list:
    spec = PolicySpec(4, 1, hidden=(4,))
    params = np.random.default_rng(0).normal(size=(700, spec.size)).astype(np.float32)
    seeds = np.arange(1400, dtype=np.uint32).reshape(700, 2)
    task = replace(epvf_data.make_env("cartpole"), horizon=100)
    return epvf_data.rollout(task, spec, params, reset_seed=seeds, backend=backend, devices=devices).returns.tolist()


def parts(dataset: str, folder: Path, devices: int | None) -> dict:
    return {"fit": {1: offline(1, devices)}, "returns": returns("mjx", devices)}


def whole_runs(dataset: str, folder: Path, devices: int | None) -> dict:
    return {
        "fit": {6: offline(6, devices)},
        "train_offline": {
            size: stopped_and_resumed(dataset, folder / f"{size}-{devices}", size, devices) for size in (0, 1 << 30)
        },
        "train_online": {
            "host": online(False, seeds=2, devices=devices),
            "compiled": online(True, seeds=2, devices=devices),
        },
    }


if __name__ == "__main__":
    assert len(jax.devices()) == int(sys.argv[3])
    what = {"parts": parts, "runs": whole_runs}[sys.argv[4]]
    print(json.dumps([what(sys.argv[1], Path(sys.argv[2]), most) for most in (1, None)]))
