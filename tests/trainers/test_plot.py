"""The picture holds what it should: panels, points, the identity line, and it is a PNG of a readable size."""

from __future__ import annotations

import matplotlib.image
import numpy as np
import pytest

from epvf_data.trainers.offline.plot import COLOURS, MANY, Panel, draw


def panel(split: str, rows: int, sources: int) -> Panel:
    random = np.random.default_rng(0)
    true = random.normal(size=rows)
    predicted = true + random.normal(size=rows)
    names = [f"source{row % sources}" for row in range(rows)]
    return Panel(split, true, predicted, names, 0.7, 0.5, 4, 3, 0.6)


@pytest.mark.parametrize(("rows", "sources"), [(1, 1), (300, 2), (2 * MANY, 1), (40, 9)])
def test_a_picture_of_each_kind_is_drawn(tmp_path, rows, sources):
    path = tmp_path / "picture.png"
    draw([panel("iid", rows, sources), panel("lineage", rows, sources)], "mlp", "toy", path)
    image = matplotlib.image.imread(path)
    assert image.shape[0] >= 600
    assert image.shape[1] >= 1200
    if sources == 2:  # both colours appear, blended with white by the points' transparency
        flat = image[..., :3].reshape(-1, 3)
        for colour in COLOURS[:2]:
            full = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
            assert (np.abs(flat - (0.55 * full + 0.45)).max(1) < 0.02).any()


def test_constant_and_wild_predictions_can_be_drawn(tmp_path):
    base = panel("iid", 50, 1)
    draw([base._replace(predicted=np.ones(50))], "mlp", "toy", tmp_path / "constant.png")
    wild = base.predicted.copy()
    wild[0] = 1e12
    draw([base._replace(predicted=wild, true=np.ones(50))], "mlp", "toy", tmp_path / "wild.png")
    assert (tmp_path / "constant.png").stat().st_size > 5000
    assert (tmp_path / "wild.png").stat().st_size > 5000
