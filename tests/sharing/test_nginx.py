"""Pull over HTTPS from nginx, with ranges, over a line that is cut."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

import epvf_data
from epvf_data.store.validate import validate
from epvf_data.store.writer import Writer

CALL = """import sys, epvf_data
from epvf_data.places import base
base.PAUSE = 0.01
print(epvf_data.pull(sys.argv[1], sys.argv[2]).rows)
"""


@pytest.mark.soak
def test_a_pull_by_tls_goes_on_where_the_line_was_cut(servers, programs, env, make_rows, quick_path, tmp_path):
    """Every connection is cut after half a megabyte: what came is not asked for again, what is there is whole."""
    if programs.web() is None or shutil.which("openssl") is None:
        pytest.skip("nginx or openssl is not installed")
    path = quick_path / "a.zarr"
    with Writer.open(path, env) as writer:
        writer.commit(make_rows(60_000, 1), {})
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    both, sent = programs.certificate(tmp_path), [0]

    def fault(number: int, already: int, piece: bytes) -> str | None:
        sent[0] += len(piece)
        return "cut" if already > 500_000 else None

    with programs.nginx(quick_path, tmp_path, both) as port, servers.Line(port, fault) as line:
        env_ = {**os.environ, "SSL_CERT_FILE": str(tmp_path / "ca.pem")}
        call = [sys.executable, "-c", CALL, f"https://localhost:{line.port}/a.zarr", str(quick_path / "b.zarr")]
        done = subprocess.run(call, capture_output=True, text=True, env=env_, timeout=300)
        assert done.stdout == "60000\n", done.stderr
        assert line.struck > 5
    assert size < sent[0] < 2 * size
    assert validate(quick_path / "b.zarr", deep=True) == []
    assert epvf_data.open(quick_path / "b.zarr").revision == epvf_data.open(path).revision
    asked = (tmp_path / "access.log").read_text()
    assert asked.count('" 206 ') > 5
