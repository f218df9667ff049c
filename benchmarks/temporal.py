"""What learning from single steps costs (`pavf`): prints one JSON line a measurement.

python benchmarks/temporal.py parts        # acting, updating and drawing in an iteration of ant-pavf
python benchmarks/temporal.py rate         # the critic's step against its bare matrix products, at batches 256 to 1,024
python benchmarks/temporal.py replay       # a million transitions: bytes, and the seconds of their checkpoint
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from epvf_data.physics.play import stepper_of
from epvf_data.runtime import prepare
from epvf_data.trainers import checkpoint
from epvf_data.trainers.online import pavf, step_iteration
from epvf_data.trainers.online.run import resolve
from epvf_data.trainers.online.segments import make_segment
from epvf_data.trainers.online.settings import OnlineConfig, online_config
from epvf_data.trainers.online.standing import begin
from epvf_data.trainers.online.state import State
from epvf_data.trainers.online.step_loop import make_step_loop
from epvf_data.trainers.online.transitions import draw

ROUNDS = 7


def in_turns(functions: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Median seconds of each, taken in turns after one call that compiles."""
    taken: dict[str, list[float]] = {name: [] for name in functions}
    for round_ in range(ROUNDS + 1):
        for name, function in functions.items():
            began = time.perf_counter()
            jax.block_until_ready(function())
            if round_:
                taken[name].append(time.perf_counter() - began)
    return {name: statistics.median(times) for name, times in taken.items()}


def jitted(function: Callable, *arguments: Any) -> Callable[[], Any]:
    """A call of the compiled function, as the loop calls it."""

    def broadcast(*arguments: Any) -> Any:
        with jax.default_matmul_precision("highest"), jax.numpy_rank_promotion("allow"):
            return function(*arguments)

    return partial(jax.jit(broadcast), *arguments)


def warm(config: OnlineConfig) -> State:
    """A seed's state some iterations after the warm-up."""
    loop = make_step_loop(config, *resolve(config))
    state = loop.init()
    for _ in range(1 + 80_000 // (config.log_every * step_iteration.steps_of(config))):
        state = loop.advance(state, np.ones(1, bool), False).state
    return jax.tree.map(lambda leaf: leaf[0], state)


def known_of(config: OnlineConfig, state: State) -> tuple[pavf.Known, pavf.Learned]:
    inner, one = state.inner, jnp.ones(())
    filled = step_iteration.filled(config, state)
    stored = jnp.int32(config.envs)
    known = pavf.Known(
        *(inner.replay, inner.policies, inner.representation, state.normaliser, filled, stored, one),
        jnp.float32(config.improvement.learning_rate),
    )
    return known, pavf.Learned(
        state.theta[0], jax.tree.map(lambda leaf: leaf[0], state.improver), inner.critic, inner.target, inner.optimiser
    )


def parts(config: OnlineConfig) -> dict:
    """Seconds of an iteration and of its parts, each compiled by itself."""
    env, spec, backend = resolve(config)
    state, stepper = warm(config), stepper_of(env, backend)
    method = step_iteration.make_method(config, env, spec, stepper, True)
    segment = make_segment(env, spec, stepper, config.time.segment, True)
    known, learned = known_of(config, state)
    key = jax.random.key(0)

    def batches(replay: Any, filled: jax.Array) -> jax.Array:
        def one(key: jax.Array) -> jax.Array:
            return sum(leaf.sum() for leaf in jax.tree.leaves(draw(replay, key, filled, config.batch_size)))

        return jax.lax.map(one, jax.random.split(key, config.critic.steps)).sum()

    whole = in_turns(
        {
            "iteration": jitted(method.iteration, state),
            "acting": jitted(lambda state: step_iteration._act(config, spec, segment, state), state),
            "updates": jitted(
                lambda known, learned: pavf.update(method.learner, known, learned, key, jnp.bool_(True)), known, learned
            ),
            "drawing": jitted(batches, known.replay, known.filled),
        }
    )
    shares = {name: round(seconds / whole["iteration"], 4) for name, seconds in whole.items() if name != "iteration"}
    return {
        "seconds": {name: round(seconds, 4) for name, seconds in whole.items()},
        "shares": shares,
        "env_steps_per_second": round(step_iteration.steps_of(config) / whole["iteration"]),
    }


def rate(config: OnlineConfig) -> dict:
    """The critic's step in the time of its matrix products alone: 3 for the critic, 1 for its target, a layer."""
    state = warm(config)
    return {"batch": {batch: _rate(state, batch) for batch in (256, 512, 1024)}}


def _rate(state: State, batch: int) -> dict:
    config = online_config("ant-pavf", **{"replay.batch_size": batch})
    learner = pavf.make_learner(config, resolve(config)[1])
    known, learned = known_of(config, state)
    weights = [leaf[0] for leaf in jax.tree.leaves(learned.critic) if leaf.ndim == 3]
    keys = jax.random.split(jax.random.key(0), 32)

    def steps(known: pavf.Known, learned: pavf.Learned) -> Any:
        return jax.lax.scan(lambda old, key: pavf.critic_step(learner, known, old, key), learned, keys)[0]

    def products(weights: list[jax.Array]) -> jax.Array:
        def one(carry: jax.Array, _: jax.Array) -> tuple[jax.Array, None]:
            for weight in weights:
                x, y = (carry + jnp.ones((batch, size)) for size in weight.shape)
                for product in (x @ weight, (x + 1.0) @ weight, y @ weight.T, x.T @ y):
                    carry = carry + 1e-9 * product[0, 0]
            return carry, None

        return jax.lax.scan(one, jnp.zeros(()), keys)[0]

    taken = in_turns({"step": jitted(steps, known, learned), "products": jitted(products, weights)})
    gigaflops = 1e-9 * len(keys) * batch * 8 * sum(weight.size for weight in weights)
    return {
        "gigaflops_per_second": {name: round(gigaflops / seconds) for name, seconds in taken.items()},
        "products_over_step": round(taken["products"] / taken["step"], 3),
    }


def replay(config: OnlineConfig) -> dict:
    """A replay of a million transitions, of noise: what is all zeros takes no room on the disk."""
    loop = make_step_loop(config, *resolve(config))
    state, generator = loop.init(), np.random.default_rng(0)
    rows = jax.tree.map(lambda leaf: _noise(generator, leaf), state.inner.replay)
    standing = begin(state._replace(inner=state.inner._replace(replay=rows)), config, resolve(config)[1])
    taken = []
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        for number in range(3):
            began = time.perf_counter()
            checkpoint.save(Path(folder), number, standing.tree())
            taken.append(time.perf_counter() - began)
        size = sum(path.stat().st_size for path in Path(folder, "2").rglob("*") if path.is_file())
    return {
        "transitions": int(rows.reward.size),
        "replay_megabytes": round(sum(leaf.nbytes for leaf in jax.tree.leaves(rows)) / 1e6),
        "policies_megabytes": round(sum(leaf.nbytes for leaf in jax.tree.leaves(standing.state.inner.policies)) / 1e6),
        "checkpoint_seconds": round(statistics.median(taken), 2),
        "checkpoint_megabytes": round(size / 1e6),
    }


def _noise(generator: np.random.Generator, leaf: jax.Array) -> jax.Array:
    if jnp.issubdtype(leaf.dtype, jnp.floating):
        return jnp.asarray(generator.standard_normal(leaf.shape, np.float32), leaf.dtype)
    return jnp.asarray(generator.integers(0, 1000, leaf.shape), leaf.dtype)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("parts", "rate", "replay"))
    what = parser.parse_args().what
    prepare()
    changes = {"replay.capacity": 1_000_000} if what == "replay" else {}
    result = {"parts": parts, "rate": rate, "replay": replay}[what](online_config("ant-pavf", **changes))
    print(json.dumps({"benchmark": f"temporal-{what}", **result, "device": str(jax.devices()[0].device_kind)}))


if __name__ == "__main__":
    main()
