"""Patterns as maps of 0..255, in whole-number arithmetic: every machine gets the same ones."""

from __future__ import annotations

import math

import cv2
import numpy as np

from sparsevit.data.dice import Dice

_SINE = np.array([round(127.5 + 127.5 * math.sin(math.tau * i / 256)) for i in range(256)])
_SQUARE = np.clip((_SINE - 127) * 3 + 127, 0, 255)
# Smoothstep in 256ths, for value noise without creases at the grid lines.
_FADE = np.array([round(256 * (t / 256) ** 2 * (3 - 2 * t / 256)) for t in range(256)])


def ramp(height: int, width: int, dice: Dice) -> np.ndarray:
    """A linear gradient in a random direction. Returns (height, width) uint8."""
    along = _along(height, width, dice.uniform(0, math.tau))
    along -= along.min()
    return (along * 255 // max(1, int(along.max()))).astype(np.uint8)


def stripes(height: int, width: int, dice: Dice, period: float) -> np.ndarray:
    """Waves of ``period`` pixels, soft or hard, at a random angle. Returns (h, w) uint8."""
    table = _SINE if dice.chance(0.5) else _SQUARE
    return table[_phase(height, width, dice, dice.uniform(0, math.tau), period)].astype(np.uint8)


def checker(height: int, width: int, dice: Dice, period: float) -> np.ndarray:
    """A rotated checkerboard with soft edges. Returns (height, width) uint8."""
    angle = dice.uniform(0, math.tau)
    across = _SQUARE[_phase(height, width, dice, angle, period)] - 128
    down = _SQUARE[_phase(height, width, dice, angle + math.pi / 2, period)] - 128
    return (128 + across * down // 129).astype(np.uint8)


def clouds(height: int, width: int, dice: Dice, cell: float, octaves: int = 3) -> np.ndarray:
    """Value noise: random grids of ``cell`` px, ``cell/2`` px, ..., each half as strong.

    Returns (height, width) uint8 with mean near 128.
    """
    total = np.zeros((height, width), np.int32)
    for octave in range(octaves):
        total += _value_noise(height, width, dice, max(2.0, cell / 2**octave)) >> octave
    mean = 510 - (510 >> octaves)  # of a sum of octaves whose single values have mean 255
    return (128 + (total - mean) * 176 // mean).clip(0, 255).astype(np.uint8)


def patches(height: int, width: int, dice: Dice, cell: float) -> np.ndarray:
    """Clouds cut into two tones with narrow borders, like camouflage. Returns uint8."""
    soft = clouds(height, width, dice, cell, octaves=3).astype(np.int32)
    return np.clip((soft - 128) * 8 + 128, 0, 255).astype(np.uint8)


def two_tone(pattern: np.ndarray, dark: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Colours a pattern: 0 becomes ``dark``, 255 ``light``.

    Args:
        pattern: (height, width) uint8.
        dark, light: (3,) whole numbers 0..255.

    Returns:
        (height, width, 3) uint8.
    """
    steps = np.arange(256)[:, None]
    table = (dark[None] * (255 - steps) + light[None] * steps + 127) // 255
    return table.astype(np.uint8)[pattern]


def soften(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of a uint8 image; OpenCV computes it in fixed point for 8 bits."""
    if sigma < 0.2:
        return image
    return cv2.GaussianBlur(image, (0, 0), round(sigma, 2), borderType=cv2.BORDER_REFLECT_101)


def _along(height: int, width: int, angle: float) -> np.ndarray:
    """Position of every pixel along a direction, in 1024ths of a pixel, int64."""
    cosine, sine = round(1024 * math.cos(angle)), round(1024 * math.sin(angle))
    return np.arange(width, dtype=np.int64) * cosine + np.arange(height)[:, None] * sine


def _phase(height: int, width: int, dice: Dice, angle: float, period: float) -> np.ndarray:
    """Where every pixel is within its wave, 0..255."""
    step = round(1024 * 256 / period)
    return ((_along(height, width, angle) * step >> 20) + dice.integer(0, 255)) & 255


def _value_noise(height: int, width: int, dice: Dice, cell: float) -> np.ndarray:
    """One octave: a random grid, interpolated with a smoothstep. Returns 0..510, int32."""
    top, fade_y = _grid_steps(height, cell)
    left, fade_x = _grid_steps(width, cell)
    grid = dice.bytes(int(top[-1]) + 2, int(left[-1]) + 2).astype(np.int32)
    rows = grid[top] * (256 - fade_y)[:, None] + grid[top + 1] * fade_y[:, None]
    return (rows[:, left] * (256 - fade_x) + rows[:, left + 1] * fade_x) >> 15


def _grid_steps(length: int, cell: float) -> tuple[np.ndarray, np.ndarray]:
    """For every pixel: the grid line before it, and the weight (0..256) of the one after."""
    position = np.arange(length, dtype=np.int64) * round(256 * 256 / cell) >> 8
    return position >> 8, _FADE[position & 255]
