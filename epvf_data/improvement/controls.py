"""What a method has to beat: random steps of the same length, and averages of the best policies."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def random_steps(
    starts: Float[np.ndarray, "n P"],
    spread: Float[np.ndarray, "P"],
    distances: Float[np.ndarray, "n"],
    generator: np.random.Generator,
) -> Float[np.ndarray, "n P"]:
    """Each start moved by its distance, in units of the parameters' spread, in a direction drawn evenly."""
    noise = generator.normal(size=starts.shape)
    noise /= np.maximum(np.linalg.norm(noise, axis=1, keepdims=True), 1e-12)
    return (starts + spread * distances[:, None] * noise).astype(np.float32)


def distance(
    theta: Float[np.ndarray, "n P"], starts: Float[np.ndarray, "n P"], spread: Float[np.ndarray, "P"]
) -> Float[np.ndarray, "n"]:
    """How far each policy is from its start, in units of the parameters' spread."""
    return np.linalg.norm((theta - starts) / spread, axis=1)


def averages(starts: Float[np.ndarray, "n P"], counts: list[int]) -> Float[np.ndarray, "k P"]:
    """The mean of the first 2, 3, … starts, the best first (uniform soups, Wortsman et al. 2022).

    It is of use where the policies are neighbours: hidden units of strangers do not correspond.
    """
    return np.stack([starts[:count].mean(0) for count in counts]).astype(np.float32)
