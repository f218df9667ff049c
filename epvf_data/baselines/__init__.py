"""PPO and SAC of brax on the same tasks: controls from outside, in the run directories of online training."""

from epvf_data.baselines.settings import PRESETS, BaselineConfig, PPOSettings, SACSettings, baseline_config
from epvf_data.baselines.train import BaselineReport, train_baseline

__all__ = [
    "PRESETS",
    "BaselineConfig",
    "BaselineReport",
    "PPOSettings",
    "SACSettings",
    "baseline_config",
    "train_baseline",
]
