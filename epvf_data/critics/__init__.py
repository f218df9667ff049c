"""Critics: functions that read a policy's flat parameter vector and predict its return."""

from __future__ import annotations

from collections.abc import Callable

from epvf_data.critics.base import Critic, Params, Scale, standardise, value
from epvf_data.critics.mlp import mlp
from epvf_data.critics.ridge import ridge

CRITICS: dict[str, Callable[..., Critic]] = {"mlp": mlp, "ridge": ridge}

__all__ = ["CRITICS", "Critic", "Params", "Scale", "mlp", "ridge", "standardise", "value"]
