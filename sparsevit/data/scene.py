"""One image: where its objects lie, what of them is seen, and the painting.

Layout and painting draw from streams of their own, so the annotations of an image can be had
without painting it (that is how an interrupted generation is completed quickly).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sparsevit.data import shapes, textures
from sparsevit.data.backgrounds import background, colour
from sparsevit.data.dice import Dice
from sparsevit.data.spec import SPLITS, DatasetSpec

# An object of which less than this share is seen is no fair question; it is put elsewhere.
LEAST_VISIBLE = 0.3
_LEAST_PIXELS = 10
_TRIES_PER_OBJECT = 12
_LAYOUT, _PAINT = 0, 1


@dataclass(frozen=True)
class Placed:
    """An object in an image.

    Attributes:
        label: index into the spec's classes.
        left, top: where its arrays begin in the image, in pixels.
        alpha: (h, w) uint8 coverage of the whole object within the image.
        visible: (h, w) bool, the pixels that are its own: covered by half or more, and by no
            object in front.
    """

    label: int
    left: int
    top: int
    alpha: np.ndarray
    visible: np.ndarray


def layout(spec: DatasetSpec, split: str, index: int) -> list[Placed]:
    """Places the objects of image ``index``, the hindmost first; visible pixels are disjoint.

    Objects gather around one to three centres, so most of the image is background. They are
    placed from the front: whatever is hidden too much by those before it is tried elsewhere.
    """
    dice = Dice(spec.seed, SPLITS.index(split), index, _LAYOUT)
    # in folders of classes, as many of each, and known from the number of an image alone
    only = index % len(spec.classes) if spec.folders else None
    wanted = dice.integer(*spec.objects)
    centres = _centres(spec, dice, wanted)
    taken = np.zeros((spec.height, spec.width), bool)
    placed: list[Placed] = []
    for attempt in range(_TRIES_PER_OBJECT * wanted):
        if len(placed) == wanted:
            break
        candidate = _place(spec, dice, dice.pick(centres), attempt / max(1, wanted), taken, only)
        if candidate is None:
            continue
        rows, columns = candidate.visible.shape
        window = taken[candidate.top : candidate.top + rows, candidate.left :][:, :columns]
        window |= candidate.visible
        placed.append(candidate)
    return placed[::-1]


def paint(spec: DatasetSpec, split: str, index: int, objects: list[Placed]) -> np.ndarray:
    """Paints image ``index`` with the ``objects`` of its layout.

    Returns:
        (height, width, 3) uint8, BGR as OpenCV writes it.
    """
    dice = Dice(spec.seed, SPLITS.index(split), index, _PAINT)
    canvas = background(spec.height, spec.width, dice)
    for item in objects:
        _paint_object(canvas, item, dice, _hues(spec, item.label))
    return _photograph(canvas, dice)


def _centres(spec: DatasetSpec, dice: Dice, wanted: int) -> list[tuple[float, float]]:
    count = min(dice.integer(1, 2) + wanted // 10, 1 + wanted // 3)
    share = (0.15, 0.85)
    return [
        (spec.width * dice.uniform(*share), spec.height * dice.uniform(*share))
        for _ in range(count)
    ]


def _place(
    spec: DatasetSpec,
    dice: Dice,
    centre: tuple[float, float],
    crowding: float,
    taken: np.ndarray,
    only: int | None,
) -> Placed | None:
    """Draws one object near ``centre``; None if too little of it would be seen.

    ``crowding`` (tries made for each object wanted) widens the cluster once it is full. ``only`` is
    the label to draw, if it is not drawn too.
    """
    low, high = spec.size_range()
    radius = low * (high / low) ** dice.unit() / 2
    label = dice.integer(0, len(spec.classes) - 1) if only is None else only
    squeeze = dice.uniform(0.78, 1.0)
    spread = (0.055 + 0.06 * crowding) * min(spec.width, spec.height) + 0.5 * radius
    x = _within(centre[0] + spread * dice.bell(), radius, spec.width)
    y = _within(centre[1] + spread * dice.bell(), radius, spec.height)
    angle = dice.uniform(0, math.tau)
    coverage = shapes.draw(spec.classes[label], radius, angle, squeeze, x % 1, y % 1)
    whole = int((coverage >= 128).sum())
    half = coverage.shape[0] // 2
    left, top = int(x) - half, int(y) - half
    rows = slice(max(0, -top), min(2 * half, spec.height - top))
    columns = slice(max(0, -left), min(2 * half, spec.width - left))
    alpha = coverage[rows, columns]
    left, top = max(0, left), max(0, top)
    covered = taken[top : top + alpha.shape[0], left : left + alpha.shape[1]]
    visible = (alpha >= 128) & ~covered
    seen = int(visible.sum())
    if seen < max(_LEAST_PIXELS, LEAST_VISIBLE * whole):
        return None
    return Placed(label, left, top, alpha, visible)


def _within(position: float, radius: float, length: int) -> float:
    """Keeps a centre so far inside that at most a third of the radius is cut off."""
    margin = min(radius * 0.67, length / 2 - 1)
    return min(max(position, margin), length - 1 - margin)


def _hues(spec: DatasetSpec, label: int) -> tuple[float, float]:
    """The range of hues of a class: all, or three fifths of its share of them."""
    if not spec.hues:
        return 0.0, 1.0
    return (label + 0.2) / len(spec.classes), (label + 0.8) / len(spec.classes)


def _paint_object(canvas: np.ndarray, item: Placed, dice: Dice, hues: tuple[float, float]) -> None:
    rows, columns = item.alpha.shape
    window = canvas[item.top : item.top + rows, item.left : item.left + columns]
    behind = window.reshape(-1, 3).mean(axis=0, dtype=np.int64).astype(np.int64)
    fill = _contrasting(behind, dice, dice.integer(38, 100), hues)
    coloured = _fill(rows, columns, fill, dice)
    alpha = textures.soften(item.alpha, dice.uniform(-0.4, 0.9)).astype(np.int32)[:, :, None]
    # Never fully opaque in every object: weaker ones let some of the background through.
    alpha = alpha * dice.integer(205, 255) // 255
    window[:] = (window * (255 - alpha) + coloured * alpha) // 255


def _contrasting(
    behind: np.ndarray, dice: Dice, contrast: int, hues: tuple[float, float]
) -> np.ndarray:
    """A colour of these hues at least ``contrast`` levels (mean over channels) from ``behind``.

    Of twelve draws the first that is so far is taken, else the farthest.
    """
    best, best_distance = behind, -1
    # of a pale or dark colour nobody sees the hue
    least = 0.1 if hues == (0.0, 1.0) else 0.45
    for _ in range(12):
        hue = dice.uniform(*hues)
        candidate = colour(hue, dice.uniform(least, 1.0), dice.uniform(least, 1.0))
        distance = int(np.abs(candidate - behind).sum()) // 3
        if distance >= contrast:
            return candidate
        if distance > best_distance:
            best, best_distance = candidate, distance
    return best


def _fill(rows: int, columns: int, fill: np.ndarray, dice: Dice) -> np.ndarray:
    """The object's inside: its colour with a texture of its own. Returns (rows, columns, 3) int."""
    apart = dice.integer(0, 26)
    dark, light = (fill - apart).clip(0, 255), (fill + apart).clip(0, 255)
    kind = dice.integer(0, 3)
    if kind == 0:
        pattern = textures.ramp(rows, columns, dice)
    elif kind == 1:
        pattern = textures.stripes(rows, columns, dice, dice.uniform(4, 12))
    elif kind == 2:
        pattern = textures.clouds(rows, columns, dice, dice.uniform(4, 16), octaves=2)
    else:
        pattern = textures.checker(rows, columns, dice, dice.uniform(6, 14))
    return textures.two_tone(pattern, dark, light).astype(np.int32)


def _photograph(canvas: np.ndarray, dice: Dice) -> np.ndarray:
    """What a camera adds: a little blur, contrast and exposure, sensor noise."""
    if dice.chance(0.3):
        canvas = textures.soften(canvas, dice.uniform(0.3, 0.9))
    gain, offset = dice.integer(200, 270), dice.integer(-14, 14)
    noise = dice.bytes(2, *canvas.shape).astype(np.int16).sum(axis=0) - 255
    strength = dice.integer(1, 16)
    exposed = (((canvas.astype(np.int32) - 128) * gain) >> 8) + 128 + offset
    return (exposed + (noise.astype(np.int32) * strength >> 8)).clip(0, 255).astype(np.uint8)
