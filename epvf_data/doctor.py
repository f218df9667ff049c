"""What works on this machine, and which known-bad combinations of packages it has."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from typing import Any

import numpy as np

from epvf_data import envs
from epvf_data.errors import EpvfError
from epvf_data.places.cache import cache_folder
from epvf_data.policies.spec import PolicySpec
from epvf_data.provenance import cores, processor, versions, who

# The newest that this version was tried with. No cap keeps a newer one away: most work.
TRIED = {"jax": (0, 12), "flax": (0, 12), "zarr": (3, 4), "numpy": (2, 5), "python": (3, 14)}


def examine() -> dict[str, Any]:
    """Versions, devices, backends that gave a return here, problems and notes in plain words (none: empty lists).

    In the small installation, which has no JAX, only what it can do is looked at.
    """
    found: dict[str, Any] = {
        "versions": versions(),
        "devices": [],
        "processor": processor(),
        "cores": cores(),
        "backends": [],
        "cache": str(cache_folder()),
        "who": who(),
        "problems": _known_bad(versions()),
        "notes": [*_untried(versions()), *_absent()],
    }
    if find_spec("jax") is not None:
        _compute(found)
    return found


def _compute(found: dict[str, Any]) -> None:
    """Adds devices and backends, and what keeps them from working."""
    import jax

    from epvf_data.physics import native
    from epvf_data.runtime import cache_problem, check

    problems, devices, backends = found["problems"], found["devices"], found["backends"]
    if (problem := cache_problem()) is not None:
        problems.append(problem)
    try:
        check()
        devices += [{"platform": device.platform, "kind": device.device_kind} for device in jax.devices()]
    except EpvfError as error:
        problems.append(str(error))
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


def _absent() -> list[str]:
    """What this installation cannot do, for want of which extra."""
    needs = {"train": ("jax", "rolls policies out and fits critics"), "plot": ("matplotlib", "draws pictures")}
    needs |= {"mjx": ("mujoco.mjx", "steps MuJoCo models on accelerators"), "render": ("av", "writes videos")}
    needs |= {"s3": ("obstore", "reads and writes s3://, gs://, az:// and https://")}
    return [
        f"the extra {name} is not installed; it {does}: pip install 'epvf-data[{name}]'."
        for name, (package, does) in needs.items()
        if find_spec(package.split(".")[0]) is None or find_spec(package) is None
    ]


def _untried(found: dict[str, str | None]) -> list[str]:
    """Packages that are newer than any that this version was tried with."""
    notes = []
    for package, newest in TRIED.items():
        version = found.get(package) or ""
        if _numbers(version, 2) > newest:
            known = ".".join(map(str, newest))
            notes.append(f"{package} {version} is newer than {known}, the newest that this version was tried with.")
    return notes


def _numbers(version: str, count: int) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:count] if part.isdigit())


def _try(backend: str, name: str) -> None:
    from epvf_data.rollout import rollout

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
        if version and _numbers(version, len(least)) < least:
            problems.append(f"{package} {version} {why}; install {package}>={'.'.join(map(str, least))}.")

    pair = found["mujoco"], found["mujoco-mjx"]
    if all(pair) and pair[0] != pair[1]:
        problems.append(
            f"mujoco {found['mujoco']} is paired with mujoco-mjx {found['mujoco-mjx']}; install one version of both."
        )
    at_least("zarr", (3, 1, 6), "has known faults with sharding")
    at_least("numcodecs", (0, 16, 6), "decodes pickle, which can run a stranger's code")
    if os.environ.get("NVIDIA_TF32_OVERRIDE") == "1":
        problems.append("NVIDIA_TF32_OVERRIDE=1 rounds matrix products to 10 bits and changes returns; unset it.")
    return problems
