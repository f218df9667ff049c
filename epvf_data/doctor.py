"""What works on this machine, and which known-bad combinations of packages it has."""

from __future__ import annotations

import os
import shutil
from typing import Any

import jax
import numpy as np

from epvf_data import envs
from epvf_data.errors import EpvfError
from epvf_data.physics import native
from epvf_data.policies.spec import PolicySpec
from epvf_data.provenance import processor, versions, who
from epvf_data.rollout import rollout
from epvf_data.runtime import cache_folder, cache_problem, check


def examine() -> dict[str, Any]:
    """Versions, devices, backends that gave a return here, and problems in plain words (none: an empty list)."""
    problems = _known_bad(versions())
    try:
        check()
        devices = [{"platform": device.platform, "kind": device.device_kind} for device in jax.devices()]
    except EpvfError as error:
        devices = []
        problems.append(str(error))
    backends = []
    for backend, name in (("native", "ant"), ("mjx", "cartpole")) if devices else ():
        if backend == "native" and not native.available():
            problems.append(f"{native.MISSING} Until then MuJoCo models run on MJX, many times slower on a CPU.")
            continue
        try:
            _try(backend, name)
            backends.append(backend)
        except Exception as error:  # whatever is wrong with this machine, it is what was asked
            problems.append(f"backend {backend} does not run here: {error}")
    if shutil.which("nvidia-smi") and not any(device["platform"] == "gpu" for device in devices):
        problems.append(
            'an NVIDIA driver is here but JAX does not use it; install the extra: pip install "epvf-data[gpu]".'
        )
    return {
        "versions": versions(),
        "devices": devices,
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "backends": backends,
        "cache": str(cache_folder()),
        "who": who(),
        "problems": problems,
    }


def _try(backend: str, name: str) -> None:
    env = envs.make(name).with_horizon(5)
    spec = PolicySpec(env.observation_size, env.action_size, hidden=(4,))
    outcomes = rollout(env, spec, np.zeros((1, spec.size), np.float32), backend=backend)
    if not np.isfinite(outcomes.returns).all():
        raise RuntimeError("a five-step rollout gave a return that is not finite")


def _known_bad(found: dict[str, str | None]) -> list[str]:
    """Combinations that install without a complaint and break later."""
    problems = []

    def at_least(package: str, least: tuple[int, ...], why: str) -> None:
        version = found.get(package)
        if version and tuple(int(part) for part in version.split(".")[: len(least)] if part.isdigit()) < least:
            problems.append(f"{package} {version} {why}; install {package}>={'.'.join(map(str, least))}.")

    if found["mujoco"] and found["mujoco-mjx"] and found["mujoco"] != found["mujoco-mjx"]:
        problems.append(
            f"mujoco {found['mujoco']} is paired with mujoco-mjx {found['mujoco-mjx']}; install one version of both."
        )
    at_least("zarr", (3, 1, 6), "has known faults with sharding")
    at_least("numcodecs", (0, 16, 6), "decodes pickle, which can run a stranger's code")
    if os.environ.get("NVIDIA_TF32_OVERRIDE") == "1":
        problems.append("NVIDIA_TF32_OVERRIDE=1 rounds matrix products to 10 bits and changes returns; unset it.")
    if (problem := cache_problem()) is not None:
        problems.append(problem)
    return problems
