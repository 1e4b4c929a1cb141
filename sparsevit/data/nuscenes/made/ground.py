"""The ground of a scene as a picture from above, and the sky as a panorama."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from sparsevit.data import textures
from sparsevit.data.backgrounds import colour
from sparsevit.data.dice import Dice
from sparsevit.data.nuscenes.made.spec import FRAMES_A_SCENE
from sparsevit.data.nuscenes.made.world import (
    CROSSING,
    LANES,
    PARKING,
    PAVEMENT,
    ROAD,
    STEP,
    World,
)

CELL = 0.1
"""Metres a pixel."""
MARGIN = 70.0
"""How far it goes around the car's way, in metres; beyond, it is mirrored."""
_WHITE = (214, 216, 216)
Span = tuple[float, float]
SKY_DEGREES, SKY_PIXELS = 50, 3


def ground_origin() -> tuple[float, float]:
    """(x, y) of the scene at the middle of the picture's first pixel."""
    return -MARGIN, LANES[0] - MARGIN


def paint_ground(world: World, dice: Dice) -> np.ndarray:
    """The scene from above: rows along y, columns along x, :data:`CELL` metres each.

    Returns:
        (rows, columns, 3) uint8, BGR.
    """
    left, low = ground_origin()
    length = world.speed * STEP * FRAMES_A_SCENE
    columns, rows = round((length + 2 * MARGIN) / CELL), round(2 * MARGIN / CELL)

    def at(x: float, y: float) -> tuple[int, int]:
        return round((x - left) / CELL), round((y - low) / CELL)

    def fill(x: Span, y: Span, shade: Any) -> None:
        (u, v), (s, t) = at(x[0], y[0]), at(x[1], y[1])
        part = canvas[max(0, v) : max(0, t), max(0, u) : max(0, s)]
        part[:] = shade if np.ndim(shade) == 1 else shade[max(0, v) : t, max(0, u) : s]

    asphalt = _rough(rows, columns, dice, colour(0.6, 0.04, dice.uniform(0.28, 0.42)), 9)
    slabs = _rough(rows, columns, dice, colour(0.1, 0.06, dice.uniform(0.5, 0.66)), 7)
    every = round(1.0 / CELL)
    slabs[::every] = slabs[:, ::every] = (slabs[0, 0] * 0.72).astype(np.uint8)
    grass = colour(dice.uniform(0.17, 0.3), dice.uniform(0.3, 0.55), dice.uniform(0.3, 0.48))
    canvas = _rough(rows, columns, dice, grass, 22)
    along, across = (left, left + columns * CELL), (low, low + rows * CELL)
    street = (world.crossing - CROSSING, world.crossing + CROSSING)
    fill(along, (-PAVEMENT[1], PAVEMENT[1]), slabs)
    fill((street[0] - 2.5, street[1] + 2.5), across, slabs)
    fill(along, (-PARKING[1], PARKING[1]), asphalt)
    fill(street, across, asphalt)
    for side in (-1, 1):
        _edges(fill, along, street, side, every=5.5)
    for y in (-3.5, 3.5):
        for x in np.arange(along[0], along[1], 6.0).tolist():
            if not street[0] - 6 < x < street[1] + 3:
                fill((x, x + 3), (y - 0.07, y + 0.07), _WHITE)
    fill((along[0], street[0] - 4), (-0.2, -0.08), _WHITE)
    fill((along[0], street[0] - 4), (0.08, 0.2), _WHITE)
    fill((street[1] + 4, along[1]), (-0.2, -0.08), _WHITE)
    fill((street[1] + 4, along[1]), (0.08, 0.2), _WHITE)
    for start in (street[0] - 3.4, street[1] + 0.4):
        for y in np.arange(-ROAD + 0.3, ROAD - 0.3, 1.0).tolist():
            fill((start, start + 3), (y, y + 0.5), _WHITE)
    return canvas


def _edges(
    fill: Callable[[Span, Span, Any], None], along: Span, street: Span, side: int, every: float
) -> None:
    """Kerbs and places to park on one side of the road."""

    def band(low: float, high: float) -> Span:
        return (low, high) if side > 0 else (-high, -low)

    for start, end in ((along[0], street[0] - 3), (street[1] + 3, along[1])):
        fill((start, end), band(PARKING[1], PARKING[1] + 0.2), (150, 152, 152))
        fill((start, end), band(ROAD - 0.06, ROAD + 0.06), _WHITE)
        for x in np.arange(start, end - 1, every).tolist():
            fill((x, x + 0.12), band(ROAD, PARKING[1]), _WHITE)


def _rough(rows: int, columns: int, dice: Dice, base: np.ndarray, strength: int) -> np.ndarray:
    """A colour with coarse and fine unevenness. Returns (rows, columns, 3) uint8."""
    coarse = textures.clouds(rows // 8 + 1, columns // 8 + 1, dice, 12, octaves=3)
    coarse = cv2.resize(coarse, (columns, rows), interpolation=cv2.INTER_LINEAR)
    fine = dice.bytes(rows // 2 + 1, columns // 2 + 1)
    fine = cv2.resize(fine, (columns, rows), interpolation=cv2.INTER_LINEAR)
    uneven = coarse.astype(np.int16) - 128 + (fine.astype(np.int16) - 128) // 3
    lift = (uneven * strength) >> 6
    return (base.astype(np.int16) + lift[:, :, None]).clip(0, 255).astype(np.uint8)


def paint_sky(dice: Dice) -> tuple[np.ndarray, np.ndarray]:
    """The sky all around, and the colour of what is far away.

    Returns:
        (rows, columns, 3) uint8 BGR, from :data:`SKY_DEGREES` above the horizon down to it, columns
        counter-clockwise from x; and (3,) float.
    """
    rows, columns = SKY_DEGREES * SKY_PIXELS, 360 * SKY_PIXELS
    high = colour(dice.uniform(0.55, 0.62), dice.uniform(0.2, 0.6), dice.uniform(0.6, 0.95))
    haze = colour(dice.uniform(0.05, 0.6), dice.uniform(0.03, 0.14), dice.uniform(0.75, 0.95))
    ramp = np.linspace(0, 255, rows).astype(np.uint8)[:, None].repeat(columns, axis=1)
    sky = textures.two_tone(ramp, high, haze).astype(np.int32)
    half = textures.clouds(rows, columns // 6, dice, 50, octaves=3)
    # there and back, so that it closes
    clouds = np.concatenate([half, half[:, ::-1]], axis=1)
    clouds = cv2.resize(clouds, (columns, rows), interpolation=cv2.INTER_LINEAR).astype(np.int32)
    cover = ((clouds - dice.integer(110, 170)) * 4).clip(0, 190)[:, :, None]
    sky = (sky * (255 - cover) + 238 * cover) // 255
    hills = _skyline(columns, dice)
    shade = (0.55 * haze + 0.45 * colour(0.3, 0.3, 0.35)).astype(np.int32)
    sky[np.arange(rows)[:, None] >= rows - hills[None, :]] = shade
    return sky.astype(np.uint8), haze.astype(float)


def _skyline(columns: int, dice: Dice) -> np.ndarray:
    """How high hills are all around, in pixels: (columns,)."""
    angles = np.arange(columns) * math.tau / columns
    waves = [
        dice.uniform(0, 5) / n * np.sin(n * angles + dice.uniform(0, math.tau))
        for n in (2, 5, 11, 23)
    ]
    return np.rint(5 + np.sum(waves, axis=0)).clip(1, None).astype(int)
