"""Object stores and web servers, by obstore (extra `s3`): S3 and what speaks it, Google's, Azure's; to read also HTTPS
and the Hugging Face hub.

Credentials come from the tools' own places: environment variables, and for S3 the profile of AWS's files. Requests that
find none are made without.
"""

from __future__ import annotations

import base64
import configparser
import contextlib
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from epvf_data.errors import (
    ConfigError,
    CorruptDatasetError,
    RefusedError,
    StorageError,
    TransferError,
    UnsafeDatasetError,
    extra,
)
from epvf_data.places import hub
from epvf_data.places.address import STORES, Address
from epvf_data.places.base import PIECE
from epvf_data.untrusted import printable

WINDOW = 16 << 20  # bytes that one request asks for: the time limit is of requests
SLOW_WINDOW = 1 << 20  # the same, where a line was too slow for that
SECONDS = 60  # of one request
PART = 5 << 20  # bytes of a piece of an upload: the least that S3 takes
_AWS = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
_AWS_ALSO = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_SKIP_SIGNATURE")
_PROFILE = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
    "region": "region",
    "endpoint_url": "endpoint",
}


class ObjectPlace:
    """An object store's prefix or a web server's folder."""

    def __init__(self, address: Address) -> None:
        """Raises MissingPackageError without obstore, ConfigError where it takes these settings for wrong."""
        with extra("s3"):
            import obstore  # pyright: ignore[reportMissingImports]
            from obstore import exceptions, store  # pyright: ignore[reportMissingImports]
        self.shown, self._obstore, self._errors, self._window = address.shown, obstore, exceptions, WINDOW
        self.writable = STORES[address.scheme] != "http"
        self._ranges = True
        try:
            self._store = _open(store, address)
        except (exceptions.BaseError, ValueError) as error:
            raise ConfigError(f"{self.shown} cannot be opened ({_why(error)}); look at its spelling.") from None

    def small(self, name: str, limit: int) -> bytes | None:
        """See Place."""
        found = bytearray()
        try:
            answer = self._obstore.get(self._store, name)
            if answer.meta["size"] > limit:
                raise UnsafeDatasetError(f"{self.shown}/{name} has {answer.meta['size']} bytes; {limit} are allowed.")
            for piece in answer.stream(min_chunk_size=PIECE):
                found += piece
                if len(found) > limit:
                    raise UnsafeDatasetError(f"{self.shown}/{name} never ends; {limit} bytes are allowed.")
        except FileNotFoundError:
            return None
        except self._errors.BaseError as error:
            raise self._failed("reading", name, error) from None
        return bytes(found)

    def stream(self, name: str, start: int, end: int) -> Iterator[bytes]:
        """See Place."""
        while start < end:
            last = min(end, start + self._window)
            for piece in self._request(name, start, last if self._ranges else end):
                yield piece
                start += len(piece)
            if start < last:
                return

    def _request(self, name: str, start: int, end: int) -> Iterator[bytes]:
        """What one request gives of these bytes; from servers that know no ranges, what stands before is left out."""
        ranges = self._ranges
        try:
            options: Any = {"range": (start, end)} if ranges else {}
            answer = self._obstore.get(self._store, name, options=options)
            skip, left = (0, end - start) if ranges else (start, end - start)
            for whole in answer.stream(min_chunk_size=PIECE):
                piece = bytes(whole)
                skipped = min(skip, len(piece))
                skip -= skipped
                if len(piece) - skipped > left:
                    raise CorruptDatasetError(f"{self.shown}/{name} has more bytes than its commit names.")
                left -= len(piece) - skipped
                if skipped < len(piece):
                    yield piece[skipped:]
        except FileNotFoundError:
            raise CorruptDatasetError(f"{self.shown}/{name} is missing there; ask whoever keeps it.") from None
        except self._errors.NotSupportedError as error:
            if not ranges:
                raise self._failed("reading", name, error) from None
            self._ranges = False
            yield from self._request(name, start, end)
        except self._errors.BaseError as error:
            if "timed out" in str(error):
                self._window = SLOW_WINDOW
            raise self._failed("reading", name, error) from None

    def create(self, name: str, data: bytes) -> bool:
        """See Store. An answer that was lost on the way is looked up: what is there then is ours."""
        try:
            self._obstore.put(self._store, name, data, mode="create", use_multipart=False)
        except (self._errors.AlreadyExistsError, self._errors.PreconditionError):
            return self.small(name, len(data) + (16 << 20)) == data
        except self._errors.BaseError as error:
            raise self._failed("writing", name, error) from None
        return True

    def upload(self, name: str, size: int, pieces: Iterator[bytes]) -> None:
        """See Store."""
        try:
            if size <= PART:
                self._obstore.put(self._store, name, b"".join(pieces), use_multipart=False)
            else:
                part = max(PART, size // 5_000)  # stores take 10,000 parts
                self._obstore.put(self._store, name, pieces, chunk_size=part, max_concurrency=2)
        except self._errors.BaseError as error:
            raise self._failed("writing", name, error) from None

    def size(self, name: str) -> int | None:
        """See Store."""
        try:
            return int(self._obstore.head(self._store, name)["size"])
        except FileNotFoundError:
            return None
        except self._errors.BaseError as error:
            raise self._failed("looking at", name, error) from None

    def check_exclusive(self) -> None:
        """See Store."""
        name = f"staging/{uuid.uuid4().hex}.json"
        first, second = self.create(name, b"{}"), self.create(name, b"{ }")
        with contextlib.suppress(self._errors.BaseError):  # some keys may not remove
            self._obstore.delete(self._store, name)
        if not first or second:
            raise StorageError(
                f"{self.shown} lets two writers publish under one name (it does not heed `If-None-Match: *`), so that "
                "no commit can be safe there; choose another store."
            )

    def _failed(self, doing: str, name: str, error: Exception) -> TransferError:
        why = _why(error)
        kind = RefusedError if why.startswith("the server") else TransferError
        return kind(f"{doing} {self.shown}/{name} failed ({why}); what was done stays, the same command goes on.")


def _open(store: Any, address: Address) -> Any:
    parts = urlsplit(address.text)
    options: dict[str, Any] = {"timeout": f"{SECONDS}s", "connect_timeout": "10s"}
    options["allow_http"] = address.scheme == "http"
    retry = {"max_retries": 3, "backoff": {"init_backoff": _seconds(0.1), "max_backoff": _seconds(2), "base": 2}}
    common: dict[str, Any] = {"client_options": options, "retry_config": retry}
    prefix = parts.path.strip("/") or None
    match address.scheme:
        case "s3":
            options["allow_http"] = os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true")
            # The store compares what arrives with a checksum that travels along.
            return store.S3Store(parts.netloc, prefix=prefix, checksum_algorithm="SHA256", **_aws(), **common)
        case "gs":
            return store.GCSStore(parts.netloc, prefix=prefix, **common)
        case "az":
            options["allow_http"] = os.environ.get("AZURE_ALLOW_HTTP", "").lower() in ("1", "true")
            return store.AzureStore(parts.netloc, prefix=prefix, **common)
        case "hf":
            url, options["default_headers"] = hub.resolving(address)
            options["allow_http"] = url.startswith("http:")
            return store.HTTPStore.from_url(url, **common)
    if parts.username is not None:
        said = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        options["default_headers"] = {"Authorization": f"Basic {base64.b64encode(said).decode()}"}
        parts = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    return store.HTTPStore.from_url(parts._replace(fragment="").geturl(), **common)


def _seconds(value: float) -> Any:
    from datetime import timedelta

    return timedelta(seconds=value)


def _aws() -> dict[str, Any]:
    """Settings of the profile that AWS's files name, where the environment has no credentials; else of nobody."""
    if any(os.environ.get(name) for name in (*_AWS, *_AWS_ALSO)):
        return {}
    profile, home = os.environ.get("AWS_PROFILE", "default"), Path.home() / ".aws"
    found: dict[str, Any] = {}
    for variable, name, section in (
        ("AWS_CONFIG_FILE", "config", profile if profile == "default" else f"profile {profile}"),
        ("AWS_SHARED_CREDENTIALS_FILE", "credentials", profile),
    ):
        parser = configparser.RawConfigParser()
        try:
            parser.read(os.environ.get(variable) or home / name, "utf-8")
        except (configparser.Error, UnicodeError, OSError) as error:
            raise ConfigError(f"AWS's file of {name} cannot be read ({type(error).__name__}); mend it.") from error
        if parser.has_section(section):
            found |= {_PROFILE[key]: value for key, value in parser.items(section) if key in _PROFILE}
    for variable, key in (("AWS_REGION", "region"), ("AWS_ENDPOINT_URL", "endpoint"), ("AWS_ENDPOINT", "endpoint")):
        if os.environ.get(variable):
            found.pop(key, None)
    return found if "access_key_id" in found else {**found, "skip_signature": True}


_SAID = {  # what the library's errors say → what that means
    "BadScheme": "the server sends to another scheme, which is refused",
    "TooManyRedirects": "the server sends from place to place",
    "TimedOut": "nothing came in time",
    "timed out": "nothing came in time",
    "ConnectionRefused": "nobody answers there",
    "dns error": "no such host is known",
    "InvalidCertificate": "the server's certificate is not one that this machine trusts",
    "MissingContentLength": "the server names no length",
    "Content-Range": "the server answers with another range than was asked for",
    "Parse(": "the server's answer is none of HTTP",
    "IncompleteBody": "the line broke",
    "Connection reset": "the line broke",
    "error sending request": "the line broke",
    "body error": "the line broke",
}


def _why(error: Exception) -> str:
    """What went wrong, in few words; the library's own would show URLs with tokens."""
    text = str(error)
    if "status: 30" in text:
        return _SAID["BadScheme"]
    if status := re.search(r"status code: (\d{3}(?: [A-Za-z -]+)?)", text):
        code = re.search(r"<Code>(\w{1,60})</Code>", text)
        return printable(f"the server answers {status[1].strip()}{f', {code[1]}' if code else ''}", 120)
    return next((words for said, words in _SAID.items() if said in text), type(error).__name__)
