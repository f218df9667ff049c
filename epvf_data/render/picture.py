"""Pixels of any environment: what a painter is, the caption over a frame, the strip of frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image as pillow
from PIL import ImageDraw, ImageFont

Image = UInt8[np.ndarray, "height width 3"]
Painter = Callable[[Float[np.ndarray, "nq"], Float[np.ndarray, "nv"]], Image]  # one state → pixels

INK, PAPER = (24, 28, 36), (255, 255, 255)
CELL, GAP, LINE = 236, 4, 22  # pixels: a frame of the strip, between two, below them


@lru_cache(maxsize=16)
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib, of `size` pixels."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def write_on(pixels: Image, text: str) -> Image:
    """The frame with `text` on a pale bar along its upper edge; the text shrinks until it fits."""
    picture = pillow.fromarray(np.ascontiguousarray(pixels))
    width, height = picture.size
    size = max(8, height // 22)
    while size > 8 and font(size).getlength(text) > width - 2 * size:
        size -= 1
    bar = pillow.new("RGBA", (width, 2 * size), (*PAPER, 170))
    picture.paste(bar, (0, 0), bar)
    ImageDraw.Draw(picture).text((size, size), text, INK, font(size), anchor="lm")
    return np.asarray(picture)


def strip(frames: Sequence[Image], times: Sequence[float], crop: bool = False) -> pillow.Image:
    """The frames side by side, each with its time in seconds; eight are 1,916 pixels wide.

    `crop` keeps each frame's middle, at most as 6:5, for cameras that follow.
    """
    pictures = [pillow.fromarray(np.ascontiguousarray(frame)) for frame in frames]
    width, height = pictures[0].size
    spare = max(0.0, width - 1.2 * height) / 2 if crop else 0.0
    tall = max(1, round(CELL * height / (width - 2 * spare)))
    sheet = pillow.new("RGB", (len(frames) * (CELL + GAP) - GAP, tall + LINE), PAPER)
    pen = ImageDraw.Draw(sheet)
    for place, (picture, time) in enumerate(zip(pictures, times, strict=True)):
        left = place * (CELL + GAP)
        box = (spare, 0, width - spare, height)
        sheet.paste(picture.resize((CELL, tall), pillow.Resampling.LANCZOS, box=box), (left, 0))
        pen.text((left + CELL // 2, tall + LINE // 2), f"{time:.2f} s", INK, font(14), anchor="mm")
    return sheet


def save_webp(path: Path, frames: Sequence[Image], seconds: float, hold: float) -> None:
    """Writes an animated WebP without end, `seconds` a frame and `hold` more for the last, at most 480 pixels wide."""
    pictures = [pillow.fromarray(frame) for frame in frames]
    for picture in pictures:
        picture.thumbnail((480, 3840), pillow.Resampling.LANCZOS)
    durations = [round(1000 * seconds)] * len(pictures)
    durations[-1] += round(1000 * hold)
    pictures[0].save(
        path, format="webp", save_all=True, append_images=pictures[1:], duration=durations, loop=0, quality=60
    )
