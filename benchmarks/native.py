"""How far the native closed loop is from bare MuJoCo: prints one JSON line.

Rolls out distinct policies, then replays the very same controls open loop through `mujoco.rollout` on as many threads,
in turns. The ratio of the medians is what policies, observations, rewards and bookkeeping cost.

    python benchmarks/native.py --policies 4096 --steps 250 --repeats 5
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time

import jax
import mujoco
import numpy as np
from mujoco.rollout import Rollout

from epvf_data import envs
from epvf_data.physics import native
from epvf_data.policies import mlp
from epvf_data.policies.spec import PolicySpec


def recording_block(log: np.ndarray, last: np.ndarray) -> type:
    """A block that also writes each world's controls to `log[item, step]` and its last state to `last[item]`."""

    class Recording(native._Block):
        def _physics(self, live, control):
            log[self.item[live], np.asarray(self.episode.length)[live]] = control[live]
            super()._physics(live, control)
            last[self.item[live]] = self.state[live]

    return Recording


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policies", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=250, help="horizon in control steps")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--scale", type=float, default=0.5, help="initial scale; 0.5 keeps every ant up for the whole horizon"
    )
    parser.add_argument("--hidden", type=int, nargs="*", default=[64, 64])
    args = parser.parse_args()

    env = envs.make("ant").with_horizon(args.steps)
    spec = PolicySpec(env.observation_size, env.action_size, tuple(args.hidden))
    keys = jax.random.split(jax.random.key(0), args.policies)
    params = np.asarray(jax.jit(jax.vmap(lambda key: mlp.init(key, spec, args.scale)))(keys))
    seeds = np.zeros((args.policies, 2), np.uint32)
    threads = len(os.sched_getaffinity(0))
    model = native.load_model(env)

    log = np.zeros((args.policies, args.steps, env.action_size))
    last = np.zeros((args.policies, mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_FULLPHYSICS.value)))
    plain, native._Block = native._Block, recording_block(log, last)
    recorded = native.rollout(env, spec, params, seeds)
    native._Block = plain
    assert (recorded.lengths == args.steps).all(), "some episode ended early: choose a smaller --scale"

    start = np.zeros_like(last)
    reset = env.reset(jax.random.key(0))
    start[:, 1 : 1 + model.nq], start[:, 1 + model.nq : 1 + model.nq + model.nv] = reset.qpos, reset.qvel
    warmstart = np.zeros((args.policies, model.nv))
    pool, data = Rollout(nthread=threads), [mujoco.MjData(model) for _ in range(threads)]
    times: dict[str, list[float]] = {"closed": [], "open": []}
    for _ in range(args.repeats):
        begin = time.perf_counter()
        outcomes = native.rollout(env, spec, params, seeds)
        times["closed"].append(time.perf_counter() - begin)
        assert np.array_equal(outcomes.returns, recorded.returns)
        begin = time.perf_counter()
        states, _ = pool.rollout(model, data, start, log, initial_warmstart=warmstart)
        times["open"].append(time.perf_counter() - begin)
    steps = args.policies * args.steps
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(
        json.dumps(
            {
                "benchmark": "native",
                "policies": args.policies,
                "architecture": str(spec),
                "steps": args.steps,
                "threads": threads,
                "closed_loop_physics_steps_per_second": round(steps / medians["closed"]),
                "open_loop_physics_steps_per_second": round(steps / medians["open"]),
                "ratio": round(medians["open"] / medians["closed"], 3),
                "ratios": [round(o / c, 3) for o, c in zip(times["open"], times["closed"], strict=True)],
                "median_state_difference": float(np.median(np.abs(states[:, -1, 1:] - last[:, 1:]).max(axis=1))),
            }
        )
    )


if __name__ == "__main__":
    main()
