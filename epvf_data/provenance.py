"""Who made something, with which versions, on what: plain JSON values for commit records and run directories."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from epvf_data.places.address import without_secrets
from epvf_data.untrusted import printable

WHO = {"author": "EPVF_AUTHOR", "lab": "EPVF_LAB"}  # what people may say of themselves, and the variables that say it
PACKAGES = (
    "epvf-data",
    "jax",
    "jaxlib",
    "mujoco",
    "mujoco-mjx",
    "numpy",
    "zarr",
    "numcodecs",
    "flax",
    "optax",
    "orbax-checkpoint",
    "scipy",
)


@cache
def versions() -> dict[str, str | None]:
    """Version of Python and of each package that can change a result; None where one is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


@cache
def git_state() -> dict[str, Any]:
    """Commit and dirty flag of the checkout this package runs from; None for an installed wheel."""
    folder = Path(__file__).resolve().parent.parent
    if not (folder / ".git").exists():
        return {"commit": None, "dirty": None}
    try:
        git = ["git", "--no-optional-locks", "-C", str(folder)]  # which would write its index anew
        # A hook of git's, which may have started us, has variables that name another repository.
        env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        run = lambda *words: subprocess.check_output(  # noqa: E731
            [*git, *words], stderr=subprocess.DEVNULL, text=True, timeout=10, env=env
        ).strip()
        return {"commit": run("rev-parse", "HEAD"), "dirty": bool(run("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}


def who() -> dict[str, str]:
    """Who makes this, as the variables of `WHO` say; empty where they say nothing."""
    found = {key: printable(os.environ.get(name, "").strip(), 200) for key, name in WHO.items()}
    return {key: value for key, value in found.items() if value}


def processor() -> str:
    """The processor's model name, or its architecture where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # macOS has none
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def now() -> str:
    """The present time as ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def origins(value: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The commits of other data sets whose rows these are, each with its `provenance`; malformed ones are left out."""
    found = value.get("origins")
    items = found if isinstance(found, list) else []
    return [item for item in items if isinstance(item, dict) and isinstance(item.get("provenance"), dict)]


def descent(value: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """All that rows came from, over all generations and in order: each as `origins` has it, with its provenance."""
    waiting = list(reversed(origins(value)))
    while waiting:
        item = waiting.pop()
        yield item, item["provenance"]
        waiting += reversed(origins(item["provenance"]))


def first_hand(value: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The provenances of those who made the rows: itself, or of rows that came from other data sets, theirs."""
    for made in (value, *(inner for _, inner in descent(value))):
        if not isinstance(made.get("origins"), list):
            yield made


def provenance(**extra: Any) -> dict[str, Any]:
    """Who made it, versions, git state, command and platform, with `extra` beside them."""
    stated = who()
    return {
        **({"who": stated} if stated else {}),
        "versions": versions(),
        "git": git_state(),
        # File names need not be UTF-8; records are. URLs may hold passwords and tokens; records do not.
        "command": [
            without_secrets(word.encode(errors="backslashreplace").decode())
            for word in (_program(Path(sys.argv[0])), *sys.argv[1:])
        ],
        "platform": {"system": platform.platform(), "processor": processor(), "cores": os.cpu_count()},
        **extra,
    }


def _program(called: Path) -> str:
    """The name by which a person calls it: `python -m epvf_data` is the same as `epvf-data`."""
    return "epvf-data" if called.parts[-2:] == ("epvf_data", "__main__.py") else called.name
