"""How far the closed loop of MuJoCo C is from bare MuJoCo: prints one JSON line.

Rolls out distinct policies, then replays the very same controls open loop through `mujoco.rollout` on as many threads,
in turns. The ratio of the medians is what policies, observations, rewards and bookkeeping cost.

    python benchmarks/native.py --policies 4096 --steps 250 --repeats 5 --lanes 8 16 32 64 128
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from mujoco.rollout import Rollout

from epvf_data import envs
from epvf_data.physics import native
from epvf_data.physics.loop import Stepper, World, control_step, start
from epvf_data.physics.play import play
from epvf_data.policies import mlp
from epvf_data.policies.spec import PolicySpec


def logged(env, spec, params: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each policy's controls [N, T, nu] and its last positions and velocities [N, nq + nv], by the loop's own step."""
    steps = native.stepper(env)

    def move(state, physics, action, control, running):
        after = steps.move(state[0], physics, action, control, running)
        return (after[0], control), after[1]

    logging = Stepper(lambda physics: (steps.start(physics), jnp.zeros(env.action_size)), move, steps.lanes)
    step = jax.vmap(control_step(env, spec, logging))

    @jax.jit
    def run(flat):
        tensors = jax.vmap(lambda row: mlp.unflatten(spec, row))(flat)
        key, zero = jnp.zeros((len(flat), 2), jnp.uint32), jnp.zeros(len(flat), jnp.int32)
        episode = jax.vmap(lambda seed, number: start(env, spec, seed, number))(key, zero)
        world = World(episode, jax.vmap(logging.start)(episode.physics))
        on = lambda world, _: (after := step(tensors, world), after.state[1])  # noqa: E731
        world, controls = jax.lax.scan(on, world, length=env.horizon)
        return controls, world.episode

    controls, last = [], []
    for begin in range(0, len(params), steps.lanes):
        found, episode = run(params[begin : begin + steps.lanes])
        assert (np.asarray(episode.length) == env.horizon).all(), "an episode ended early: choose a smaller --scale"
        controls.append(np.asarray(found, np.float64).swapaxes(0, 1))
        last.append(np.concatenate([episode.physics.qpos, episode.physics.qvel], axis=1))
    return np.concatenate(controls), np.concatenate(last)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="ant")
    parser.add_argument("--policies", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=250, help="horizon in control steps")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--scale", type=float, default=0.5, help="initial scale; 0.5 keeps every ant up for the whole horizon"
    )
    parser.add_argument("--hidden", type=int, nargs="*", default=[64, 64])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--lanes", type=int, nargs="*", default=[], help="other numbers of worlds side by side")
    args = parser.parse_args()

    env = envs.make(args.env).with_horizon(args.steps)
    spec = PolicySpec(env.observation_size, env.action_size, tuple(args.hidden))
    keys = jax.random.split(jax.random.key(0), args.policies)
    params = np.asarray(jax.jit(jax.vmap(lambda key: mlp.init(key, spec, args.scale)))(keys))
    seeds = np.zeros((args.policies, 2), np.uint32)
    model, threads = native.load_model(env), args.threads
    controls, last = logged(env, spec, params)

    begun = np.zeros((args.policies, mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_FULLPHYSICS.value)))
    first = jax.jit(lambda: start(env, spec, jnp.zeros(2, jnp.uint32), jnp.int32(0)).physics)()
    begun[:, 1 : 1 + model.nq], begun[:, 1 + model.nq : 1 + model.nq + model.nv] = first.qpos, first.qvel
    pool, data = Rollout(nthread=threads), [mujoco.MjData(model) for _ in range(threads)]
    held = np.repeat(controls, env.substeps, axis=1)

    def closed(lanes: int | None = None):
        return play(env, spec, params, seeds, backend="native", threads=threads, lanes=lanes)

    work = {"open": lambda: pool.rollout(model, data, begun, held, initial_warmstart=np.zeros((len(begun), model.nv)))}
    for lanes in [None, *args.lanes]:
        work["closed" if lanes is None else f"closed, {lanes} lanes"] = lambda lanes=lanes: closed(lanes)
    wall: dict[str, list[float]] = {name: [] for name in work}
    cpu: dict[str, list[float]] = {name: [] for name in work}
    found = {name: function() for name, function in work.items()}  # compiles
    for _ in range(args.repeats):
        for name, function in work.items():
            began, used = time.perf_counter(), time.process_time()
            function()
            wall[name].append(time.perf_counter() - began)
            cpu[name].append(time.process_time() - used)
    steps = args.policies * args.steps * env.substeps
    states = found["open"][0][:, -1, 1 : 1 + last.shape[1]]
    ratios = lambda times, name: [round(o / c, 3) for o, c in zip(times["open"], times[name], strict=True)]  # noqa: E731
    print(
        json.dumps(
            {
                "benchmark": "native",
                "env": env.name,
                "policies": args.policies,
                "architecture": str(spec),
                "steps": args.steps,
                "threads": threads,
                "physics_steps_per_second": {
                    name: round(steps / statistics.median(times)) for name, times in wall.items()
                },
                "ratio": {name: round(statistics.median(ratios(wall, name)), 3) for name in work},
                "ratio_of_cpu_seconds": {name: round(statistics.median(ratios(cpu, name)), 3) for name in work},
                "ratios": {name: ratios(wall, name) for name in work},
                "median_state_difference": float(np.median(np.abs(states - last).max(axis=1))),
            }
        )
    )


if __name__ == "__main__":
    main()
