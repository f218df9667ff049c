"""The paper's figures from our own runs: data, picture and report."""

from epvf_data.reproduction.figures import FIGURES, SCALES
from epvf_data.reproduction.reproduce import Reproduction, reproduce

__all__ = ["FIGURES", "SCALES", "Reproduction", "reproduce"]
