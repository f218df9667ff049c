"""The tutorial keeps its word: its commands and its Python run, in order, in one folder."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs" / "tutorial"


def follow(page, shell):
    """Runs the commands and the Python of a page, one after the other."""
    text = (DOCS / f"{page}.md").read_text()
    ran = 0
    for language, block in re.findall(r"```(console|python)\n(.*?)```", text, re.DOTALL):
        if language == "python":
            exec(compile(block, f"{page}.md", "exec"), {})
            ran += 1
        for line in block.splitlines() if language == "console" else ():
            if line.startswith("$ epvf-data "):
                shell(*shlex.split(line)[2:])
                ran += 1
    assert ran >= 3


@pytest.mark.soak
def test_the_tutorial_runs(in_tmp, shell):
    for page in ("collect", "critic", "share"):
        follow(page, shell)
    made = {"cartpole.zarr", "cartpole.png", "cartpole.html", "critic.html", "good.zarr", "copy.zarr", "good.h5"}
    assert made <= {path.name for path in in_tmp.iterdir()}


def test_the_third_part_runs_on_any_rows(in_tmp, shell):
    """Sharing needs no rollouts: rows that were made elsewhere do."""
    import numpy as np

    import epvf_data

    spec, random = epvf_data.PolicySpec(4, 1, hidden=(4,)), np.random.default_rng(0)
    params, returns = random.normal(size=(40, spec.size)), random.uniform(0, 500, 40)
    epvf_data.write("cartpole.zarr", epvf_data.task("poles", 4, 1, horizon=500), spec, params, returns)
    follow("share", shell)
    assert epvf_data.open("copy.zarr").rows == int((returns > 100).sum())
