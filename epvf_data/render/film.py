"""How an episode is filmed, and into which files: checked before anything is imported that could draw."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from epvf_data import outputs
from epvf_data.errors import ConfigError

FPS, SIZE, CELLS = 50, (640, 360), 8


class Film(NamedTuple):
    """How to draw: the same for every episode of a series."""

    fps: int = FPS
    size: tuple[int, int] = SIZE  # width, height in pixels
    cells: int = CELLS  # frames of the strip
    webp: bool = False  # an animated WebP too

    def files(self, video: Path) -> list[Path]:
        """The video, the strip beside it, and the WebP if it is wanted."""
        return [video, *(outputs.beside(video, suffix) for suffix in (".png", ".webp")[: 1 + self.webp])]

    def check(self, video: Path, force: bool) -> None:
        """Raises ConfigError for numbers and names that make no film, DatasetError for files that are there already."""
        if video.suffix != ".mp4":
            raise ConfigError(f"the video would be {video.name}; expected a name that ends in .mp4.")
        for name, pixels in zip(("width", "height"), self.size, strict=True):
            if not 64 <= pixels <= 3840 or pixels % 2:
                raise ConfigError(f"{name} is {pixels} pixels; expected an even number from 64 to 3840.")
        if not 1 <= self.fps <= 240:
            raise ConfigError(f"got {self.fps} frames a second; expected from 1 to 240.")
        if not 1 <= self.cells <= 32:
            raise ConfigError(f"got a strip of {self.cells} frames; expected from 1 to 32.")
        for path in self.files(video):
            outputs.check_free(path, force)
