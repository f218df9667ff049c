"""The picture holds what it should: panels, points, the identity line, and it is a PNG of a readable size."""

from __future__ import annotations

import matplotlib.image
import numpy as np
import pytest

from epvf_data.errors import ConfigError, DatasetError
from epvf_data.pictures import COLOURS, KINDS, save
from epvf_data.trainers.evaluation.picture import draw_comparison
from epvf_data.trainers.offline.plot import MANY, SKEWED, Panel, draw


def panel(split: str, rows: int, sources: int) -> Panel:
    random = np.random.default_rng(0)
    true = random.normal(size=rows)
    predicted = true + random.normal(size=rows)
    names = [f"source{row % sources}" for row in range(rows)]
    return Panel(split, true, predicted, names, 0.7, 0.5, 4, 3, 0.6)


@pytest.mark.parametrize(("rows", "sources"), [(1, 1), (300, 2), (2 * MANY, 1), (40, 9)])
def test_a_picture_of_each_kind_is_drawn(tmp_path, rows, sources):
    path = tmp_path / "picture.png"
    save(draw([panel("iid", rows, sources), panel("lineage", rows, sources)], "toy"), path)
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
    save(draw([base._replace(predicted=np.ones(50))], "toy"), tmp_path / "constant.png")
    wild = base.predicted.copy()
    wild[0] = 1e12
    figure = draw([base._replace(predicted=wild, true=np.ones(50))], "toy")
    save(figure, tmp_path / "wild.png")
    assert any("predicted above (" in text.get_text() for text in figure.axes[0].get_legend().get_texts())
    assert (tmp_path / "constant.png").stat().st_size > 5000
    assert (tmp_path / "wild.png").stat().st_size > 5000


@pytest.mark.parametrize("rows", [300, 2 * MANY])
def test_skewed_returns_are_drawn_on_logarithmic_axes_with_every_point_inside(tmp_path, rows):
    base = panel("lineage", rows, 1)
    true = np.exp(np.linspace(0, np.log(3 * SKEWED**2), rows))
    figure = draw([base._replace(true=true, predicted=true)], "toy")
    axes = figure.axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_xlim()[0] < true[0] < true[-1] < axes.get_xlim()[1]
    assert axes.get_ylim()[0] < true[0] < true[-1] < axes.get_ylim()[1] < 2 * true[-1]
    save(figure, tmp_path / "skewed.png")
    true[0] = 1e-6  # one policy that did nothing: its decades would take all of the axes
    axes = draw([base._replace(true=true, predicted=true)], "toy").axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("linear", "linear")


@pytest.mark.parametrize(("panels", "shape"), [(1, (1, 1)), (3, (1, 3)), (4, (2, 2)), (5, (2, 3))])
def test_panels_stand_in_rows_that_a_page_can_hold(panels, shape):
    names = ("iid", "lineage", "high", "source", "architecture")
    figure = draw([panel(name, 20, 1) for name in names[:panels]], "toy")
    assert figure.axes[0].get_gridspec().get_geometry() == shape


def test_runs_keep_their_row_and_scale_in_all_panels_of_a_comparison():
    line = lambda run, value: {  # noqa: E731
        **{"run": run, "critic": "mlp", "ensemble": 1, "spearman": value, "interval": [value - 0.1, value + 0.1]}
    }
    figure = draw_comparison({"iid": [line("a-mlp", 0.9), line("b-mlp", 0.2)], "high": [line("b-mlp", 0.8)]})
    first, second = figure.axes
    assert [text.get_text() for text in first.get_yticklabels()] == ["a-mlp", "b-mlp"]
    assert first.get_xlim() == second.get_xlim()
    assert second.lines[0].get_ydata()[0] == first.get_yticks()[1]  # b-mlp's row


@pytest.mark.parametrize("kind", KINDS)
def test_the_kind_of_a_picture_is_what_its_name_ends_in(tmp_path, kind):
    path = tmp_path / f"picture.{kind}"
    save(draw([panel("iid", 9, 1)], "toy"), path)
    assert path.read_bytes().startswith({"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[kind])
    with pytest.raises(DatasetError, match="exists already"):
        save(draw([panel("iid", 9, 1)], "toy"), path)


@pytest.mark.parametrize("name", ["picture.gif", "picture", "picture.png.jpg"])
def test_other_names_are_refused(tmp_path, name):
    with pytest.raises(ConfigError, match=r"ends in one of \.png, \.pdf, \.svg"):
        save(draw([panel("iid", 9, 1)], "toy"), tmp_path / name)
    assert not list(tmp_path.iterdir())
