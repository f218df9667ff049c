"""The policies that ship with the package, bases of the default recipes; `bases/README.md` says how they were made."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from epvf_data.envs import Env
from epvf_data.errors import ConfigError


def bundled_files(env: Env) -> list[str]:
    """The policy files that ship with an environment, least evolved first. Raises ConfigError where there are none."""
    folder = Path(str(resources.files("epvf_data.collectors"))) / "bases" / env.name
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ConfigError(f"no policies are bundled for {env.name}; set perturbed.bases=random, or name policy files.")
    return [str(file) for file in files]
