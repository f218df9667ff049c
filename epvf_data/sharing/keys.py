"""Signatures over one line of text, made and checked by the tools that people have: ssh-keygen, minisign, or OpenSSF's
model-signing (extra `signing`) with a key of elliptic curves, which signs a folder whose only file holds the line.

Nothing of cryptography is ours. The namespace keeps signatures of files, mails and commits of git from being taken for
these, and these for those.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from epvf_data.errors import ConfigError, extra
from epvf_data.untrusted import printable, read_named

NAMESPACE = "epvf-data"
SSH, MINISIGN, OPENSSF = KINDS = ("ssh", "minisign", "model-signing")
_PEM = re.compile(rb"-----BEGIN (EC |ENCRYPTED )?PRIVATE KEY-----")
MAX_KEY = 1 << 20  # bytes of a key or of a list of signers
_TOOLS = {SSH: ("ssh-keygen", "OpenSSH"), MINISIGN: ("minisign", "minisign")}
_SECONDS = 60  # of a check, which asks for nothing


def sign_line(line: str, key: Path) -> tuple[str, str]:
    """The kind of key and its signature over a line. The tool asks for the key's password on the terminal.

    Raises ConfigError where there is no such key or the tool refuses.
    """
    head = read_named(key, "key", MAX_KEY)[:200]
    if b"minisign" in head.partition(b"\n")[0]:
        with tempfile.TemporaryDirectory() as folder:
            message, signature = Path(folder, "line"), Path(folder, "signature")
            message.write_text(line, "utf-8")
            _run(MINISIGN, ["-S", "-s", key, "-m", message, "-x", signature, "-t", NAMESPACE], None)
            return MINISIGN, signature.read_text("utf-8")
    if _PEM.match(head) and not key.with_name(f"{key.name}.pub").exists():  # keys of SSH have that half beside them
        with _folder_of(line) as (folder, signature):
            try:
                _openssf().signing.Config().use_elliptic_key_signer(private_key=key).sign(folder, signature)
            except Exception as error:  # of several libraries
                raise ConfigError(f"model-signing does not sign ({printable(error, 200)}); look at the key.") from error
            return OPENSSF, signature.read_text("utf-8")
    return SSH, _run(SSH, ["-Y", "sign", "-q", "-n", NAMESPACE, "-f", key], line)


class Signers:
    """Whose signatures count: OpenSSH's file of allowed signers, or the public key of minisign."""

    def __init__(self, file: Path) -> None:
        """Raises ConfigError where there is no such file, or the tool that it is for is not installed."""
        self.file = file
        head = read_named(file, "list of signers", MAX_KEY)
        self.kind = MINISIGN if b"minisign public key" in head or head.startswith(b"RW") else SSH
        if head.startswith(b"-----BEGIN PUBLIC KEY-----"):
            self.kind = OPENSSF
            _openssf()
        else:
            _tool(self.kind)

    def who(self, kind: str, signature: str, line: str) -> str | None:
        """Who of them signed a line; None where it is none of them, or not their signature."""
        if kind != self.kind:
            return None
        if kind == OPENSSF:
            return self._openssf_key() if self._openssf_holds(signature, line) else None
        with tempfile.TemporaryDirectory() as folder:
            file, message = Path(folder, "signature"), Path(folder, "line")
            file.write_text(signature, "utf-8")
            message.write_text(line, "utf-8")
            if kind == MINISIGN:
                key = self.file.read_text("utf-8").strip().splitlines()[-1]
                good = _check(MINISIGN, ["-V", "-q", "-P", key, "-m", message, "-x", file]) is not None
                return f"the key {key[:12]}" if good else None
            found = _check(SSH, ["-Y", "find-principals", "-s", file, "-f", self.file]) or ""
            for name in found.splitlines():
                words = ["-Y", "verify", "-n", NAMESPACE, "-I", name, "-s", file, "-f", self.file]
                if _check(SSH, words, line) is not None:
                    return printable(name, 100)
        return None

    def _openssf_holds(self, signature: str, line: str) -> bool:
        with _folder_of(line) as (folder, file):
            file.write_text(signature, "utf-8")
            try:
                _openssf().verifying.Config().use_elliptic_key_verifier(public_key=self.file).verify(folder, file)
            except Exception:  # whatever a stranger's text makes of its parsers
                return False
        return True

    def _openssf_key(self) -> str:
        text = "".join(self.file.read_text("utf-8").splitlines()[1:-1])  # base64 between the lines of dashes
        return f"the key …{printable(text[-12:], 12)}"


@contextlib.contextmanager
def _folder_of(line: str) -> Iterator[tuple[Path, Path]]:
    """A folder whose only file, `revision`, holds a line; and beside it where a signature may lie."""
    with tempfile.TemporaryDirectory() as above:
        folder = Path(above, NAMESPACE)
        folder.mkdir()
        (folder / "revision").write_text(line, "utf-8")
        yield folder, Path(above, "signature")


def _openssf() -> Any:
    with extra("signing"):
        import model_signing  # pyright: ignore[reportMissingImports]
    return model_signing


def _tool(kind: str) -> str:
    name, package = _TOOLS[kind]
    path = shutil.which(name)
    if path is None:
        raise ConfigError(f"{name} is not installed, which makes and checks such signatures; install {package}.")
    return path


def _run(kind: str, words: Sequence[object], text: str | None) -> str:
    done = subprocess.run([_tool(kind), *map(str, words)], input=text, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        reason = printable(said[-1] if said else f"exit code {done.returncode}", 200)
        raise ConfigError(f"{_TOOLS[kind][0]} does not sign ({reason}); look at the key.")
    return done.stdout


def _check(kind: str, words: Sequence[object], text: str | None = None) -> str | None:
    """What a tool prints, or None where it says no."""
    try:
        done = subprocess.run(
            [_tool(kind), *map(str, words)],
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return None
    return None if done.returncode else done.stdout
