"""Offline training: fit a critic on the rows of a data set and judge it on policies that it never saw."""

from __future__ import annotations

from epvf_data.trainers.offline.run import evaluate_run, train_offline
from epvf_data.trainers.offline.settings import OfflineConfig

__all__ = ["OfflineConfig", "evaluate_run", "train_offline"]
