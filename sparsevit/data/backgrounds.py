"""Backgrounds: textured, cluttered with things that are no object, calmer than the objects.

Contrast is what a window's score sees, so a background has some everywhere, seldom as much as an
object, and in places (strokes, specks) as much.
"""

from __future__ import annotations

import colorsys
import math

import cv2
import numpy as np

from sparsevit.data import textures
from sparsevit.data.dice import Dice

KINDS = ("ramp", "clouds", "stripes", "checker", "patches")


def background(height: int, width: int, dice: Dice) -> np.ndarray:
    """Paints a background. Returns (height, width, 3) uint8, BGR."""
    scale = min(height, width) / 224
    hue = dice.unit()
    base = colour(hue, dice.uniform(0.05, 0.5), dice.uniform(0.3, 0.75))
    canvas = textures.two_tone(_pattern(height, width, dice, scale), *_tones(base, dice))
    lit = canvas.astype(np.int16)
    lit += _wobble(height, width, dice, cell=96 * scale, strength=dice.integer(10, 36))
    lit += _wobble(height, width, dice, cell=14 * scale, strength=dice.integer(6, 40))
    canvas = lit.clip(0, 255).astype(np.uint8)
    _smudges(canvas, dice, scale)
    _strokes(canvas, dice, scale)
    _specks(canvas, dice, scale)
    return textures.soften(canvas, dice.uniform(0, 0.8) * scale)


def colour(hue: float, saturation: float, value: float) -> np.ndarray:
    """A colour from hue, saturation and value in [0, 1]. Returns (3,) int64 0..255, BGR."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return np.array([round(255 * channel) for channel in (blue, green, red)])


def _pattern(height: int, width: int, dice: Dice, scale: float) -> np.ndarray:
    kind = dice.pick(KINDS)
    if kind == "ramp":
        return textures.ramp(height, width, dice)
    if kind == "clouds":
        return textures.clouds(height, width, dice, dice.uniform(24, 80) * scale)
    if kind == "stripes":
        return textures.stripes(height, width, dice, dice.uniform(8, 40) * scale)
    if kind == "checker":
        return textures.checker(height, width, dice, dice.uniform(16, 48) * scale)
    return textures.patches(height, width, dice, dice.uniform(32, 72) * scale)


def _tones(base: np.ndarray, dice: Dice) -> tuple[np.ndarray, np.ndarray]:
    """Two colours about ``base``, 12 to 68 levels apart, with a slight tint between them."""
    apart = dice.integer(6, 34)
    tint = np.array([dice.integer(-10, 10) for _ in range(3)])
    return (base - apart - tint).clip(0, 255), (base + apart + tint).clip(0, 255)


def _wobble(height: int, width: int, dice: Dice, cell: float, strength: int) -> np.ndarray:
    """Brightness that varies by about ``strength`` levels. Returns (height, width, 1) int16."""
    noise = textures.clouds(height, width, dice, cell, octaves=3).astype(np.int16) - 128
    return (noise * strength >> 7)[:, :, None]


def _smudges(canvas: np.ndarray, dice: Dice, scale: float) -> None:
    """Soft stains as large as objects, without an edge."""
    height, width = canvas.shape[:2]
    alpha = np.zeros((height, width), np.uint8)
    for _ in range(dice.integer(2, 7)):
        axes = tuple(max(1, round(dice.uniform(5, 22) * scale)) for _ in range(2))
        centre = (dice.integer(0, width - 1), dice.integer(0, height - 1))
        cv2.ellipse(alpha, centre, axes, dice.integer(0, 179), 0, 360, dice.integer(50, 150), -1)
    alpha = textures.soften(alpha, dice.uniform(3.5, 6) * scale)
    stain = colour(dice.unit(), dice.uniform(0.1, 0.6), dice.uniform(0.15, 0.9))
    weight = alpha[:, :, None].astype(np.int32)
    canvas[:] = (canvas * (255 - weight) + stain.astype(np.int32) * weight) // 255


def _strokes(canvas: np.ndarray, dice: Dice, scale: float) -> None:
    """Thin open curves: scratches, wires, grass."""
    height, width = canvas.shape[:2]
    for _ in range(dice.integer(0, 5)):
        x, y = dice.uniform(0, width), dice.uniform(0, height)
        ink = _ink(canvas, x, y, dice, contrast=110)
        heading = dice.uniform(0, math.tau)
        for _ in range(dice.integer(1, 6)):
            line = _walk(14 * dice.bell(), 14 * dice.bell(), heading, dice) * scale
            points = np.rint((line + np.array([x, y])) * 16).astype(np.int32)
            thickness = max(1, round(scale))
            cv2.polylines(canvas, [points], False, ink, thickness, cv2.LINE_AA, shift=4)


def _walk(x: float, y: float, heading: float, dice: Dice) -> np.ndarray:
    """A bent line of eight points. Returns (8, 2) float64."""
    step, bend = dice.uniform(3, 12), dice.uniform(-0.3, 0.3)
    points = []
    for i in range(8):
        points.append((x, y))
        x += step * math.cos(heading + i * bend)
        y += step * math.sin(heading + i * bend)
    return np.array(points)


def _specks(canvas: np.ndarray, dice: Dice, scale: float) -> None:
    """Dots much smaller than the smallest object, scattered or in swarms."""
    height, width = canvas.shape[:2]
    for _ in range(dice.integer(0, 4)):
        x, y = dice.uniform(0, width), dice.uniform(0, height)
        spread = dice.uniform(10, 60) * scale
        ink = _ink(canvas, x, y, dice, contrast=110)
        for _ in range(dice.integer(3, 14)):
            centre = (round(x + spread * dice.bell()), round(y + spread * dice.bell()))
            radius = max(1, round(dice.uniform(0.6, 1.8) * scale))
            cv2.circle(canvas, centre, radius, ink, -1, cv2.LINE_AA)


def _ink(canvas: np.ndarray, x: float, y: float, dice: Dice, contrast: int) -> tuple[int, ...]:
    """A colour up to ``contrast`` levels off the canvas at (x, y), lighter or darker."""
    here = canvas[int(y), int(x)].astype(int)
    shift = dice.integer(-contrast, contrast)
    return tuple(int(v) for v in (here + shift).clip(0, 255))
