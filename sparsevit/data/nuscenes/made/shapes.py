"""What things look like: blocks, four corners to a face, that fill the box of a thing.

A thing's own frame has x ahead, y to the left and z up, with its middle on the ground at 0.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from sparsevit.data.backgrounds import colour
from sparsevit.data.dice import Dice
from sparsevit.data.nuscenes.made.world import Thing

Colour: TypeAlias = Sequence[float] | np.ndarray
"""BGR, 0 to 255."""

_GLASS, _TYRE, _GREY = (70, 62, 52), (34, 32, 32), (120, 120, 122)
_PLAIN, WINDOWS, STRIPES, LEAVES = range(4)


@dataclass(frozen=True)
class Faces:
    """Faces of one or many things.

    Attributes:
        corners: (n, 4, 3) metres, counter-clockwise seen from outside.
        colours: (n, 3) BGR, 0 to 255.
        patterns: (n,) one of the patterns that :mod:`~sparsevit.data.nuscenes.made.render` paints.
    """

    corners: np.ndarray
    colours: np.ndarray
    patterns: np.ndarray


class _Blocks:
    """Collects the faces of blocks, in shares of a thing's size."""

    def __init__(self, thing: Thing) -> None:
        width, length, height = thing.size
        self._scale = np.array([length / 2, width / 2, height])
        self._corners: list[np.ndarray] = []
        self._colours: list[Colour] = []
        self._patterns: list[int] = []

    def add(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        z: tuple[float, float],
        colour: Colour,
        top: tuple[tuple[float, float], tuple[float, float]] | None = None,
        roof: Colour | None = None,
        pattern: int = _PLAIN,
    ) -> None:
        """A block from and to x and y in -1..1, z in 0..1, without its floor.

        Args:
            top: x and y of its upper side, where they are not those of the lower.
            roof: colour of its upper side.
            pattern: of its sides.
        """
        low = [(x[0], y[0]), (x[1], y[0]), (x[1], y[1]), (x[0], y[1])]
        (u, v) = top or (x, y)
        high = [(u[0], v[0]), (u[1], v[0]), (u[1], v[1]), (u[0], v[1])]
        for i in range(4):
            j = (i + 1) % 4
            face = [(*low[i], z[0]), (*low[j], z[0]), (*high[j], z[1]), (*high[i], z[1])]
            self._face(face, colour, pattern)
        self._face([(*corner, z[1]) for corner in high], colour if roof is None else roof, _PLAIN)

    def _face(
        self, face: Sequence[tuple[float, float, float]], colour: Colour, pattern: int
    ) -> None:
        self._corners.append(np.array(face) * self._scale)
        self._colours.append(colour)
        self._patterns.append(pattern)

    def faces(self) -> Faces:
        return Faces(
            np.array(self._corners), np.array(self._colours, float), np.array(self._patterns)
        )


def faces_of(thing: Thing, dice: Dice) -> Faces:
    """The faces of a thing in its own frame, the same ones for equal dice."""
    blocks = _Blocks(thing)
    _LOOKS[thing.name](blocks, thing, dice)
    return blocks.faces()


def _wheels(blocks: _Blocks, places: Sequence[float], high: float, reach: float = 0.07) -> None:
    for x in places:
        for y in ((-1.0, -0.78), (0.78, 1.0)):
            blocks.add((x - reach, x + reach), y, (0, high), _TYRE)


def _lights(blocks: _Blocks, z: tuple[float, float], front: float = 1.0) -> None:
    for y in ((-0.9, -0.6), (0.6, 0.9)):
        blocks.add((front - 0.03, front), y, z, (215, 240, 245))
        blocks.add((-1.0, -0.97), y, z, (40, 30, 215))


def _paint(dice: Dice) -> np.ndarray:
    if dice.chance(0.4):
        return colour(0.0, 0.0, dice.uniform(0.15, 0.95))
    return colour(dice.unit(), dice.uniform(0.45, 0.95), dice.uniform(0.4, 0.9))


def _car(blocks: _Blocks, thing: Thing, dice: Dice) -> None:
    paint = _paint(dice)
    blocks.add((-0.98, 0.98), (-0.97, 0.97), (0.17, 0.58), paint)
    back = dice.uniform(-0.95, -0.6)
    cabin = ((back + 0.12, 0.2), (-0.74, 0.74))
    blocks.add((back, 0.5), (-0.9, 0.9), (0.58, 0.96), _GLASS, cabin, paint)
    blocks.add(*cabin, (0.96, 1.0), paint)
    _wheels(blocks, (-0.6, 0.62), 0.38, 0.14)
    _lights(blocks, (0.36, 0.5))


def _truck(blocks: _Blocks, thing: Thing, dice: Dice) -> None:
    paint, load = _paint(dice), _paint(dice)
    blocks.add((0.55, 1.0), (-0.95, 0.95), (0.15, 0.5), paint)
    blocks.add((0.55, 1.0), (-0.95, 0.95), (0.5, 0.76), _GLASS, ((0.55, 0.9), (-0.9, 0.9)), paint)
    blocks.add((-1.0, 0.5), (-1.0, 1.0), (0.3, 1.0), load)
    blocks.add((-0.95, 0.6), (-0.6, 0.6), (0.18, 0.3), _GREY)
    _wheels(blocks, (-0.7, -0.45, 0.75), 0.3, 0.11)
    _lights(blocks, (0.2, 0.28))


def _bus(blocks: _Blocks, thing: Thing, dice: Dice) -> None:
    paint = colour(dice.unit(), dice.uniform(0.5, 0.9), dice.uniform(0.55, 0.95))
    blocks.add((-1, 1), (-1, 1), (0.1, 0.45), paint)
    blocks.add((-0.995, 0.995), (-0.98, 0.98), (0.45, 0.8), _GLASS)
    blocks.add((-1, 1), (-1, 1), (0.8, 1.0), paint)
    for x in np.linspace(-0.98, 0.9, 7):
        blocks.add((x, x + 0.03), (-1, 1), (0.45, 0.8), paint)
    _wheels(blocks, (-0.62, 0.62), 0.28, 0.09)
    _lights(blocks, (0.2, 0.3))


def _trailer(blocks: _Blocks, thing: Thing, dice: Dice) -> None:
    shade = colour(dice.unit(), dice.uniform(0.0, 0.35), dice.uniform(0.6, 0.95))
    blocks.add((-1, 1), (-1, 1), (0.28, 1.0), shade, pattern=STRIPES)
    blocks.add((-0.95, 0.95), (-0.5, 0.5), (0.2, 0.28), _GREY)
    _wheels(blocks, (-0.85, -0.66, -0.47), 0.25, 0.065)
    blocks.add((0.6, 0.64), (-0.5, -0.4), (0, 0.25), _GREY)
    blocks.add((0.6, 0.64), (0.4, 0.5), (0, 0.25), _GREY)


def _construction(blocks: _Blocks, thing: Thing, dice: Dice) -> None:
    paint = colour(dice.uniform(0.1, 0.15), 0.95, dice.uniform(0.8, 0.95))
    blocks.add((-0.9, 0.5), (-1.0, -0.6), (0, 0.28), _TYRE)
    blocks.add((-0.9, 0.5), (0.6, 1.0), (0, 0.28), _TYRE)
    blocks.add((-1.0, 0.3), (-0.85, 0.85), (0.28, 0.55), paint)
    blocks.add((-0.3, 0.25), (-0.1, 0.8), (0.55, 0.92), _GLASS, roof=paint)
    blocks.add((0.2, 0.45), (-0.5, -0.25), (0.4, 1.0), paint, ((0.5, 0.75), (-0.5, -0.25)))
    blocks.add((0.55, 0.9), (-0.5, -0.25), (0.85, 1.0), paint)
    blocks.add((0.8, 1.0), (-0.75, 0.0), (0.1, 0.85), _GREY, ((0.8, 0.9), (-0.5, -0.25)))


def _barrier(blocks: _Blocks, thing: Thing, dice: Dice) -> None:
    first, second = ((60, 60, 215), (235, 235, 235)) if dice.chance(0.6) else ((30, 140, 240),) * 2
    edges = np.linspace(-1, 1, 6)
    for i in range(5):
        shade = (first, second)[i % 2]
        blocks.add((-0.3, 0.3), (edges[i], edges[i + 1]), (0.35, 1.0), shade)
    for y in ((-0.9, -0.75), (0.75, 0.9)):
        blocks.add((-1, 1), y, (0, 0.35), _GREY, ((-0.3, 0.3), y))


def _cone(blocks: _Blocks, thing: Thing, dice: Dice) -> None:
    orange = (20, 95 + dice.integer(0, 25), 245)
    blocks.add((-1, 1), (-1, 1), (0, 0.06), orange)
    radii, heights = (0.75, 0.52, 0.34, 0.1), (0.06, 0.4, 0.68, 1.0)
    for i, shade in enumerate((orange, (240, 240, 240), orange)):
        low, high = (-radii[i], radii[i]), (-radii[i + 1], radii[i + 1])
        blocks.add(low, low, heights[i : i + 2], shade, (high, high))  # type: ignore[arg-type]


def _person(blocks: _Blocks, thing: Thing, dice: Dice, low: float = 0.0, deep: float = 1.0) -> None:
    """Upright, from a share of the height on, as deep as a share of the length."""
    skin = colour(0.07, dice.uniform(0.25, 0.6), dice.uniform(0.35, 0.95))
    shirt, trousers = _paint(dice), colour(dice.unit(), 0.4, dice.uniform(0.15, 0.5))

    def z(start: float, end: float) -> tuple[float, float]:
        return low + (1 - low) * start, low + (1 - low) * end

    def x(start: float, end: float) -> tuple[float, float]:
        return deep * start, deep * end

    step = 0.35 if thing.speed else 0.0
    blocks.add(x(-0.3 + step, 0.15 + step), (-0.5, -0.08), z(0, 0.48), trousers)
    blocks.add(x(-0.3 - step, 0.15 - step), (0.08, 0.5), z(0, 0.48), trousers)
    blocks.add(x(-0.35, 0.35), (-0.6, 0.6), z(0.45, 0.84), shirt)
    for y in ((-0.95, -0.62), (0.62, 0.95)):
        blocks.add(x(-0.25, 0.3), y, z(0.46, 0.82), shirt)
    blocks.add(x(-0.3, 0.38), (-0.3, 0.3), z(0.85, 1.0), skin, roof=(30, 40, 50))


def _cycle(blocks: _Blocks, thing: Thing, dice: Dice) -> None:
    """A bicycle or a motorcycle, with a rider where it moves."""
    paint, motor = _paint(dice), thing.name == "motorcycle"
    thick = 0.22 if motor else 0.1
    high = 1.0 if not thing.speed else 0.62
    wheel = 0.42 * high if motor else 0.5 * high
    for x in (-0.68, 0.68):
        blocks.add((x - 0.3, x + 0.3), (-thick, thick), (0, wheel), _TYRE)
    if motor:
        blocks.add((-0.6, 0.5), (-0.4, 0.4), (0.3 * high, 0.72 * high), paint)
        blocks.add((0.4, 0.62), (-0.25, 0.25), (0.5 * high, high), paint)
    else:
        blocks.add((-0.6, 0.6), (-thick, thick), (0.42 * high, 0.58 * high), paint)
        blocks.add((-0.3, -0.1), (-thick, thick), (0.58 * high, 0.85 * high), _TYRE)
    blocks.add((0.45, 0.55), (-0.95, 0.95), (0.9 * high, high), _TYRE)
    if thing.speed:
        _person(blocks, thing, dice, 0.4, 0.45)


def _building(blocks: _Blocks, thing: Thing, dice: Dice) -> None:
    wall = colour(dice.uniform(0.0, 0.15), dice.uniform(0.08, 0.4), dice.uniform(0.4, 0.85))
    blocks.add((-1, 1), (-1, 1), (0, 1), wall, roof=_GREY, pattern=WINDOWS)


def _tree(blocks: _Blocks, thing: Thing, dice: Dice) -> None:
    leaves = colour(dice.uniform(0.2, 0.36), dice.uniform(0.4, 0.7), dice.uniform(0.25, 0.5))
    blocks.add((-0.12, 0.12), (-0.12, 0.12), (0, 0.45), (45, 65, 85))
    steps = ((0.7, 0.35), (1.0, 0.55), (0.8, 0.8), (0.3, 1.0))
    for (r, low), (s, high) in itertools.pairwise(steps):
        blocks.add((-r, r), (-r, r), (low, high), leaves, ((-s, s), (-s, s)), pattern=LEAVES)


def _lamp(blocks: _Blocks, thing: Thing, dice: Dice) -> None:
    blocks.add((-0.4, 0.4), (-0.4, 0.4), (0, 0.97), _GREY)
    toward = -math.copysign(6.0, thing.start[1])
    y = (min(0.0, toward), max(0.0, toward))
    blocks.add((-0.6, 0.6), y, (0.97, 1.0), _GREY)


_LOOKS: dict[str, Callable[[_Blocks, Thing, Dice], None]] = {
    "car": _car,
    "truck": _truck,
    "construction_vehicle": _construction,
    "bus": _bus,
    "trailer": _trailer,
    "barrier": _barrier,
    "motorcycle": _cycle,
    "bicycle": _cycle,
    "pedestrian": _person,
    "traffic_cone": _cone,
    "building": _building,
    "tree": _tree,
    "lamp": _lamp,
}
