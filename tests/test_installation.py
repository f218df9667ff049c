"""The small installation: every verb works, or names the extra it needs; the wheel works outside the repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from small_installation import TRAIN, VERBS

ROOT = Path(__file__).parent.parent
SCRIPT = Path(__file__).with_name("small_installation.py")
READS = {"Loader", "PolicySpec", "open", "pull", "push", "sign", "split_by_lineage", "split_iid", "validate", "verify"}


def check(python: str | Path, folder: Path, **env: str) -> dict:
    """Runs all verbs with that interpreter in that folder."""
    command = [python, "-P", SCRIPT, ROOT / "tests" / "golden" / "v1"]
    done = subprocess.run(command, cwd=folder, env={**os.environ, **env}, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for (words, told), result in zip(VERBS, found["done"], strict=True):
        assert "Traceback" not in result["err"], result["err"]
        assert result["code"] == int(told is not None), (words, result)
        assert result["err"].count("error: ") == result["code"], (words, result)
        assert told is None or told in result["err"], (words, result)
    assert not READS & set(found["api"])
    assert "collect" in found["api"]
    assert all(TRAIN in sentence for sentence in found["api"].values())
    return found


def test_verbs_work_without_the_extras_or_name_the_one_they_need(tmp_path):
    from typer.main import get_command

    from epvf_data.cli import load

    app = load()

    tried = {words.split()[0] for words, _ in VERBS}
    assert tried == set(get_command(app).commands)  # pyright: ignore[reportAttributeAccessIssue]
    check(sys.executable, tmp_path, PYTHONPATH=str(ROOT))


@pytest.mark.soak
def test_the_wheel_works_in_a_fresh_environment(tmp_path):
    """Built from the checkout, the wheel again from the source distribution; needs `build` and the package index."""
    pytest.importorskip("build", reason="the wheel is built by the package build: make release")
    dist, fresh, work = tmp_path / "dist", tmp_path / "fresh", tmp_path / "work"
    subprocess.run([sys.executable, "-m", "build", "--outdir", dist, ROOT], check=True, capture_output=True)
    subprocess.run([sys.executable, "-m", "venv", fresh], check=True)
    wheel = next(dist.glob("*.whl"))
    subprocess.run([fresh / "bin" / "python", "-m", "pip", "install", "--quiet", wheel], check=True)
    work.mkdir()
    found = check(fresh / "bin" / "python", work, PYTHONPATH="")
    assert str(fresh.resolve()) in os.path.realpath(found["file"])
    assert list((fresh / "lib").rglob("mujoco_step.so")) or not shutil.which("cc")
