"""How a place is written on a command line: a folder or a URL, maybe with the revision that is wanted there."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from epvf_data.errors import ConfigError
from epvf_data.untrusted import printable

STORES = {"s3": "s3", "gs": "gs", "az": "az", "https": "http", "http": "http", "hf": "http"}  # scheme → kind of store
SCHEMES = ("s3", "gs", "az", "https", "hf", "file")
_PIN = re.compile(r"(?P<place>.*)@sha256:(?P<revision>[^/@]*)", re.DOTALL)
_HEX = re.compile(r"[0-9a-f]{64}")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)(?:[^/\s?#]*@(?!sha256:))?([^\s?#]*)(?:[?#][^\s@]*)?")
LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Address:
    """A place. `text` may hold a token or a password: only `shown` is for eyes, files and logs."""

    scheme: str
    text: str = field(repr=False)
    revision: str | None

    @property
    def shown(self) -> str:
        """The place without passwords, tokens and revision."""
        return printable(without_secrets(self.text), 300)

    @property
    def name(self) -> str:
        """What a copy of it is called: its last component, with a suffix."""
        path = self.text if self.scheme == "file" else urlsplit(self.text).path or urlsplit(self.text).netloc
        last = re.sub(r"[^A-Za-z0-9._-]", "_", unquote(path).rstrip("/").rpartition("/")[2]).lstrip(".-") or "data"
        return last if "." in last else f"{last}.zarr"


def is_url(text: object) -> bool:
    """Whether a text names a place on another machine or in a store, `file://` aside."""
    scheme, found, _ = str(text).partition("://")
    return bool(found) and scheme.isalnum() and scheme.lower() != "file"


def without_secrets(text: str) -> str:
    """A text with the passwords and queries of all URLs in it left out."""
    return _URL.sub(r"\1\2", text)


def parse(text: str) -> Address:
    """What a text names. Raises ConfigError for an unknown scheme, a revision that is none, or plain http elsewhere."""
    match = _PIN.fullmatch(text)
    place, revision = (match["place"], match["revision"]) if match else (text, None)
    if revision is not None and not _HEX.fullmatch(revision):
        raise ConfigError(
            f"the revision '{printable(revision)}' is no SHA-256; give the 64 digits that `epvf-data info` prints."
        )
    scheme, found, rest = place.partition("://")
    if not found:
        return Address("file", place, revision)
    scheme = scheme.lower()
    if scheme == "file":
        if not rest.startswith("/"):
            raise ConfigError(f"{printable(place)} names no folder; write file:///folder or the folder alone.")
        return Address("file", unquote(rest), revision)
    if scheme not in STORES:
        known = ", ".join(f"{one}://" for one in SCHEMES)
        raise ConfigError(f"'{printable(scheme, 20)}://' is no place that is known; {known} and plain folders are.")
    parts = urlsplit(place)
    if scheme == "http" and parts.hostname not in LOOPBACK:
        raise ConfigError("http:// is taken for this machine alone, for anybody on the way could change it; use https.")
    if not parts.netloc:
        raise ConfigError(f"{printable(without_secrets(place))} names no {'host' if 'http' in scheme else 'bucket'}.")
    return Address(scheme, place, revision)


def folder(address: Address) -> Path:
    """The folder of an address of scheme `file`."""
    return Path(address.text)
