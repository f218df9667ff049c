"""Critics: functions that read a policy, its parameters or its probing actions, and predict its return."""

from __future__ import annotations

from epvf_data.critics.base import Critic, Params, Row, Scale, make_row
from epvf_data.critics.losses import Loss, make_loss
from epvf_data.critics.mlp import mlp, simba
from epvf_data.critics.ridge import ridge
from epvf_data.critics.settings import CriticSettings
from epvf_data.critics.value import combine, value
from epvf_data.critics.zoo import CRITICS, make_critic

__all__ = [
    "CRITICS",
    "Critic",
    "CriticSettings",
    "Loss",
    "Params",
    "Row",
    "Scale",
    "combine",
    "make_critic",
    "make_loss",
    "make_row",
    "mlp",
    "ridge",
    "simba",
    "value",
]
