"""What a critic is good for: calibration, gradients and improvement on real rollouts, and runs side by side."""

from __future__ import annotations

from epvf_data.trainers.evaluation.compare import compare
from epvf_data.trainers.evaluation.evaluate import evaluate
from epvf_data.trainers.evaluation.settings import EvaluationConfig

__all__ = ["EvaluationConfig", "compare", "evaluate"]
