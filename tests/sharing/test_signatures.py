"""Signatures: who signed which rows, and what is said of everything that is not so."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import epvf_data
from epvf_data.errors import ConfigError, CorruptDatasetError, DatasetError, MissingPackageError
from epvf_data.sharing.keys import Signers
from epvf_data.sharing.pull import pull
from epvf_data.sharing.push import push
from epvf_data.sharing.signatures import sign, verify
from epvf_data.store.compact import compact
from epvf_data.store.validate import validate

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")


class Lab:
    """Somebody with a key; `signers` is the file that allows them alone."""

    def __init__(self, folder: Path, name: str) -> None:
        self.key, self.signers = folder / name, folder / f"{name}.signers"
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(self.key)]
        subprocess.run(words, check=True)
        kind, public = self.key.with_suffix(".pub").read_text().split()[:2]
        self.signers.write_text(f'{name}@lab namespaces="epvf-data" {kind} {public}\n')


@pytest.fixture(scope="module")
def ada(tmp_path_factory) -> Lab:
    return Lab(tmp_path_factory.mktemp("ada"), "ada")


@pytest.fixture(scope="module")
def eve(tmp_path_factory) -> Lab:
    return Lab(tmp_path_factory.mktemp("eve"), "eve")


def test_a_signature_travels_and_holds(grow, quick_path, ada):
    path, there = grow("a.zarr", 2), quick_path / "there.zarr"
    sign(path, ada.key)
    push(path, str(there))
    push(path, str(there))
    report = pull(str(there), quick_path / "b.zarr", signers=ada.signers)
    assert report.signed == ("ada@lab", 1, epvf_data.open(path).commits[1].created)
    pull(str(there), quick_path / "b.zarr", signers=ada.signers)
    assert len(list((quick_path / "b.zarr" / "signatures").iterdir())) == 1
    assert validate(quick_path / "b.zarr", deep=True) == []
    found = verify(quick_path / "b.zarr", ada.signers)
    assert (found.ok, found.rows_signed, found.covered) == (True, 20, [(0, 20)])
    assert found.revision == report.revision == epvf_data.open(path).revision


def test_signatures_travel_through_a_bucket(bucket, grow, quick_path, ada, eve):
    path = grow("a.zarr")
    sign(path, eve.key)
    push(path, "s3://labs/a.zarr")
    with pytest.raises(DatasetError, match="signed by anybody"):
        pull("s3://labs/a.zarr", quick_path / "b.zarr", signers=ada.signers)
    assert not (quick_path / "b.zarr").exists()
    sign(path, ada.key)
    push(path, "s3://labs/a.zarr")
    pull("s3://labs/a.zarr", quick_path / "b.zarr", signers=ada.signers)
    assert verify(quick_path / "b.zarr", eve.signers).ok
    assert sorted(name for name in bucket.objects if "signatures" in name) == [
        f"/labs/a.zarr/signatures/0000000{number}.json" for number in (0, 1)
    ]


def test_one_more_commit(grow, quick_path, ada):
    """What is signed stays so; the new rows are named, and `pull --signers` takes the signed state alone."""
    path = grow("a.zarr", 2)
    sign(path, ada.key)
    signed = epvf_data.open(path).revision
    grow("a.zarr")
    found = verify(path, ada.signers)
    assert (found.ok, found.commits_signed, found.rows_signed, found.rows, found.covered) == (
        *(False, 2, 20, 30),
        [(0, 20)],
    )
    with pytest.raises(DatasetError, match=f"signed up to commit 1, made .*@sha256:{signed}"):
        pull(str(path), quick_path / "b.zarr", signers=ada.signers)
    assert pull(f"{path}@sha256:{signed}", quick_path / "b.zarr", signers=ada.signers).rows == 20
    first = epvf_data.open(path).commits[0].sha256  # what a later signature covers as well
    assert pull(f"{path}@sha256:{first}", quick_path / "c.zarr", signers=ada.signers).rows == 10
    compact(path)
    assert verify(path, ada.signers).covered == []


def test_wrong_signers_and_moved_signatures(grow, quick_path, ada, eve):
    path, other = grow("a.zarr"), grow("other.zarr", 2)
    sign(path, ada.key)
    found = verify(path, eve.signers)
    assert not found.ok
    assert "by nobody in" in found.signatures[0]["told"]
    shutil.copytree(path / "signatures", other / "signatures")
    found = verify(other, ada.signers)
    assert not found.ok
    assert "not in this data set" in found.signatures[0]["told"]
    file = other / "signatures" / "00000000.json"
    value = json.loads(file.read_bytes())
    file.write_text(json.dumps({**value, "record": epvf_data.open(other).revision}))
    found = verify(other, ada.signers)
    assert not found.ok
    assert "or its text was changed" in found.signatures[0]["told"]


def test_a_signature_for_another_purpose_does_not_count(grow, ada):
    """The namespace: a signature over the same line that was made for a mail or a commit of git."""
    path = grow("a.zarr")
    sign(path, ada.key)
    line = f"{epvf_data.open(path).revision}\n"
    words = ["ssh-keygen", "-Y", "sign", "-q", "-n", "file", "-f", str(ada.key)]
    text = subprocess.run(words, input=line, capture_output=True, text=True, check=True).stdout
    file = path / "signatures" / "00000000.json"
    file.write_text(json.dumps({**json.loads(file.read_bytes()), "signature": text}))
    assert not verify(path, ada.signers).ok


def test_a_swapped_record_and_a_damaged_file(grow, ada):
    path = grow("a.zarr", 2)
    sign(path, ada.key)
    part = next((path / "parts").glob("?*/returns/c/0/0"))
    good = part.read_bytes()
    part.write_bytes(good[:10] + bytes([good[10] ^ 1]) + good[11:])
    found = verify(path, ada.signers)
    assert found.commits_signed == 2
    assert not found.ok
    assert any("returns" in problem for problem in found.problems)
    part.write_bytes(good)
    first, second = (path / "commits" / f"0000000{number}.json" for number in (0, 1))
    first.write_bytes(second.read_bytes())
    with pytest.raises(CorruptDatasetError, match="does not follow"):
        verify(path, ada.signers)


def test_a_rollback_to_an_older_signed_state_is_dated(grow, quick_path, ada):
    path, there = grow("a.zarr"), quick_path / "there.zarr"
    sign(path, ada.key)
    pull(str(path), there)
    pull(str(path), quick_path / "b.zarr", signers=ada.signers)
    grow("a.zarr")
    sign(path, ada.key)
    pull(str(path), quick_path / "b.zarr", signers=ada.signers)
    created = epvf_data.open(there).commits[0].created
    with pytest.raises(CorruptDatasetError, match=f"ends with commit 0 of {created[:10]}.*older state"):
        pull(str(there), quick_path / "b.zarr", signers=ada.signers)
    assert pull(str(there), quick_path / "c.zarr", signers=ada.signers).signed == ("ada@lab", 0, created)


@pytest.mark.skipif(shutil.which("minisign") is None, reason="minisign is not installed")
def test_minisign(grow, tmp_path, ada):
    key, public = tmp_path / "mini.key", tmp_path / "mini.pub"
    subprocess.run(["minisign", "-G", "-W", "-s", str(key), "-p", str(public)], check=True, capture_output=True)
    path = grow("a.zarr")
    assert sign(path, key)[0].kind == "minisign"
    assert verify(path, public).ok
    assert not verify(path, ada.signers).ok
    file = path / "signatures" / "00000000.json"
    value = json.loads(file.read_bytes())
    file.write_text(json.dumps({**value, "signature": value["signature"].replace("A", "B", 3)}))
    assert not verify(path, public).ok


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssf_model_signing(grow, tmp_path, ada):
    """With a key of elliptic curves, without network; another key's, a changed one and one of another line hold not."""
    pytest.importorskip("model_signing", reason="the extra signing is not installed")
    for name in ("key", "eve"):
        new = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(tmp_path / f"{name}.pem")]
        subprocess.run(new, check=True, capture_output=True)
        public = [
            "openssl",
            "ec",
            "-in",
            str(tmp_path / f"{name}.pem"),
            "-pubout",
            "-out",
            str(tmp_path / f"{name}.public"),
        ]
        subprocess.run(public, check=True, capture_output=True)
    path = grow("a.zarr")
    assert sign(path, tmp_path / "key.pem")[0].kind == "model-signing"
    assert verify(path, tmp_path / "key.public").ok
    assert not verify(path, tmp_path / "eve.public").ok
    assert not verify(path, ada.signers).ok
    file = path / "signatures" / "00000000.json"
    value = json.loads(file.read_bytes())
    bundle = json.loads(value["signature"])
    bundle["dsseEnvelope"]["payload"] = bundle["dsseEnvelope"]["payload"][:-8] + "AAAAAAA="
    for text in (json.dumps(bundle), "{}", "", "[" * 10_000):
        file.write_text(json.dumps({**value, "signature": text}))
        assert not verify(path, tmp_path / "key.public").ok
    file.write_text(json.dumps(value))
    grow("a.zarr")
    moved = {**value, "record": epvf_data.open(path).revision, "commit": 1}
    (path / "signatures" / "00000001.json").write_text(json.dumps(moved))
    report = verify(path, tmp_path / "key.public")
    assert (report.ok, report.commits_signed) == (False, 1)
    (tmp_path / "broken.pem").write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    with pytest.raises(ConfigError, match="look at the key"):
        sign(path, tmp_path / "broken.pem")


def test_a_missing_model_signing_is_one_sentence(grow, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "model_signing", None)
    (tmp_path / "key.public").write_text("-----BEGIN PUBLIC KEY-----\n")
    with pytest.raises(MissingPackageError, match=r"epvf-data\[signing\]"):
        verify(grow("a.zarr"), tmp_path / "key.public")


def test_hostile_signatures_are_refused(grow, quick_path, ada):
    path = grow("a.zarr")
    sign(path, ada.key)
    file = path / "signatures" / "00000000.json"
    good = json.loads(file.read_bytes())
    for wrong in ({"record": "x"}, {"signature": 3}, {"kind": "rot13"}, {"record": 5}):
        file.write_text(json.dumps({**good, **wrong}))
        with pytest.raises(CorruptDatasetError):
            verify(path, ada.signers)
    for text in ("-----BEGIN", "", "\0", "-f /etc/passwd", "ü" * 1000):
        file.write_text(json.dumps({**good, "signature": text}))
        assert not verify(path, ada.signers).ok
    file.write_bytes(b" " * 70_000)
    with pytest.raises(DatasetError, match="at most 65536"):
        verify(path, ada.signers)
    shutil.rmtree(path / "signatures")
    (path / "signatures").symlink_to(ada.key.parent)
    with pytest.raises(DatasetError, match="link"):
        verify(path, ada.signers)
    assert any("signatures" in problem for problem in validate(path))


def test_a_missing_tool_or_key_is_one_sentence(grow, ada, monkeypatch, tmp_path):
    path = grow("a.zarr")
    with pytest.raises(ConfigError, match="there is no key"):
        sign(path, tmp_path / "none")
    (tmp_path / "no.key").write_text("hello")
    with pytest.raises(ConfigError, match="does not sign"):
        sign(path, tmp_path / "no.key")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="install OpenSSH"):
        Signers(ada.signers)


def test_the_verbs(grow, quick_path, shell, ada, eve):
    path = grow("a.zarr", 2)
    assert f"revision sha256:{epvf_data.open(path).revision}" in shell("info", path).stdout
    assert "commits 0 to 1 are signed" in shell("sign", path, "--key", ada.key).stdout
    assert "20 of 20 rows are signed (0 to 19)" in shell("verify", path, "--signers", ada.signers).stdout
    grow("a.zarr")
    said = shell("verify", path, "--signers", ada.signers, code=1).stdout
    assert "20 of 30 rows are signed (0 to 19)" in said
    assert "1 newer commit of 3 is not" in said
    assert json.loads(shell("verify", path, "--signers", eve.signers, "--json", code=1).stdout)["rows_signed"] == 0
    assert "signed up to commit 1" in shell("pull", path, quick_path / "b", "--signers", ada.signers, code=1).stderr
