"""What critics cost, in ratios of one run. Prints one JSON line a measurement.

python benchmarks/critics.py unf          # a layer in factored form against the sum of its terms
python benchmarks/critics.py memory       # peak memory of one UNF step on 4,096 policies with 32 channels, in blocks
python benchmarks/critics.py probing      # actions of 4,096 policies in 200 states against plain matrix products
python benchmarks/critics.py ensemble     # five MLPs side by side against one
python benchmarks/critics.py streaming    # share of the time that a critic fitted from the store is busy
"""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from epvf_data.critics.base import Row, Scale
from epvf_data.critics.settings import CriticSettings
from epvf_data.critics.unf import apply_layer, axes_of, init_layer
from epvf_data.critics.zoo import make_critic
from epvf_data.policies import mlp
from epvf_data.policies.probe import probe
from epvf_data.policies.spec import PolicySpec
from epvf_data.store import reader
from epvf_data.store.lineage import Lineage
from epvf_data.store.schema import EnvIdentity, Rows
from epvf_data.store.writer import Writer
from epvf_data.trainers.fit import Batch, critic_step, init_state, make_fit, make_optimiser
from epvf_data.trainers.offline.batches import Stream, shape_epoch
from epvf_data.trainers.offline.source import open_source

SPEC = PolicySpec(34, 8, (64, 64))
ROUNDS = 5


def clock(*functions: Callable[[], Any]) -> list[float]:
    """Median seconds of each, taken in turns after one call that compiles."""
    for function in functions:
        jax.block_until_ready(function())
    taken: list[list[float]] = [[] for _ in functions]
    for _ in range(ROUNDS):
        for function, times in zip(functions, taken, strict=True):
            started = time.perf_counter()
            jax.block_until_ready(function())
            times.append(time.perf_counter() - started)
    return [float(np.median(times)) for times in taken]


def policies(count: int) -> jax.Array:
    return jax.vmap(lambda key: mlp.init(key, SPEC))(jax.random.split(jax.random.key(0), count))


def unf(rows: int = 32, channels: int = 16, layers: int = 3) -> dict[str, Any]:
    """Forward and backward through the layers of one critic: ours, and the same sum term by term."""
    path = Path(__file__).parent.parent / "tests" / "critics" / "test_unf.py"
    found = importlib.util.spec_from_file_location("oracle", path)
    assert found is not None
    assert found.loader is not None
    oracle = importlib.util.module_from_spec(found)
    found.loader.exec_module(oracle)
    axes = axes_of(SPEC)
    params = [init_layer(jax.random.key(number), axes, channels) for number in range(layers)]
    keys = jax.random.split(jax.random.key(1), len(SPEC.tensors))
    features = {
        name: jax.random.normal(key, (rows, *slot.shape, channels))
        for key, (name, slot) in zip(keys, SPEC.tensors.items(), strict=True)
    }

    def through(layer: Callable[..., Any]):
        def run(params, features):
            for own in params:
                new = layer(own, features)
                features = {name: features[name] + jax.nn.relu(new[name]) for name in features}
            return sum(jnp.sum(jnp.square(part)) for part in features.values())

        slope = jax.grad(lambda params, features: jax.vmap(partial(run, params))(features).mean())
        return jax.jit(slope)

    factored, terms = through(partial(apply_layer, axes)), through(partial(oracle.term_by_term, SPEC))
    ours, theirs = clock(lambda: factored(params, features), lambda: terms(params, features))
    return {
        "milliseconds_a_row": 1e3 * ours / rows,
        "term_by_term_milliseconds_a_row": 1e3 * theirs / rows,
        "speedup": theirs / ours,
    }


def memory(rows: int = 4096, channels: int = 32, block: int = 64) -> dict[str, Any]:
    """One critic step; the whole process counts."""
    settings = CriticSettings(channels=channels, block=block, remat=True)
    critic, optimiser = make_critic("unf", settings, SPEC), make_optimiser()
    theta = policies(rows)
    state = jax.jit(partial(init_state, critic, optimiser))(jax.random.key(0))
    batch = Batch((Row(theta, theta, SPEC),), jnp.arange(rows) / rows, jnp.ones(rows))
    step = jax.jit(lambda state, batch: critic_step(critic, optimiser, state, batch, settings=settings))
    jax.block_until_ready(step(state, batch))
    started = time.perf_counter()
    jax.block_until_ready(step(state, batch))
    return {
        "rows": rows,
        "channels": channels,
        "block": block,
        "seconds": time.perf_counter() - started,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def probing(rows: int = 4096, states: int = 200) -> dict[str, Any]:
    """Operations a second of the forward pass, beside one large product's and beside the same products alone."""
    theta, seen = policies(rows), jax.random.normal(jax.random.key(1), (states, SPEC.observation_size))
    together = jax.jit(lambda theta, seen: jax.vmap(lambda row: probe(SPEC, row, seen))(theta))
    act = jax.jit(lambda theta, seen: jax.lax.map(lambda row: probe(SPEC, row, seen), theta))  # as the critic does

    def products(theta, seen):
        def one(row):
            x, tensors = seen, mlp.unflatten(SPEC, row)
            for layer in range(3):
                x = x @ tensors[f"layer_{layer}/kernel"]
            return x

        return jax.lax.map(one, theta)

    alone, square = jax.jit(products), jax.random.normal(jax.random.key(2), (2048, 2048))
    large = jax.jit(lambda square: square @ square)
    ours, batched, same, plain = clock(
        lambda: act(theta, seen), lambda: together(theta, seen), lambda: alone(theta, seen), lambda: large(square)
    )
    work = 2.0 * rows * states * sum(a * b for a, b in zip(SPEC.sizes[:-1], SPEC.sizes[1:], strict=True))
    rate = 2.0 * 2048**3 / plain
    return {
        "gflops": work / ours / 1e9,
        "vmap_gflops": work / batched / 1e9,
        "products_alone_gflops": work / same / 1e9,
        "large_product_gflops": rate / 1e9,
        "ratio": work / ours / rate,
        "ratio_of_products_alone": work / same / rate,
    }


def ensemble(rows: int = 4096, members: int = 5) -> dict[str, Any]:
    """One training step of the MLP 256-256, batch 4,096."""
    theta, target = np.asarray(policies(rows)), np.arange(rows, dtype=np.float32) / rows
    fit = make_fit(make_critic("mlp", CriticSettings(), SPEC), make_optimiser())
    scale = Scale(np.zeros(SPEC.size, np.float32), np.ones(SPEC.size, np.float32), np.float32(0), np.float32(1))
    vectors, targets, weight = (jnp.asarray(theta),), (jnp.asarray(target),), (jnp.ones(rows),)

    def run(count: int) -> Callable[[], Any]:
        held = {"state": fit.init(jax.random.split(jax.random.key(0), count))}

        def step() -> Any:
            held["state"], found = fit.step(held["state"], vectors, targets, weight, (scale,))
            return found

        return step

    one, several = clock(run(1), run(members))
    return {"members": members, "seconds_one": one, "seconds_several": several, "ratio": several / one}


def streaming(rows: int = 16384, batch: int = 256) -> dict[str, Any]:
    """An epoch of the MLP's steps on batches read from a store, against as many steps on one batch that is there."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.zarr"
        write(path, rows)
        source = open_source([reader.open(path).table()], 0)
        shape = shape_epoch((rows,), batch)
        stream = Stream(source, (np.arange(rows),), shape, 0)
        fit = make_fit(make_critic("mlp", CriticSettings(), SPEC), make_optimiser())
        scale = Scale(np.zeros(SPEC.size, np.float32), np.ones(SPEC.size, np.float32), np.float32(0), np.float32(1))
        state, first = fit.init(jax.random.key(0)[None]), next(iter(stream.epoch(0)))
        state, _ = fit.step(state, *first, (scale,))
        reading, computing = [], []
        for epoch in range(1, 4):
            started = time.perf_counter()
            for some in stream.epoch(epoch):
                state, found = fit.step(state, *some, (scale,))
            jax.block_until_ready(found)
            reading.append(time.perf_counter() - started)
            started = time.perf_counter()
            for _ in range(shape.steps):
                state, found = fit.step(state, *first, (scale,))
            jax.block_until_ready(found)
            computing.append(time.perf_counter() - started)
        return {
            "rows": rows,
            "batch": batch,
            "seconds_streamed": float(np.median(reading)),
            "seconds_of_steps_alone": float(np.median(computing)),
            "busy": float(np.median(computing) / np.median(reading)),
        }


def write(path: Path, rows: int) -> None:
    """Rows whose returns differ, in parts of 4,096."""
    env = EnvIdentity("none", "1", "0" * 64, SPEC.observation_size, SPEC.action_size, 1, 0.01, 1, {})
    draw = np.random.default_rng(0)
    for _ in range(rows // 4096):
        flags = np.zeros((4096, 1), bool)
        batch = Rows(
            spec=SPEC,
            params=draw.normal(size=(4096, SPEC.size)).astype(np.float32),
            returns=draw.normal(size=(4096, 1)).astype(np.float32),
            lengths=np.ones((4096, 1), np.int32),
            terminated=flags,
            truncated=~flags,
            finite=~flags,
            reset_seed=np.zeros((4096, 2), np.uint32),
            lineage=Lineage.build(4096, source=["random"] * 4096, base=[None] * 4096),
            simulation={"backend": "none"},
        )
        Writer.open(path, env).commit(batch, {"made": "by a benchmark"})


def main() -> None:
    known = {"unf": unf, "memory": memory, "probing": probing, "ensemble": ensemble, "streaming": streaming}
    for name in sys.argv[1:] or known:
        found = known[name]()
        device = jax.devices()[0].device_kind
        print(json.dumps({"benchmark": name, "device": device, "cores": os.cpu_count(), **found}), flush=True)


if __name__ == "__main__":
    main()
