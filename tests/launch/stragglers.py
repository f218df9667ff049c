"""How much longer a collection takes than the ideal where workers differ in speed, by shards a worker: a table.

    python tests/launch/stragglers.py

A worker takes the next shard as soon as it is free, as an array job with a limit (`%64`) and an executor do. Speeds are
lognormal, and stay a worker's; the ideal is all work over all speeds.
"""

from __future__ import annotations

import heapq

import numpy as np

WORKERS, RUNS = 64, 100
SPREADS = (0.1, 0.3, 0.6)  # standard deviations of the logarithm of a speed
PIECES = (1, 4, 10, 32)  # shards a worker


def over_ideal(pieces: int, spread: float, random: np.random.Generator) -> float:
    """The time at which the last shard ends over the ideal."""
    speeds = random.lognormal(0.0, spread, WORKERS)
    free = [(0.0, worker) for worker in range(WORKERS)]
    last = 0.0
    for _ in range(WORKERS * pieces):
        at, worker = heapq.heappop(free)
        end = at + 1.0 / (pieces * speeds[worker])
        last = max(last, end)
        heapq.heappush(free, (end, worker))
    return last * speeds.sum() / WORKERS


def table() -> list[str]:
    """Lines of Markdown: means over runs."""
    lines = ["| speeds differ by (σ of log) | " + " | ".join(f"{pieces}" for pieces in PIECES) + " |"]
    lines.append("|---" * (1 + len(PIECES)) + "|")
    for spread in SPREADS:
        means = [
            np.mean([over_ideal(pieces, spread, np.random.default_rng(run)) for run in range(RUNS)])
            for pieces in PIECES
        ]
        lines.append(f"| {spread} | " + " | ".join(f"{mean:.2f}" for mean in means) + " |")
    return lines


if __name__ == "__main__":
    print("\n".join(table()))
