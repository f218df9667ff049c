"""One row's policy as a file of its own, with the few lines of NumPy that run it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from epvf_data import outputs
from epvf_data.errors import ConfigError
from epvf_data.policies.files import save_policy
from epvf_data.policies.spec import PolicySpec
from epvf_data.store import reader
from epvf_data.store.identity import mixed
from epvf_data.store.pick import pick_row

SNIPPET = """\
import json, pathlib, numpy as np
from safetensors import safe_open
with safe_open(pathlib.Path(__file__).with_name({name!r}), framework="numpy") as file:
    spec, at = json.loads(file.metadata()["spec"]), {{name: file.get_tensor(name) for name in file.keys()}}
functions = {{"tanh": np.tanh, "relu": lambda x: x.clip(0), "swish": lambda x: x / (1 + np.exp(-x)),
    "elu": lambda x: x.clip(0) + np.expm1(x.clip(max=0)), "clip": lambda x: x.clip(-1, 1), "identity": lambda x: x}}
def act(x, noise=0):  # observations [{observations}] to actions [{actions}]; noise: standard normal (Gaussian policies)
    if n := spec["normaliser"]: x = np.clip((x - np.array(n["mean"])) / np.array(n["std"]), -n["clip"], n["clip"])
    for one in spec["layers"]:
        x = x @ at[one["name"] + "/kernel"] + at.get(one["name"] + "/bias", 0)
        if n := one.get("norm"): x = (x - x.mean(-1, keepdims=True)) / (x.var(-1, keepdims=True) + n["epsilon"]) ** 0.5
        x = x * at.get(one["name"] + "/norm_scale", 1) + at.get(one["name"] + "/norm_bias", 0)
        if one is spec["layers"][-1]: x = x + np.exp(at.get("log_std", -np.inf)) * noise
        x = functions[one["activation"]](x)
    return x  # {meaning}
"""
# What Gymnasium's environments of the same body take.
MEANINGS = {"cartpole": "Gymnasium's CartPole-v1 takes int(act(x)[0] >= 0): 1 pushes to the right"} | dict.fromkeys(
    ("halfcheetah", "hopper", "swimmer", "walker2d", "ant-gym"), "as Gymnasium's env.step takes them"
)


@dataclass(frozen=True)
class PolicyReport:
    """What was written, and which row it is; `standard_error` is that of its mean return, None for one episode."""

    policy: str
    snippet: str | None
    architecture: str
    row: int
    mean_return: float
    episodes: int
    standard_error: float | None


def export_policy(
    dataset_path: str | os.PathLike[str],
    out: str | Path,
    *,
    row: str = "best",
    architecture: str | None = None,
    force: bool = False,
) -> PolicyReport:
    """Writes a row's policy to `out` (safetensors, its specification and environment in the header).

    Beside it lies a `.py` of a dozen lines that runs it with NumPy, a Gaussian policy with the noise that it is given;
    none where the policy's architecture is the user's own, whose file runs it.

    `row` is `best`, `median`, `worst` or a number. Raises ConfigError or DatasetError where there is no such row, its
    parameters are withheld, or a file exists and `force` does not replace it; StorageError if the disk refuses.
    """
    policy, snippet = Path(out), outputs.beside(Path(out), ".py")
    if policy == snippet:
        raise ConfigError(f"both the policy and the lines that run it would be {policy}; take a name in .safetensors.")
    for path in (policy, snippet):
        outputs.check_free(path, force)
    dataset = reader.open(dataset_path)
    table, number = pick_row(dataset, row, architecture)
    params, mean = table.take("params", np.array([number]))[0], float(table.mean_returns()[number])
    returns = table.take("returns", np.array([number]))[0].astype(np.float64)
    error = float(returns.std(ddof=1) / np.sqrt(len(returns))) if len(returns) > 1 else None
    spec = table.spec
    runs = isinstance(spec, PolicySpec)
    meaning = MEANINGS.get(dataset.env.name, "what an action of -1 ... 1 does says the environment")
    text = SNIPPET.format(
        name=policy.name, observations=spec.observation_size, actions=spec.action_size, meaning=meaning
    )
    if runs:
        outputs.write_bytes(snippet, text.encode(), force)
    # Of several environments nothing says which one this row is of.
    known = {"horizon": str(dataset.env.horizon)} if len(mixed(dataset.env)) == 1 else {}
    save_policy(policy, spec, params, env=dataset.env.name, **known)
    return PolicyReport(str(policy), str(snippet) if runs else None, spec.id, number, mean, len(returns), error)
