"""Algorithm 1: perturb, roll out, fit the critic, climb it, again."""

from __future__ import annotations

from epvf_data.trainers.online.run import OnlineReport, read_config, train_online
from epvf_data.trainers.online.settings import OnlineConfig, configure, online_config, presets

__all__ = ["OnlineConfig", "OnlineReport", "configure", "online_config", "presets", "read_config", "train_online"]
