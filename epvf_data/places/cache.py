"""The user's cache folder, and in it files that came from elsewhere, each under the SHA-256 of its content."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from epvf_data.errors import ConfigError

LIMIT = "EPVF_CACHE_GB"  # the variable that sets the limit
_USUAL = 20.0  # GB
_DEEP = 0.8  # of the limit is left when room is made


def cache_folder() -> Path | None:
    """The user's cache folder: $XDG_CACHE_HOME/epvf-data, or ~/.cache/epvf-data. None for a user without a home."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    try:
        return (Path(root) if os.path.isabs(root) else Path.home() / ".cache") / "epvf-data"  # noqa: PTH117
    except RuntimeError:
        return None


@dataclass(frozen=True)
class CacheReport:
    """What a cache holds: where, how many files and bytes, and how many bytes it may hold."""

    folder: str
    files: int
    bytes: int
    limit: int


class Cache:
    """Files by the SHA-256 of their content. Those that were used longest ago go when there are too many bytes."""

    def __init__(self) -> None:
        """Raises ConfigError for a user without a home and a limit that is no number."""
        folder = cache_folder()
        if folder is None:
            raise ConfigError("there is no cache folder, since this user has no home; set XDG_CACHE_HOME.")
        text = os.environ.get(LIMIT, "")
        try:
            self.limit = int(float(text or _USUAL) * 1e9)
        except (ValueError, OverflowError) as error:
            raise ConfigError(f"{LIMIT} is no number of gigabytes.") from error
        self.root = folder / "data"
        self.objects = self.root / "objects"
        self._added = 0

    def path(self, digest: str) -> Path:
        """Where a file of this SHA-256 lies, or would."""
        return self.objects / digest[:2] / digest

    def has(self, digest: str) -> bool:
        """Whether it is there; it then counts as used."""
        with contextlib.suppress(OSError):
            os.utime(self.path(digest))
            return True
        return False

    def added(self, size: int) -> None:
        """Makes room now and then, when files of so many bytes were added."""
        self._added += size
        if self._added > self.limit // 20:
            self._added = 0
            self.trim()

    def trim(self) -> None:
        """Removes what was used longest ago, if there is more than the limit; who has it open reads on."""
        found = sorted(self._files(), key=lambda item: item[1].st_mtime)
        total = sum(status.st_size for _, status in found)
        if total <= self.limit:
            return
        for path, status in found:
            if total <= _DEEP * self.limit:
                break
            with contextlib.suppress(OSError):
                path.unlink()
            total -= status.st_size

    def report(self) -> CacheReport:
        """What is there."""
        sizes = [status.st_size for _, status in self._files()]
        return CacheReport(str(self.root), len(sizes), sum(sizes), self.limit)

    def clear(self) -> None:
        """Removes everything."""
        shutil.rmtree(self.root, ignore_errors=True)

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self.objects.glob("??/*"):
            with contextlib.suppress(OSError):
                yield path, path.lstat()
