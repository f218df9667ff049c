"""Servers and addresses of strangers: whatever they answer, the worst is one sentence, and secrets stay secret."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from store import corpus, forge

import epvf_data
from epvf_data.errors import (
    ConfigError,
    DatasetError,
    EpvfError,
    MissingPackageError,
    StorageError,
    UnsafeDatasetError,
)
from epvf_data.places.address import parse, without_secrets
from epvf_data.places.objects import ObjectPlace
from epvf_data.provenance import provenance
from epvf_data.sharing.pull import pull
from epvf_data.store import guard
from epvf_data.store.commit import seal
from epvf_data.store.writer import Writer
from epvf_data.untrusted import MAX_JSON_BYTES


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:secret@host/a.zarr", "https://host/a.zarr"),
        ("https://host/a.zarr?token=secret", "https://host/a.zarr"),
        ("https://secret@host/a.zarr#secret", "https://host/a.zarr"),
        ("--out=https://host/a?sig=secret&x=secret", "--out=https://host/a"),
        (f"s3://lab/a@sha256:{'0' * 64}", f"s3://lab/a@sha256:{'0' * 64}"),
        (f"s3://lab@sha256:{'0' * 64}", f"s3://lab@sha256:{'0' * 64}"),
        ("a=b?c@d", "a=b?c@d"),
    ],
)
def test_secrets_of_urls_are_left_out(text, shown, monkeypatch):
    assert without_secrets(text) == shown
    monkeypatch.setattr(sys, "argv", ["epvf-data", "pull", text])
    assert "secret" not in json.dumps(provenance())
    if "out=" not in text and "://" in text:
        address = parse(text)
        assert "secret" not in f"{address!r} {address.shown} {address.name}"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("ftp://host/a", "no place that is known"),
        ("javascript://x", "no place that is known"),
        ("http://host/a.zarr", "use https"),
        ("http://localhost.evil.example/a", "use https"),
        ("s3:///a", "no bucket"),
        ("file://host/a", "no folder"),
        ("s3://lab/a@sha256:12", "64 digits"),
        ("s3://lab/a@sha256:" + "A" * 64, "64 digits"),
    ],
)
def test_addresses_that_make_no_sense(text, what):
    with pytest.raises(ConfigError, match=what):
        parse(text)


@pytest.fixture
def liar(servers, grow, quick_path):
    """A web server that shows a data set; `lie(handler, name)` may answer otherwise. Gives it, and the pull's call."""
    path = grow("a.zarr", 2)
    with servers.files(quick_path) as server:
        yield server, path, lambda: pull(f"http://127.0.0.1:{server.port}/a.zarr", quick_path / "copy.zarr")


def answers(kind: str, handler, name: str, data: bytes) -> None:
    """One of the answers below in the place of a file."""
    if kind == "another":  # of the same size
        handler.give(bytes(len(data)), Last_Modified="Thu, 01 Jan 2026 00:00:00 GMT")
        return
    if kind in ("ftp", "file", "gopher", "loop"):
        target = f"/{name}" if kind == "loop" else f"{kind}:///etc/passwd"
        handler.answer(302, Location=target)
        return
    if kind == "refuses":
        handler.answer(403, b"go away <b>now</b>")
        return
    if kind == "html":
        handler.answer(200, b"<html>please log in</html>", Last_Modified="Thu, 01 Jan 2026 00:00:00 GMT")
        return
    handler.close_connection = True
    if kind == "garbage":
        handler.wfile.write(os.urandom(500))
        return
    handler.send_response(206 if handler.headers.get("Range") else 200)
    handler.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
    size = {"short": len(data), "long": len(data) + 7, "huge": 1 << 50, "negative": -1}[kind]
    handler.send_header("Content-Length", str(size))
    if handler.headers.get("Range"):
        handler.send_header("Content-Range", f"bytes 0-{max(size, 1) - 1}/{size}")
    handler.end_headers()
    handler.wfile.write(data[: len(data) // 2] if kind == "short" else data + b"x" * 7)


KINDS = ("another", "ftp", "file", "gopher", "loop", "refuses", "html", "garbage", "short", "long", "huge", "negative")


FEW = ("html", "huge", "loop")  # of the small files, always


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        pytest.param(file, kind, marks=[pytest.mark.soak] * (file != "params/c/0/0" and kind not in FEW))
        for file in ("zarr.json", "commits/00000001.json", "params/c/0/0")
        for kind in KINDS
    ],
)
def test_what_a_server_may_answer(liar, quick_path, kind, file):
    """One sentence, nothing half there, no word of the server's on the terminal; and honest answers finish the pull."""
    server, path, call = liar
    name = next(str(one.relative_to(quick_path)) for one in sorted(path.rglob("*")) if str(one).endswith(file))
    if file == "zarr.json":
        name = "a.zarr/zarr.json"

    def lie(handler, asked: str) -> bool:
        if asked == name:
            answers(kind, handler, name, (quick_path / name).read_bytes())
        return asked == name

    server.before = lie
    with pytest.raises(EpvfError) as caught:
        call()
    assert str(caught.value).count("\n") == 0
    assert "<b>" not in str(caught.value)
    copy = quick_path / "copy.zarr"
    if (copy / "zarr.json").exists():
        assert epvf_data.validate(copy, deep=True) == []
    server.before = None
    call()
    assert epvf_data.validate(copy, deep=True) == []


@pytest.mark.parametrize("kind", ["record", "file"])
def test_an_answer_without_end(liar, kind, quick_path, monkeypatch):
    """It is not read beyond what it may have."""
    server, path, call = liar
    name = "a.zarr/commits/00000000.json"
    if kind == "file":
        name = next(str(one.relative_to(quick_path)) for one in sorted(path.rglob("params/c/0/0")))
    sent = [0]

    def flood(handler, asked: str) -> bool:
        if asked != name:
            return False
        handler.close_connection = True
        handler.send_response(206 if handler.headers.get("Range") else 200)
        size = (quick_path / name).stat().st_size if kind == "file" else 1 << 17
        handler.send_header("Content-Length", str(1 << 40))
        handler.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        if handler.headers.get("Range"):
            handler.send_header("Content-Range", f"bytes 0-{size - 1}/{size}")
        handler.end_headers()
        while True:
            sent[0] += handler.wfile.write(b" " * 65536)

    server.before = flood
    with pytest.raises(EpvfError):
        call()
    assert sent[0] < 6 * MAX_JSON_BYTES


def test_a_record_that_asks_for_the_whole_disk(liar, quick_path):
    """Sizes that no disk holds, or that the arrays' metadata do not allow, are refused before a byte of them comes."""
    server, path, call = liar
    record = json.loads((path / "commits" / "00000001.json").read_bytes())
    del record["sha256"]
    files = record["add"][0]["files"]
    asked: list[str] = []

    def forge(handler, name: str) -> bool:
        asked.append(name)
        if name == "a.zarr/commits/00000001.json":
            handler.give(seal(record), Last_Modified="Thu, 01 Jan 2026 00:00:00 GMT")
            return True
        return False

    server.before = forge
    files["params/c/0/0"][0] = 1 << 50
    with pytest.raises(StorageError, match="GB are free"):
        call()
    files["params/c/0/0"][0] = 1 << 22
    with pytest.raises(DatasetError, match="cannot hold"):
        call()
    assert not any(name.endswith("params/c/0/0") and record["add"][0]["id"] in name for name in asked)
    record["add"][0]["files"] = {f"a{number}/zarr.json": [1, "0" * 64] for number in range(guard.MAX_FILES + 1)}
    with pytest.raises(DatasetError):
        call()
    record["add"][0]["files"] = {**files, "../../../../tmp/x": [1, "0" * 64]}
    with pytest.raises(UnsafeDatasetError, match="plain relative names"):
        call()


@pytest.mark.parametrize("table", ["CORPUS", "HARMLESS"])
def test_hostile_data_sets_over_the_wire(servers, quick_path, env, make_rows, some, table, monkeypatch):
    """A pull of each ends in one sentence, or in a data set of which reading says the same as of the original."""
    monkeypatch.chdir(quick_path)  # where a pickle would leave its mark
    (quick_path / "outside").mkdir()
    (quick_path / "outside" / "secret").write_text("secret")
    with Writer.open(quick_path / "good", env) as writer:
        for seed in range(2):
            writer.commit(make_rows(3 - seed, seed, probes=2, discount=0.9), {})
    pulled, told = 0, {}
    for number, (name, (change, _)) in enumerate(some(getattr(corpus, table)).items()):
        forge.forged(quick_path / "good", quick_path / f"bad-{number}", change)
        before, began = {*quick_path.iterdir()}, time.process_time()
        with servers.files(quick_path) as server:
            try:
                pull(f"http://127.0.0.1:{server.port}/bad-{number}", quick_path / "copy")
                pulled += 1
            except EpvfError as error:
                told[name] = str(error)
        assert time.process_time() - began < 10, name
        assert {*quick_path.iterdir()} - before <= {quick_path / "copy"}, name
        shutil.rmtree(quick_path / "copy", ignore_errors=True)
        shutil.rmtree(quick_path / f"bad-{number}", ignore_errors=True)
    assert pulled or table == "CORPUS"
    assert [name for name, text in told.items() if not text.isprintable() or len(text) > 800] == []
    assert not Path(corpus.CANARY).exists()


def test_a_redirect_from_https_to_http_is_refused(servers, programs, tmp_path, grow, quick_path, monkeypatch):
    """By TLS from start to end, with a certificate that the system trusts because the user says so."""
    grow("a.zarr")
    both = programs.certificate(tmp_path)
    call = "import sys, epvf_data; print(epvf_data.pull(sys.argv[1], sys.argv[2]).rows)"

    def get(url: str, out: Path, trust: bool = True) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "SSL_CERT_FILE": str(tmp_path / "ca.pem")} if trust else dict(os.environ)
        return subprocess.run([sys.executable, "-c", call, url, out], capture_output=True, text=True, env=env)

    with servers.files(quick_path) as plain, servers.files(quick_path, both) as server:
        url = f"https://localhost:{server.port}/a.zarr"
        assert get(url, quick_path / "b.zarr").stdout == "10\n"
        assert "certificate is not one that this machine trusts" in get(url, quick_path / "c.zarr", False).stderr

        def elsewhere(handler, name: str) -> bool:
            handler.answer(302, Location=f"http://localhost:{plain.port}/{name}")
            return True

        server.before = elsewhere
        assert "another scheme, which is refused" in get(url, quick_path / "d.zarr").stderr
        assert plain.asked == []


def test_passwords_are_sent_and_never_shown(liar, quick_path, shell):
    server, _, _ = liar
    seen = []

    def look(handler, name: str) -> bool:
        seen.append((handler.headers.get("Authorization"), handler.path))
        if "broken" in handler.path:
            handler.answer(403)
            return True
        return False

    server.before = look
    for folder, code in (("a.zarr", 0), ("broken.zarr", 1)):
        url = f"http://me:secret@127.0.0.1:{server.port}/{folder}?token=hidden"
        said = shell("pull", url, quick_path / f"copy-{folder}", code=code)
        assert "secret" not in said.stdout + said.stderr
        assert "hidden" not in said.stdout + said.stderr
    assert all(word and word.startswith("Basic ") and "token=hidden" in path for word, path in seen)
    for file in (quick_path / "copy-a.zarr").rglob("*"):
        assert not file.is_file() or b"hidden" not in file.read_bytes()


def test_credentials_of_aws_s_own_files(servers, bucket, tmp_path, monkeypatch, grow, quick_path):
    """The profile's keys sign; without any, requests go out unsigned; a broken file is one sentence."""
    for name in servers.KEYS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    signed = []
    bucket.before = lambda handler, name: signed.append(handler.headers.get("Authorization")) or False
    place = ObjectPlace(parse("s3://labs/a.zarr"))
    assert place.small("zarr.json", 10) is None
    (tmp_path / "credentials").write_text("[lab]\naws_access_key_id = LABKEY\naws_secret_access_key = LABSECRET\n")
    place = ObjectPlace(parse("s3://labs/a.zarr"))
    assert place.small("zarr.json", 10) is None
    assert signed[0] is None
    assert "LABKEY" in signed[1]
    assert "LABSECRET" not in repr(vars(place)) + str(signed)
    (tmp_path / "credentials").write_text("aws_secret_access_key = LABSECRET")
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        ObjectPlace(parse("s3://labs/a.zarr"))
    assert "LABSECRET" not in str(caught.value)


def test_a_missing_package_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'epvf-data\[s3\]'"):
        pull("https://host/a.zarr", "never")
