"""What a check found, rule by rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from epvf_data.errors import EpvfError


class Finding(NamedTuple):
    """A rule, whether it is kept, and what was seen."""

    rule: str
    ok: bool
    text: str


class Broken(Exception):
    """A rule is broken; the text says how. Later rules that need this one are left out."""


def look(found: list[Finding], rule: str, check: Callable[[], Any], kept: str = "") -> Any:
    """Runs one check; what it returns where the rule is kept, else None. `kept` is told where it returns no text."""
    try:
        result = check()
    except Broken as error:
        found.append(Finding(rule, False, str(error)))
        return None
    except (Exception, SystemExit) as error:
        told = str(error) if isinstance(error, EpvfError) else f"{type(error).__name__}: {' '.join(str(error).split())}"
        found.append(Finding(rule, False, told[:400]))
        return None
    found.append(Finding(rule, True, result if isinstance(result, str) else kept))
    return result


def need(condition: Any, text: str) -> None:
    """Raises Broken with this text unless the condition holds."""
    if not condition:
        raise Broken(text)
