"""Rows of a data set from policies and how their episodes ended."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache, partial

import jax
import numpy as np
from jaxtyping import Float, UInt32

from epvf_data.envs import Env
from epvf_data.physics.episode import Outcomes
from epvf_data.policies.kinds import Spec
from epvf_data.policies.probe import probe
from epvf_data.provenance import processor
from epvf_data.store.schema import EnvIdentity, Lineage, Rows

PROBE_BATCH = 512  # policies probed at once: one compiled function for any number of rows


def make_rows(
    spec: Spec,
    params: Float[np.ndarray, "n P"],
    outcomes: Outcomes,
    reset_seed: UInt32[np.ndarray, "n 2"],
    lineage: Lineage,
    probe_states: Float[np.ndarray, "K O"],
    simulation: dict[str, str],
    discount: float | None = None,
) -> Rows:
    """The rows of n policies with their actions in K probing states; with `discount`, discounted returns too."""
    return Rows(
        spec=spec,
        params=params,
        returns=outcomes.returns,
        lengths=outcomes.lengths,
        terminated=outcomes.terminated,
        truncated=outcomes.truncated,
        finite=outcomes.finite,
        reset_seed=reset_seed,
        lineage=lineage,
        probe_states=probe_states,
        probe_actions=probe_actions(spec, params, probe_states),
        discounted_returns=None if discount is None else outcomes.discounted,
        discount=discount,
        simulation=simulation,
    )


def probe_actions(
    spec: Spec, params: Float[np.ndarray, "n P"], states: Float[np.ndarray, "K O"]
) -> Float[np.ndarray, "n K A"]:
    """Each policy's action in each probing state, a few hundred policies at a time."""
    run = _prober(spec)
    actions = np.empty((len(params), len(states), spec.action_size), np.float32)
    for start in range(0, len(params), PROBE_BATCH):
        batch = params[start : start + PROBE_BATCH]
        padded = np.pad(batch, ((0, PROBE_BATCH - len(batch)), (0, 0)))  # the size decides how sums are rounded
        actions[start : start + len(batch)] = np.asarray(run(padded, states))[: len(batch)]
    return actions


@lru_cache(maxsize=16)
def _prober(spec: Spec) -> Callable:
    return jax.jit(jax.vmap(partial(probe, spec), in_axes=(0, None)))


def simulation(backend: str) -> dict[str, str]:
    """What rolls out here, as far as it can change a return: rows of equal descriptions and versions are comparable."""
    device, flags = jax.devices()[0], os.environ.get("XLA_FLAGS", "").split()
    flags = sorted(flag for flag in flags if not flag.startswith("--xla_dump"))
    if getattr(jax.config, "jax_disable_most_optimizations", False):
        flags.append("jax_disable_most_optimizations")
    return {
        "backend": backend,
        "device": processor() if backend == "native" or device.platform == "cpu" else device.device_kind,
        "dtype": "float64" if backend == "native" else "float32",  # of the physics; policies are float32 on both
        "matmul_precision": "highest",
        **({"compiler": " ".join(flags)} if flags else {}),  # which rounds otherwise then
    }


def env_identity(env: Env) -> EnvIdentity:
    """The environment as the store knows it."""
    known = {"name", "version", "observation_size", "action_size", "timestep", "substeps"}
    return EnvIdentity(
        **{key: value for key, value in env.identity.items() if key in known},
        horizon=env.horizon,
        digest=env.digest,
        details={key: value for key, value in env.identity.items() if key not in known | {"horizon"}},
    )
