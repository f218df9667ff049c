"""CartPole drawn with Pillow: the track between its limits, the cart, the pole and the angles at which it is lost."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from jaxtyping import Float
from PIL import Image as pillow
from PIL import ImageDraw

from epvf_data.envs.base import Env
from epvf_data.envs.cartpole import MAX_ANGLE, MAX_POSITION, POLE_HALF_LENGTH
from epvf_data.render.picture import Image, Painter, font

SCALE = 2  # drawn this much larger and reduced: smooth edges
SKY, GROUND, TRACK, CART, POLE, AXLE = "#eef3f7", "#d5dde4", "#56616e", "#0072B2", "#D55E00", "#1c2026"
LIMIT, CONE = "#b5483a", "#dde6ee"
CART_WIDTH, CART_HEIGHT, POLE_WIDTH = 0.5, 0.3, 0.1  # m
VIEW = 2 * (MAX_POSITION + 0.4)  # m across the picture


@contextmanager
def painter(env: Env, width: int, height: int) -> Iterator[Painter]:
    """Draws CartPole's states: (qpos [2] = position m, angle rad; qvel [2]) → pixels. The camera stands still."""
    unit = SCALE * width / VIEW  # pixels a metre

    def paint(qpos: Float[np.ndarray, "2"], qvel: Float[np.ndarray, "2"]) -> Image:
        picture = pillow.new("RGB", (SCALE * width, SCALE * height), SKY)
        pen = ImageDraw.Draw(picture)
        rail = SCALE * height * 0.76
        _track(pen, rail, unit, picture.size)
        _cart(pen, rail, unit, picture.size[0] / 2 + float(qpos[0]) * unit, float(qpos[1]))
        return np.asarray(picture.reduce(SCALE))

    yield paint


def _track(pen: ImageDraw.ImageDraw, rail: float, unit: float, size: tuple[int, int]) -> None:
    """The ground, a mark each half metre, and the posts at which the cart has gone too far."""
    middle, thin = size[0] / 2, max(1, round(0.012 * unit))
    pen.rectangle((0, rail, *size), fill=GROUND)
    pen.line((0, rail, size[0], rail), TRACK, 2 * thin)
    letters = font(max(8, round(0.13 * unit)))
    for half in range(-4, 5):
        x = middle + half / 2 * unit
        pen.line((x, rail, x, rail + 0.06 * unit), TRACK, thin)
        if half % 2 == 0:
            pen.text((x, rail + 0.1 * unit), f"{half // 2:+d} m" if half else "0", TRACK, letters, anchor="mt")
    for side in (-1, 1):
        x = middle + side * MAX_POSITION * unit
        pen.line((x, rail - 0.45 * unit, x, rail), LIMIT, 3 * thin)


def _cart(pen: ImageDraw.ImageDraw, rail: float, unit: float, x: float, angle: float) -> None:
    """The cart with its axle at x and the cone of allowed angles; a positive angle leans the pole to the right."""
    top, wheel = rail - CART_HEIGHT * unit, 0.06 * unit
    axle = top + 0.06 * unit
    length = 2 * POLE_HALF_LENGTH * unit
    cone = [(x + length * math.sin(a), axle - length * math.cos(a)) for a in np.linspace(-MAX_ANGLE, MAX_ANGLE, 9)]
    pen.polygon([(x, axle), *cone], fill=CONE)
    half = CART_WIDTH / 2 * unit
    pen.rounded_rectangle((x - half, top, x + half, rail - wheel), 0.04 * unit, fill=CART)
    for side in (-0.6, 0.6):
        centre = x + side * half
        pen.ellipse((centre - wheel, rail - 2 * wheel, centre + wheel, rail), fill=AXLE)
    tip = (x + length * math.sin(angle), axle - length * math.cos(angle))
    radius = POLE_WIDTH / 2 * unit
    pen.line((x, axle, *tip), POLE, round(2 * radius))
    for end_x, end_y in ((x, axle), tip):
        pen.ellipse((end_x - radius, end_y - radius, end_x + radius, end_y + radius), fill=POLE)
    pin = 0.4 * radius
    pen.ellipse((x - pin, axle - pin, x + pin, axle + pin), fill=AXLE)
