"""The picture of a data set: what is read for it is right, and any data set can be drawn."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import epvf_data
from epvf_data.cards import portrait
from epvf_data.cards.portrait import plot_dataset, sit
from epvf_data.curation.select import withhold
from epvf_data.errors import DatasetError
from epvf_data.policies.spec import PolicySpec
from epvf_data.store.writer import Writer


def write(path, env, *rows):
    with Writer.open(path, env) as writer:
        writer.commit(list(rows), {})
    return epvf_data.open(path)


def test_the_numbers_are_those_of_the_rows(quick_path, env, make_rows):
    rows, wide = make_rows(60, 0, probes=4), make_rows(20, 1, spec=PolicySpec(4, 2, (5,)), probes=4)
    seen = sit(write(quick_path / "data", env, rows, wide))
    every = [rows, wide]
    np.testing.assert_allclose(seen.returns, np.concatenate([one.returns.mean(1, dtype=float) for one in every]))
    np.testing.assert_allclose(
        seen.norms, np.concatenate([np.linalg.norm(one.params, axis=1) for one in every]), rtol=1e-6
    )
    assert seen.sources == tuple(["random", "perturbed"] * 40)
    assert seen.layers == ("4-3-2",) * 60 + ("4-5-2",) * 20
    actions = np.concatenate([one.probe_actions.reshape(len(one), -1) for one in every]).astype(float)
    centred = actions - actions.mean(0)
    singular = np.linalg.svd(centred, compute_uv=False)
    np.testing.assert_allclose(seen.explained, (singular[:2] ** 2 / (singular**2).sum()), rtol=1e-6)
    np.testing.assert_allclose(
        np.abs(seen.map).max(0), np.abs(centred @ np.linalg.svd(centred)[2][:2].T).max(0), rtol=1e-6
    )


def test_of_rows_with_many_actions_fewer_are_drawn(quick_path, env, make_rows, monkeypatch):
    data = write(quick_path / "data", env, make_rows(30, 0, probes=20))  # more actions than rows
    seen = sit(data)
    actions = data.table().column("probe_actions").reshape(30, -1).astype(float)
    scores = np.linalg.svd(actions - actions.mean(0), full_matrices=False)
    np.testing.assert_allclose(np.abs(seen.map), np.abs(scores[0][:, :2] * scores[1][:2]), atol=1e-6)
    monkeypatch.setattr(portrait, "_BYTES", 160 * 12)
    assert len(sit(data).returns) == 12


def test_of_many_rows_some_are_drawn(quick_path, env, make_rows, monkeypatch):
    monkeypatch.setattr(portrait, "MOST", 50)
    data = write(quick_path / "data", env, make_rows(300, 0, probes=2))
    one, again, other = sit(data), sit(data), sit(data, seed=1)
    assert len(one.returns) == 50
    assert one.rows == 300
    np.testing.assert_array_equal(one.returns, again.returns)
    assert not np.array_equal(one.returns, other.returns)


def test_any_data_set_can_be_drawn(quick_path, env, make_rows):
    plain = make_rows(12, 0)
    sets = {
        "plain": [plain],
        "probed": [make_rows(12, 0, probes=3), make_rows(5, 2, spec=PolicySpec(4, 2, ()))],
        "one": [make_rows(1, 0, probes=1)],
        "nan": [replace(plain, returns=np.full_like(plain.returns, np.nan))],
        "still": [replace(plain, params=np.zeros_like(plain.params))],
        "huge": [replace(plain, returns=np.full_like(plain.returns, 3e38))],
        "many": [make_rows(3, seed, episodes=seed) for seed in range(1, 6)],
    }
    for name, rows in sets.items():
        write(quick_path / name, env, *rows)
    withhold(quick_path / "one", quick_path / "bare")
    for name in (*sets, "bare"):
        plot_dataset(epvf_data.open(quick_path / name), quick_path / f"{name}.png")
        with Image.open(io.BytesIO((quick_path / f"{name}.png").read_bytes())) as picture:
            assert picture.size[0] > 800
    with Writer.open(quick_path / "empty", env):
        pass
    with pytest.raises(DatasetError, match="holds no rows"):
        plot_dataset(epvf_data.open(quick_path / "empty"), quick_path / "empty.png")
