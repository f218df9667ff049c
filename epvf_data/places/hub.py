"""Where a data set of the Hugging Face hub lies, by huggingface_hub (extra `hub`): address, token, what errors mean."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from epvf_data.errors import ConfigError, EpvfError, RefusedError, TransferError, extra
from epvf_data.places.address import LOOPBACK, Address
from epvf_data.untrusted import printable

_WORD = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}"
_REPO = re.compile(rf"hf://datasets/({_WORD}/{_WORD})/?", re.ASCII)
TAKEN = 412  # what the hub answers to a commit whose parent is not the newest one


def library() -> Any:
    """The package huggingface_hub. Raises MissingPackageError where it is not installed."""
    with extra():
        import huggingface_hub  # pyright: ignore[reportMissingImports]
    return huggingface_hub


def repository(address: Address) -> str:
    """OWNER/NAME. Raises ConfigError where the address is another one."""
    found = _REPO.fullmatch(address.text)
    if found is None:
        raise ConfigError(f"{address.shown} names no data set of the hub; write hf://datasets/OWNER/NAME.")
    return found[1]


def endpoint() -> str:
    """The hub: huggingface.co, or HF_ENDPOINT. Raises ConfigError for one without TLS elsewhere than here."""
    url = library().constants.ENDPOINT
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
        raise ConfigError(f"HF_ENDPOINT is {printable(url, 100)}; an address with https:// is expected.")
    return url


def resolving(address: Address) -> tuple[str, dict[str, str]]:
    """The URL under which its files are read, and what is sent along: the token that the hub's own tools keep."""
    token = library().get_token()
    # Files that are compressed on the way have no length, and no ranges.
    headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {token}"} if token else {})
    return f"{endpoint()}/datasets/{repository(address)}/resolve/main", headers


class ParentMovedError(Exception):
    """Somebody else committed to the repository meanwhile."""


@contextlib.contextmanager
def speaking(doing: str, shown: str) -> Iterator[None]:
    """What the library raises as TransferError or ParentMovedError; its own words may show URLs with tokens."""
    try:
        yield
    except EpvfError:
        raise
    except Exception as error:  # its own, those of its HTTP library, OSError, ValueError, RuntimeError around any
        cause: Any = error
        while not hasattr(cause, "response") and cause.__cause__ is not None:
            cause = cause.__cause__
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if status == TAKEN:
            raise ParentMovedError from None
        cure = "; `hf auth login`, with a token that may write there" if status in (401, 403, 404) else ""
        why = f"the hub answers {status}{cure}" if status else type(cause).__name__
        kind = RefusedError if status is not None and status < 500 else TransferError
        raise kind(f"{doing} {shown} failed ({why}); what was done stays, the same command goes on.") from None
