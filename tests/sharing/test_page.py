"""docs/sharing.md keeps its word: every command on it runs, as it stands there.

Only what a reader would put there is put there: the revision, the key, and the host of the web server. Always in this
process against the small servers of the tests; in `make soak` in a shell, against SeaweedFS and nginx.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from store import conftest as helpers

import epvf_data
from epvf_data.store.writer import Writer

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "sharing.md").read_text()
COMMANDS = [
    line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines() if line.strip()
]


@pytest.fixture
def lab(in_tmp, env, monkeypatch) -> Path:
    """Two data sets of 300 rows in the working directory, and a home with a key of SSH."""
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen is not installed")
    for name, seed in (("ant.zarr", 1), ("ours.zarr", 2)):
        with Writer.open(name, env) as writer:
            for number in range(2):
                writer.commit(helpers.build_rows(150, 10 * seed + number, probes=3), {})
    (in_tmp / "home" / ".ssh").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(in_tmp / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(in_tmp / "cache"))
    key = in_tmp / "home" / ".ssh" / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    return in_tmp


def filled(line: str, folder: Path, web: str) -> str:
    """A command with what is the reader's own."""
    public = (folder / "home" / ".ssh" / "id_ed25519.pub").read_text().split()[1]
    line = line.replace("sha256:61ab…", f"sha256:{epvf_data.open('ant.zarr').revision}").replace("AAAA…", public)
    line = line.replace("https://lab.example", web)
    assert "…" not in line.partition("    #")[0], line
    return line


def hub_of_the_tests(stack, monkeypatch):
    """hf:// leads to the small hub, where its library is installed."""
    pytest.importorskip("huggingface_hub", reason="the extra hub is not installed")
    module = importlib.import_module("sharing.hub")
    server = stack.enter_context(module.hub())
    for name, value in {"HF_TOKEN": module.TOKEN, "HF_ENDPOINT": server.url, "HF_HUB_DISABLE_XET": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_command_in_this_process(lab, servers, bucket, monkeypatch, shell):
    """But for training, and for programs that are not installed here."""
    with contextlib.ExitStack() as stack:
        web = stack.enter_context(servers.files(lab))
        try:
            hub_of_the_tests(stack, monkeypatch)
            hub = True
        except pytest.skip.Exception:
            hub = False
        ran = 0
        for command in COMMANDS:
            line = filled(command, lab, f"http://127.0.0.1:{web.port}")
            words = shlex.split(line, comments=True)
            if words[0] != "epvf-data":
                if shutil.which(words[0]):
                    subprocess.run(["bash", "-c", line], check=True)
            elif words[1] != "train-offline" and (hub or "hf://" not in line):
                shell(*(word.replace("~", str(lab / "home")) for word in words[1:]))
                ran += 1
        assert ran > 15
    for copy in ("from-zenodo.zarr", *(["again.zarr"] if hub else [])):
        assert epvf_data.open(copy).revision == epvf_data.open("ant.zarr").revision
    assert epvf_data.open("both.zarr").rows == 600


@pytest.mark.soak
def test_every_command_in_a_shell_against_real_servers(lab, programs, monkeypatch, seaweed_port, servers):
    """SeaweedFS for s3://, nginx with TLS for https://, and the small hub."""
    if programs.web() is None or shutil.which("openssl") is None:
        pytest.skip("nginx or openssl is not installed")
    for name, value in {**servers.KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{seaweed_port}"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    (lab / "bin").mkdir()
    shim = lab / "bin" / "epvf-data"
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m epvf_data "$@"\n')
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{lab / 'bin'}:{os.environ['PATH']}")
    (lab / "nginx").mkdir()
    both = programs.certificate(lab / "nginx")
    monkeypatch.setenv("SSL_CERT_FILE", str(lab / "nginx" / "ca.pem"))
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(programs.nginx(lab, lab / "nginx", both))
        hub_of_the_tests(stack, monkeypatch)
        for command in COMMANDS:
            line = filled(command, lab, f"https://localhost:{port}")
            if line.startswith("duckdb") and shutil.which("duckdb") is None:
                continue
            done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=600)
            assert done.returncode == 0, f"{line}\n{done.stderr}"
            print(f"$ {line}\n{done.stdout}")
