"""What the backends gave before MuJoCo C moved into the compiled loop: rows stored since then re-simulate to the bit.

    python tests/physics/golden.py      writes golden.json anew, as this machine and these versions compute it

Digits hang on how the compiler optimises and on the processor, so each file entry names both; elsewhere the numbers are
compared within a tolerance that lets no wrong rule through.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from epvf_data import envs
from epvf_data.physics.episode import Outcomes
from epvf_data.policies import mlp
from epvf_data.policies.spec import PolicySpec
from epvf_data.rollout import rollout

FILE = Path(__file__).with_name("golden.json")
BODIES = ("ant", "ant-servo", "hopper", "walker2d", "halfcheetah", "swimmer", "ant-gym", "humanoid")
POLICIES = 48  # more than one block, and of ends at many steps
CASES = {
    **{body: {"env": body} for body in BODIES},
    "ant-layer-norm": {"env": "ant", "layer_norm": True, "hidden": (13, 7)},
    "hopper-sampled": {"env": "hopper", "gaussian": "sampled", "hidden": (16,)},
    "halfcheetah-wild": {"env": "halfcheetah", "scale": 1e4, "output": "identity"},
    "cartpole": {"env": "cartpole", "backend": "mjx"},
    "ant-mjx": {"env": "ant", "backend": "mjx", "horizon": 30, "policies": 8},
}


def play(case: str) -> Outcomes:
    """The rollouts of a case: two episodes of each of its policies, the last ones of which fall or diverge early."""
    chosen: dict[str, Any] = {"hidden": (32, 32), "horizon": 120, "scale": 1.0, "backend": "native", **CASES[case]}
    env = envs.make(chosen.pop("env")).with_horizon(chosen.pop("horizon"))
    backend, scale, count = chosen.pop("backend"), chosen.pop("scale"), chosen.pop("policies", POLICIES)
    spec = PolicySpec(env.observation_size, env.action_size, **chosen)
    keys = jax.random.split(jax.random.key(7), count)
    scales = np.linspace(0.1, 4.0, count, dtype=np.float32) * scale
    params = np.array(jax.vmap(lambda key: mlp.init(key, spec, 1.0))(keys)) * scales[:, None]
    seeds = np.asarray(jax.random.key_data(jax.random.split(jax.random.key(8), count)))
    return rollout(env, spec, params, reset_seed=seeds, episodes=2, backend=backend, discount=0.97, sample=True)


def conditions() -> str:
    """What the digits hang on beside the program."""
    plain = jax.config.read("jax_disable_most_optimizations")
    flags = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), "")
    widths = [name for name in ("avx2", "fma", "avx512f") if name in flags.split()]
    fused = "fusion_emitters=false" not in os.environ.get("XLA_FLAGS", "")
    how = "optimised" if not plain else "not optimised" if fused else "not optimised, not fused"
    return f"jax {jax.__version__}, {how}, {' '.join(widths)}"


def maker() -> str:
    """Of this processor. The compiler knows processors beyond what their flags say: a few digits hang on that."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split()[-1] for line in lines if line.startswith("vendor_id")), "")


def stored() -> dict[str, dict[str, Any]]:
    """By conditions, the digits that were computed under them, of this processor's maker where his are others."""
    every = json.loads(FILE.read_text())
    return {name: {**cases, **every.get(f"{name}, {maker()}", {})} for name, cases in every.items()}


def numbers(outcomes: Outcomes) -> dict[str, Any]:
    """A digest of every bit, and the returns and lengths to look at."""
    bits = hashlib.sha256()
    for field in outcomes:
        assert field is not None
        bits.update(np.ascontiguousarray(field + 0.0 if field.dtype == np.float32 else field).tobytes())
    returns = [[float(value) for value in row] for row in outcomes.returns]
    return {"sha256": bits.hexdigest(), "returns": returns, "lengths": outcomes.lengths.tolist()}


def main() -> None:
    every = json.loads(FILE.read_text()) if FILE.exists() else {}
    found = {case: numbers(play(case)) for case in CASES}
    if (general := every.get(conditions())) is None:
        every[conditions()] = found
    else:
        every[f"{conditions()}, {maker()}"] = {case: one for case, one in found.items() if one != general.get(case)}
    FILE.write_text(json.dumps(every) + "\n")


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    sys.exit(main())
