"""Every MuJoCo body on both backends: speed, against bare MuJoCo, and how far returns are apart. One JSON file.

python benchmarks/bodies.py results.json                 # some fifteen minutes on two cores, most of it compilation
python benchmarks/bodies.py results.json --only hopper

`bare` is `mujoco.rollout` on as many threads with random controls from the same starts, without a policy. MJX on a
processor is here for its returns; it is made for accelerators.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import mujoco
import numpy as np
from mujoco.rollout import Rollout

from epvf_data import envs
from epvf_data.envs import Env
from epvf_data.physics import native
from epvf_data.policies import mlp
from epvf_data.policies.spec import PolicySpec
from epvf_data.rollout import rollout
from epvf_data.runtime import prepare

POLICIES, STEPS, REPEATS = 1024, 100, 3
FEW, SHORT = 64, 50  # for MJX


def policies(env: Env, count: int) -> tuple[PolicySpec, np.ndarray, np.ndarray]:
    spec = PolicySpec(env.observation_size, env.action_size)
    keys = jax.random.split(jax.random.key(0), count)
    params = np.asarray(jax.jit(jax.vmap(lambda key: mlp.init(key, spec, 0.5)))(keys))
    return spec, params, np.asarray(jax.vmap(jax.random.key_data)(keys))


def bare(env: Env, seeds: np.ndarray, steps: int) -> float:
    """Control steps a second of `mujoco.rollout` alone."""
    model, threads = native.load_model(env), len(os.sched_getaffinity(0))
    size = mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_FULLPHYSICS.value)
    start = np.zeros((len(seeds), size))
    reset = jax.vmap(lambda seed: env.reset(jax.random.wrap_key_data(seed)))(seeds)
    start[:, 1 : 1 + model.nq], start[:, 1 + model.nq : 1 + model.nq + model.nv] = reset.qpos, reset.qvel
    control = np.random.default_rng(0).uniform(-0.3, 0.3, (len(seeds), steps, model.nu)).repeat(env.substeps, 1)
    pool, data = Rollout(nthread=threads), [mujoco.MjData(model) for _ in range(threads)]
    began = time.perf_counter()
    pool.rollout([model] * len(seeds), data, start, control)
    return len(seeds) * steps / (time.perf_counter() - began)


def speed(name: str) -> dict[str, Any]:
    """The native backend against bare MuJoCo, in turns."""
    env = envs.make(name).with_horizon(STEPS)
    spec, params, seeds = policies(env, POLICIES)
    rates, bound = [], []
    for number in range(REPEATS + 1):  # the first compiles
        began = time.perf_counter()
        outcomes = rollout(env, spec, params, reset_seed=seeds, backend="native")
        rates.append(outcomes.env_steps / (time.perf_counter() - began))
        bound.append(bare(env, seeds, round(outcomes.lengths.mean())))
        print(
            f"{name}: native {rates[-1]:,.0f}, bare {bound[-1]:,.0f} steps/s{' (compiles)' * (number == 0)}", flush=True
        )
    return {
        "env": name,
        "observations": env.observation_size,
        "actions": env.action_size,
        "timestep": env.timestep,
        "substeps": env.substeps,
        "native": statistics.median(rates[1:]),
        "bare": statistics.median(bound[1:]),
    }


def agreement(name: str) -> dict[str, Any]:
    """MJX against the native backend: the same policies from the same starts."""
    short = envs.make(name).with_horizon(SHORT)
    few = policies(short, FEW)
    one = rollout(short, *few[:2], reset_seed=few[2], backend="native")
    began = time.perf_counter()
    rollout(short, *few[:2], reset_seed=few[2], backend="mjx")
    compiled = time.perf_counter()
    other = rollout(short, *few[:2], reset_seed=few[2], backend="mjx")
    ended = time.perf_counter()
    apart = np.abs(one.returns - other.returns)[:, 0]
    return {
        "mjx": other.env_steps / (ended - compiled),
        "mjx_first_call_seconds": compiled - began,
        "return_spread": float(one.returns.std()),
        "return_difference_median": float(np.median(apart)),
        "return_difference_max": float(apart.max()),
        "lengths_equal": float((one.lengths == other.lengths).mean()),
    }


PARTS = {"speed": speed, "agreement": agreement}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", action="append", help="this body; repeat for more")
    parser.add_argument("--part", choices=PARTS, action="append", help="measure this alone, again")
    chosen = parser.parse_args()
    prepare()
    names = chosen.only or [name for name in sorted(envs.ENVS) if envs.make(name).xml is not None]
    found = json.loads(chosen.out.read_text()) if chosen.out.exists() else {}
    for name in names:
        for part in chosen.part or PARTS:
            if chosen.part or part not in found.get(name, {}):
                found.setdefault(name, {})[part] = PARTS[part](name)
                print(f"{name}: {found[name][part]}", flush=True)
                chosen.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
