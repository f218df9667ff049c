"""The policies that ship with the package, as bases of the default recipes.

They were made by `examples/evolve_base.py` (OpenAI-ES); `bases/README.md` says with which settings.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np

from epvf_data.envs import Env
from epvf_data.errors import ArchitectureMismatchError, ConfigError
from epvf_data.policies.files import load_policy
from epvf_data.policies.spec import PolicySpec


def bundled_bases(env: Env, spec: PolicySpec) -> list[np.ndarray]:
    """Parameters of the bundled policies of an environment, the least evolved first.

    Raises ConfigError where there are none and ArchitectureMismatchError where they do not fit `spec`.
    """
    folder = Path(str(resources.files("epvf_data.collectors"))) / "bases" / env.name
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ConfigError(
            f"no policies are bundled for {env.name}; use --set perturbed.bases=random or name policy files."
        )
    bases = []
    for file in files:
        found, flat = load_policy(file)
        if found != spec:
            raise ArchitectureMismatchError(
                f"the policies bundled for {env.name} are {found}, this collection makes {spec}; "
                "use --set perturbed.bases=random or name policy files."
            )
        bases.append(flat)
    return bases
