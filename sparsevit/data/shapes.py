"""The classes' outlines, and their antialiased drawing at any size and rotation."""

from __future__ import annotations

import math

import numpy as np

_SUPERSAMPLE = 4
_SUBPIXEL = 256


def outline(name: str) -> list[np.ndarray]:
    """The contours of a class within the unit circle; a second contour is a hole.

    Args:
        name: one of :data:`sparsevit.data.spec.CLASSES`.

    Returns:
        Arrays (points, 2) float64 of x, y in [-1, 1].
    """
    return _OUTLINES[name]


def draw(
    name: str, radius: float, angle: float, squeeze: float, dx: float, dy: float
) -> np.ndarray:
    """Draws a shape, antialiased, into a square just large enough.

    Args:
        name: the class.
        radius: of the circle around the shape, in pixels.
        angle: rotation in radians.
        squeeze: width over height before the rotation, at most 1 (1: undistorted).
        dx, dy: offset of the centre from the square's middle corner, in [0, 1) pixels.

    Returns:
        (side, side) uint8 coverage, 255 inside; side is 2 * ceil(radius) + 2.
    """
    half = math.ceil(radius) + 1
    side = 2 * half * _SUPERSAMPLE
    cosine, sine = radius * math.cos(angle), radius * math.sin(angle)
    contours = []
    for points in outline(name):
        x, y = points[:, 0] * squeeze, points[:, 1]
        placed = np.stack([x * cosine - y * sine + half + dx, x * sine + y * cosine + half + dy], 1)
        contours.append(np.rint(placed * (_SUPERSAMPLE * _SUBPIXEL)).astype(np.int64))
    fine = fill(contours, side)
    blocks = fine.reshape(2 * half, _SUPERSAMPLE, 2 * half, _SUPERSAMPLE)
    covered = blocks.sum(axis=(1, 3), dtype=np.int32)
    return (covered * 255 // _SUPERSAMPLE**2).astype(np.uint8)


def fill(contours: list[np.ndarray], side: int) -> np.ndarray:
    """Fills polygons by the even-odd rule, in whole numbers.

    ``cv2.fillPoly`` would do, but which pixels it fills has changed between OpenCV's versions.

    Args:
        contours: arrays (points, 2) int64 of x, y in 256ths of a pixel, within the square.
        side: of the square, in pixels.

    Returns:
        (side, side) bool: pixels whose centre is inside.
    """
    starts = np.concatenate(contours)
    ends = np.concatenate([np.roll(points, -1, axis=0) for points in contours])
    row_centres = np.arange(side) * _SUBPIXEL + _SUBPIXEL // 2
    (x0, y0), (x1, y1) = starts.T[:, :, None], ends.T[:, :, None]
    edge, row = np.nonzero((y0 <= row_centres) != (y1 <= row_centres))
    x0, y0, x1, y1 = (values[edge, 0] for values in (x0, y0, x1, y1))
    crossing = x0 + (x1 - x0) * (row_centres[row] - y0) // (y1 - y0)
    column = (crossing + _SUBPIXEL // 2 - 1) // _SUBPIXEL
    flips = np.bincount(row * (side + 1) + column.clip(0, side), minlength=side * (side + 1))
    return (flips.reshape(side, side + 1)[:, :-1].cumsum(axis=1) & 1).astype(bool)


def _arc(radius: float, start: float, stop: float, points: int, x: float = 0.0) -> np.ndarray:
    """Points on a circle around (x, 0), from angle ``start`` to ``stop``, both included."""
    angles = [start + (stop - start) * i / (points - 1) for i in range(points)]
    return np.array([(x + radius * math.cos(a), radius * math.sin(a)) for a in angles])


def _circle(radius: float = 1.0) -> np.ndarray:
    return _arc(radius, 0, math.tau, 49)[:-1]


def _regular(corners: int, inner: float | None = None) -> np.ndarray:
    """A regular polygon, or with ``inner`` a star whose inner corners have that radius."""
    if inner is None:
        return _arc(1.0, -math.pi / 2, 1.5 * math.pi, corners + 1)[:-1]
    points = _arc(1.0, -math.pi / 2, 1.5 * math.pi, 2 * corners + 1)[:-1]
    points[1::2] *= inner
    return points


def _cross(arm: float = 0.34) -> np.ndarray:
    """A plus whose arms are ``2 * arm`` wide; their corners lie on the unit circle."""
    end = math.sqrt(1 - arm**2)
    quarter = np.array([(arm, arm), (arm, end), (-arm, end)])
    turns = [np.array([[c, -s], [s, c]]) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))]
    return np.concatenate([quarter @ turn.T for turn in turns])


def _crescent(bite: float = 0.78, x: float = 0.55) -> np.ndarray:
    """The unit circle without a circle of radius ``bite`` around (x, 0)."""
    tip_x = (1 + x**2 - bite**2) / (2 * x)
    tip_y = math.sqrt(1 - tip_x**2)
    outer, inner = math.atan2(tip_y, tip_x), math.atan2(tip_y, tip_x - x)
    return np.concatenate(
        [
            _arc(1.0, outer, math.tau - outer, 40),
            _arc(bite, math.tau - inner, inner, 28, x=x)[1:-1],
        ]
    )


_OUTLINES = {
    "circle": [_circle()],
    "triangle": [_regular(3)],
    "square": [_regular(4)],
    "star": [_regular(5, inner=0.42)],
    "ring": [_circle(), _circle(0.52)],
    "cross": [_cross()],
    "crescent": [_crescent()],
}
