"""Rows as a table of pandas."""

from __future__ import annotations

import numpy as np
import pytest

import epvf_data


def test_every_row_is_a_line(small):
    pytest.importorskip("pandas", reason="the extra pandas is not installed")
    dataset = epvf_data.open(small)
    frame = dataset.to_pandas()
    assert len(frame) == dataset.rows
    for item in dataset.architectures:
        table, mine = dataset.table(item.id), frame[frame["architecture"] == str(item.spec)]
        mine = dataset.to_pandas(item.id) if len(mine) != table.rows else mine
        np.testing.assert_allclose(mine["return"], table.mean_returns())
        assert mine["row"].tolist() == list(range(table.rows))
        lineage = dataset.lineage(item.id)
        assert [None if word != word else word for word in mine["base"].tolist()] == lineage.words("base")
        assert mine["source"].tolist() == lineage.words("source")
        np.testing.assert_array_equal(mine["finite"], np.concatenate([p.all(1) for p in table.pieces("finite")]))
