"""Real training, from the command to the figure."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import epvf_data.cli.reproducing  # noqa: F401  registers the verb
from epvf_data.cli.app import app
from epvf_data.trainers.curves.read import read_curves


def test_a_smoke_run_trains_and_draws(in_tmp):
    arguments = ["reproduce", "fig1", "--scale", "smoke", "--only", "envs-2", "--set", "iterations=12"]
    arguments += ["--json", "--quiet"]
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 0, found.output
    last = json.loads(found.stdout.splitlines()[-1])
    status = last["runs"]
    assert status == {**dict.fromkeys(status, "missing"), "envs-2": "finished"}
    variant = json.loads((in_tmp / last["data"]).read_text())["variants"][1]
    directory = in_tmp / "fig1-smoke" / "runs" / "envs-2"
    curves = read_curves(directory)
    assert [curve.seed for curve in curves] == variant["seeds"] == [0, 1]
    # What the figure shows lies within what training logged.
    shown = np.array(variant["curves"]["env_steps"]["return_perturbed"]["seeds"])
    for row, curve in zip(shown, curves, strict=True):
        assert len(curve.iteration) == 12
        slack = 1e-4 * np.abs(curve.return_perturbed).max()
        assert row.min() >= curve.return_perturbed.min() - slack
        assert row.max() <= curve.return_perturbed.max() + slack
    assert variant["env_steps"] == pytest.approx(min(curve.env_steps[-1] for curve in curves), rel=1e-5)
    before = (directory / "metrics.jsonl").stat().st_mtime_ns
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert (directory / "metrics.jsonl").stat().st_mtime_ns == before  # nothing ran again
