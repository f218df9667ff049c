"""epvf-data: data sets of policies and their returns, and critics that read a policy and predict its return."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public name → module that defines it. Loaded on first use, so that reading data never imports jax or mujoco.
_PUBLIC = {
    "open": "epvf_data.store.reader",
    "PolicySpec": "epvf_data.policies.spec",
}
__all__ = ["PolicySpec", "__version__", "open"]

if TYPE_CHECKING:
    from epvf_data.policies.spec import PolicySpec
    from epvf_data.store.reader import open


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'epvf_data' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
