"""The policies that ship with the package, bases of the default recipes; `bases/README.md` says how they were made.

The Ant's probing states are half what they see, half what random policies see; other shipped ones are the latter alone.

    python -m epvf_data.collectors.bundled ant    # makes them again
"""

from __future__ import annotations

import sys
from importlib import resources
from pathlib import Path

import numpy as np

from epvf_data import envs
from epvf_data.envs import Env
from epvf_data.errors import ConfigError
from epvf_data.policies.files import load_policy
from epvf_data.recording import probes


def bundled_files(env: Env) -> list[str]:
    """The policy files that ship with an environment, by name. Raises ConfigError where there are none."""
    files = _files(env)
    if not files:
        raise ConfigError(f"no policies are bundled for {env.name}; set perturbed.bases=random, or name policy files.")
    return [str(file) for file in files]


def _files(env: Env) -> list[Path]:
    return sorted(
        (Path(str(resources.files("epvf_data.collectors"))) / "bases" / envs.relative(env.name)).glob("*.safetensors")
    )


def main(names: list[str]) -> None:
    """Writes the probing states of these environments into the package."""
    for name in names:
        env = envs.make(name)
        trained = [load_policy(file) for file in _files(env)]
        np.save(
            Path(str(probes.FOLDER)) / f"{name}-{env.version}.npy", probes.draw(env, probes.SHIPPED, trained=trained)
        )


if __name__ == "__main__":
    main(sys.argv[1:])
