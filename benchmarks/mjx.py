"""How fast and how large the compiled rollout is, beside the plain `jit(vmap(scan))`: prints one JSON line.

Both run the same environment, policies and horizon in turns in one process; initial scale 0.5 keeps every ant up, so no
side gains from episodes that end early (`--scale 2` shows that gain). Memory is the peak resident
set of a child (Linux), less the policies' own bytes.

    python benchmarks/mjx.py                       # CPU: batches 64, 512, 4096
    python benchmarks/mjx.py --batches 32768 --repeats 1
    python benchmarks/mjx.py --batches 1024 4096 16384 65536 --idle    # on a GPU, with the share that policies take
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np

from epvf_data import envs
from epvf_data.physics import mjx
from epvf_data.physics.episode import begin
from epvf_data.physics.loop import World, control_step
from epvf_data.physics.play import play
from epvf_data.policies import mlp
from epvf_data.policies.spec import PolicySpec


def plain(env, spec):
    """What one would write first: one scan over the whole horizon, all policies side by side."""
    stepper = mjx.stepper(env)
    step = control_step(env, spec, stepper)

    def episode(flat, key):
        tensors = mlp.unflatten(spec, flat)
        begun = begin(env, key)
        world = World(begun, stepper.start(begun.physics))
        return jax.lax.scan(lambda world, _: (step(tensors, world), None), world, length=env.horizon)[0].episode

    return jax.jit(jax.vmap(episode))


def seconds(function) -> float:
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun


def measure(args, batch: int) -> dict:
    env = envs.make(args.env).with_horizon(args.steps)
    spec = PolicySpec(env.observation_size, env.action_size, tuple(args.hidden))
    params = np.random.default_rng(0).random((batch, spec.size), np.float32)  # without JAX, which would hold copies
    params *= 2 * args.scale * (bounds := np.asarray(mlp.bounds(spec)))
    params -= args.scale * bounds
    keys = jax.random.split(jax.random.key(0), batch)
    seeds = np.zeros((batch, 2), np.uint32)
    outcomes: list = []
    runs = {"ours": lambda: outcomes.append(play(env, spec, params, seeds, backend="mjx"))}
    reference = plain(env, spec)
    runs["plain"] = lambda: jax.block_until_ready(reference(params, keys))
    if args.side != "both":
        runs = {args.side: runs[args.side]}
    if args.idle:  # the same physics under a policy that costs nothing: no hidden layer, a bias alone
        still = PolicySpec(env.observation_size, env.action_size, ())
        quiet = np.zeros((batch, still.size), np.float32)
        runs["idle"] = lambda: play(env, still, quiet, seeds, backend="mjx")
    for run in runs.values():
        run()  # compiles
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(args.repeats):
        for name, run in runs.items():
            times[name].append(seconds(run))
    result: dict = {"policies": batch}
    steps = batch * env.horizon * env.substeps  # the plain scan always runs them all
    median = {name: statistics.median(values) for name, values in times.items()}
    result |= {f"{name}_physics_steps_per_second": round(steps / value) for name, value in median.items()}
    if args.side == "both":
        result["ratio"] = round(median["plain"] / median["ours"], 3)
        result["ratios"] = [round(p / o, 3) for p, o in zip(times["plain"], times["ours"], strict=True)]
        result["share_of_steps_needed"] = round(outcomes[-1].env_steps * env.substeps / steps, 3)
    if args.idle:
        result["policy_share"] = round(1 - median["idle"] / median["ours"], 3)
    return result


def peak(args, side: str, batch: int) -> int:
    """Peak resident MiB of a child that runs one side at one batch."""
    command = [sys.executable, __file__, "--side", side, "--batches", str(batch), "--repeats", "1", "--memory"]
    command += ["--env", args.env, "--steps", str(args.steps), "--scale", str(args.scale)]
    peak_mib = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["peak_mib"]
    env = envs.make(args.env)
    return peak_mib - batch * PolicySpec(env.observation_size, env.action_size).size * 4 // 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="ant")
    parser.add_argument("--batches", type=int, nargs="*", default=[64, 512, 4096])
    parser.add_argument("--steps", type=int, default=100, help="horizon in control steps")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scale", type=float, default=0.5, help="scale of the initial policies")
    parser.add_argument("--hidden", type=int, nargs="*", default=[64, 64])
    parser.add_argument("--idle", action="store_true", help="also time policies that cost nothing")
    parser.add_argument("--peaks", type=int, nargs="*", default=[], help="batches at which to measure peak memory")
    parser.add_argument("--side", choices=["both", "ours", "plain"], default="both")
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    report = {"benchmark": "mjx", "env": args.env, "steps": args.steps, "device": jax.devices()[0].device_kind}
    report["batches"] = [measure(args, batch) for batch in args.batches]
    if args.peaks:
        report["peak_mib"] = {side: {b: peak(args, side, b) for b in args.peaks} for side in ("ours", "plain")}
    if args.memory:
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        report = {"peak_mib": int(status["VmHWM"].split()[0]) // 1024}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
