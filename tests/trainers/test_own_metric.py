"""Measures of the user's own, as columns of `compare`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import epvf_data
from epvf_data.errors import ConfigError, FileError
from epvf_data.trainers.metrics import spearman
from epvf_data.trainers.offline.fitted import held_out
from epvf_data.trainers.offline.run import load_run

TEXT = """
import numpy as np


def best_of_three(predicted, true):
    return true[np.argsort(predicted)[-3:]].max()
"""


@pytest.fixture(scope="module")
def runs(dataset, tmp_path_factory):
    """Two runs on the same rows, by lineage in two folds."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("ridge", "linear"):
        config = epvf_data.OfflineConfig(critic=name, folds=2, epochs=2, seeds=2, resamples=5)
        epvf_data.train_offline(dataset, config, folder / name)
    return folder


def test_a_metric_is_a_column(runs, in_tmp, shell):
    Path("mine.py").write_text(TEXT)
    done = shell("evaluate", runs / "linear", "--no-rollouts", "--metric", "mine.py:best_of_three", "-q")
    loaded = load_run(runs / "linear")
    rows, predicted = held_out(loaded.critics("lineage"))
    true = loaded.source.labels[rows]
    each = [true[np.argsort(one)[-3:]].max() for one in predicted]
    assert f"best_of_three (lineage): {np.mean(each):.3f}, mean of 2 seeds" in done.stdout
    found = json.loads((runs / "linear" / "evaluation.json").read_text())["by_split"]["lineage"]["metrics"]
    assert found == {"best_of_three": {"value": pytest.approx(np.mean(each)), "per_seed": pytest.approx(each)}}
    again = epvf_data.evaluate(runs / "linear", rollouts=False, metrics=[spearman])  # beside what was measured before
    assert again["metrics"]["spearman"]["value"] == pytest.approx(again["splits"]["lineage"]["critic"]["spearman"])
    table = shell("compare", runs / "linear", runs / "ridge").stdout.split("lineage:")
    head, *lines = table[1].splitlines()[1:]
    assert head.split()[-2:] == ["best_of_three", "spearman"]
    (mine,) = (line for line in lines if line.startswith("  linear "))
    assert mine.split()[-2:] == [f"{np.mean(each):.3f}", f"{again['metrics']['spearman']['value']:.3f}"]
    assert all(line.split()[-2:] == ["–", "–"] for line in lines if line.startswith("  ridge"))
    assert "best_of_three" not in table[0]  # it was measured for one split


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        ([lambda predicted, true: float("nan")], "gives nan; expected a finite number"),
        ([lambda predicted, true: predicted], "gives no number: TypeError"),
        ([lambda predicted: 1.0], "gives no number: TypeError"),
        ([spearman, spearman], "two metrics are called spearman; rename one"),
        (["spearman"], "the metric 'spearman' is no code; name it as in my_metric.py:top_two"),
        ([3], "is int; expected a function"),
    ],
)
def test_what_is_no_metric_is_one_sentence(runs, metrics, words):
    with pytest.raises(ConfigError, match=words):
        epvf_data.evaluate(runs / "ridge", rollouts=False, metrics=metrics)
    with pytest.raises(FileError, match="there is no such file"):
        epvf_data.evaluate(runs / "ridge", rollouts=False, metrics=["none.py:metric"])
