"""What is in a made scene: a road and a crossing, what drives, stands and walks there.

The scene's frame has x along the road, y to the left, z up from the ground, in metres; its origin
is where the car starts. Traffic keeps to the right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sparsevit.data.dice import Dice
from sparsevit.data.nuscenes.made.spec import FRAMES_A_SCENE, ScenesSpec

STEP = 0.5
"""Seconds between two samples, as nuScenes has them."""
AROUND = 62.0
"""How far there are objects about the car, in metres."""
LANES = (-1.75, -5.25, 1.75, 5.25)
"""y of the middles of lanes; the car drives in the first, those of positive y come towards it."""
ROAD = 7.0
"""Half the road's width."""
PARKING, PAVEMENT = (7.0, 9.4), (9.4, 13.4)
"""From and to which y, on both sides."""
CROSSING = 4.0
"""Half the width of the street that crosses."""

_SPLITS = ("train", "val")
_LAYOUT = 2  # 0 and 1 are those of images with shapes
_TRIES = 8

# width, length, height in metres, as nuScenes measures them
SIZES = {
    "car": (1.95, 4.62, 1.73),
    "truck": (2.51, 6.93, 2.84),
    "construction_vehicle": (2.85, 6.37, 3.19),
    "bus": (2.94, 10.5, 3.47),
    "trailer": (2.90, 11.3, 3.87),
    "barrier": (2.53, 0.50, 0.98),
    "motorcycle": (0.77, 2.11, 1.47),
    "bicycle": (0.60, 1.70, 1.28),
    "pedestrian": (0.67, 0.73, 1.77),
    "traffic_cone": (0.41, 0.41, 1.07),
}
_OFTEN = {
    "car": 8,
    "truck": 2,
    "construction_vehicle": 2,
    "bus": 2,
    "trailer": 2,
    "barrier": 3,
    "motorcycle": 2,
    "bicycle": 2,
    "pedestrian": 5,
    "traffic_cone": 3,
}
_DRIVES = {
    "car": 0.55,
    "truck": 0.6,
    "construction_vehicle": 0.0,
    "bus": 0.7,
    "trailer": 0.4,
    "motorcycle": 0.6,
    "bicycle": 0.6,
}
"""How often one of a class drives; else it is parked."""


@dataclass(frozen=True)
class Thing:
    """A thing that moves evenly, or not at all.

    Attributes:
        name: its class; ``building``, ``tree`` or ``lamp`` of scenery, which has no box.
        size: width, length, height in metres.
        start: (x, y) of its middle at time 0.
        heading: counter-clockwise from x, in radians.
        speed: along the heading, in m/s.
        look: key of the dice that its looks are drawn with.
    """

    name: str
    size: tuple[float, float, float]
    start: tuple[float, float]
    heading: float
    speed: float
    look: int

    @property
    def annotated(self) -> bool:
        return self.name in SIZES

    def at(self, seconds: float) -> tuple[float, float]:
        """(x, y) of its middle."""
        way = self.speed * seconds
        x, y = self.start
        return x + way * math.cos(self.heading), y + way * math.sin(self.heading)


@dataclass(frozen=True)
class World:
    """A scene before it is seen.

    Attributes:
        speed: of the car, along x from (0, LANES[0]).
        crossing: x of the middle of the street that crosses.
        things: in it; objects first, then scenery.
        turned, moved: where the scene is in the world: an angle, and the (x, y) of its origin.
    """

    speed: float
    crossing: float
    things: tuple[Thing, ...]
    turned: float
    moved: tuple[float, float]

    def car(self, seconds: float) -> tuple[float, float]:
        """(x, y) of the car."""
        return self.speed * seconds, LANES[0]


def stream(spec: ScenesSpec, split: str, number: int, *purpose: int) -> Dice:
    """The dice of a scene for a purpose."""
    return Dice(spec.seed, _SPLITS.index(split), number, *purpose)


def layout(spec: ScenesSpec, split: str, number: int) -> World:
    """What is in scene ``number`` of a split."""
    dice = stream(spec, split, number, _LAYOUT)
    speed = dice.uniform(3, 9)
    length = speed * STEP * FRAMES_A_SCENE
    crossing = dice.uniform(15, length + 25)
    lanes = [speed if y == LANES[0] else dice.uniform(3, 12) for y in LANES]
    things = [Thing("car", SIZES["car"], (0.0, LANES[0]), 0.0, speed, 0)]  # keeps its place free
    wanted = dice.integer(*spec.objects)
    reach = (-0.8 * AROUND, length + 0.8 * AROUND)
    for _ in range(_TRIES * wanted):
        if len(things) > wanted:
            break
        new = _draw(spec, dice, len(things), reach, crossing, lanes)
        if not _hits(new, things):
            things.append(new)
    scenery = _scenery(dice, (reach[0] - 25, reach[1] + 25), crossing, len(things))
    moved = (round(dice.uniform(300, 1700), 3), round(dice.uniform(300, 1700), 3))
    return World(speed, crossing, (*things[1:], *scenery), dice.uniform(0, math.tau), moved)


def _draw(
    spec: ScenesSpec,
    dice: Dice,
    look: int,
    reach: tuple[float, float],
    crossing: float,
    lanes: list[float],
) -> Thing:
    """An object somewhere; it may hit others."""
    name = dice.pick([one for one in spec.classes for _ in range(_OFTEN[one])])
    grown = dice.uniform(0.88, 1.12)
    width, length, height = (
        round(side * grown * dice.uniform(0.95, 1.05), 3) for side in SIZES[name]
    )
    x, y, heading, speed = dice.uniform(*reach), 0.0, 0.0, 0.0
    side = dice.pick((-1, 1))
    if dice.chance(_DRIVES.get(name, 0.0)):
        if dice.chance(0.15):
            # on the street that crosses: going away, or waiting to come
            heading, end = side * math.pi / 2, dice.pick((-1, 1))
            x, y = crossing + side * CROSSING / 2, end * dice.uniform(ROAD + length / 2 + 1, 45)
            speed = dice.uniform(3, 8) if end == side else 0.0
        else:
            lane = dice.integer(0, len(LANES) - 1)
            y, speed = LANES[lane], lanes[lane]
            heading = 0.0 if y < 0 else math.pi
            if name == "bicycle":
                y, speed = math.copysign(ROAD - 0.9, y), min(speed, 5.0)
    elif name == "pedestrian":
        y = side * dice.uniform(PAVEMENT[0] + 0.5, PAVEMENT[1] - 0.5)
        heading, speed = dice.uniform(0, math.tau), 0.0
        if dice.chance(0.6):
            heading, speed = dice.pick((0.0, math.pi)), dice.uniform(0.8, 1.8)
    elif name in ("traffic_cone", "barrier"):
        y = side * dice.uniform(ROAD - 0.6, PARKING[1] - 0.5)
        heading = dice.pick((0.0, math.pi / 2)) + dice.uniform(-0.2, 0.2)
    else:
        y = side * (sum(PARKING) / 2 + max(0.0, width / 2 - 1.1))
        heading = (0.0 if side < 0 else math.pi) + dice.uniform(-0.05, 0.05)
        if name in ("bicycle", "motorcycle"):
            y, heading = side * dice.uniform(*PAVEMENT), dice.uniform(0, math.tau)
    size, start = (width, length, height), (round(x, 3), round(y, 3))
    return Thing(name, size, start, round(heading, 5), round(speed, 3), look)


def _scenery(dice: Dice, reach: tuple[float, float], crossing: float, look: int) -> list[Thing]:
    """Houses along both sides of the road, trees and lamps before them."""
    things: list[Thing] = []
    for side in (-1, 1):
        x = reach[0]
        while x < reach[1]:
            length, depth = dice.uniform(10, 24), dice.uniform(8, 14)
            middle = (x + length / 2, side * (PAVEMENT[1] + 2.5 + depth / 2))
            free = abs(middle[0] - crossing) > length / 2 + CROSSING + 3
            if free and dice.chance(0.8):
                size = (depth, length, dice.uniform(6, 18))
                things.append(Thing("building", size, middle, 0.0, 0.0, look + len(things)))
            x += length + dice.uniform(1, 9)
        x = reach[0]
        while x < reach[1]:
            x += dice.uniform(8, 18)
            if abs(x - crossing) < CROSSING + 2:
                continue
            name = "tree" if dice.chance(0.7) else "lamp"
            size = (2.6, 2.6, dice.uniform(4, 7)) if name == "tree" else (0.3, 0.3, 6.5)
            place = (x, side * (PAVEMENT[1] + 0.6))
            things.append(Thing(name, size, place, 0.0, 0.0, look + len(things)))
    return things


def _hits(new: Thing, things: list[Thing]) -> bool:
    """Whether a thing touches another at the time of a sample."""
    seconds = np.arange(FRAMES_A_SCENE) * STEP
    old = np.array([_tracks(one, seconds) for one in things])
    here = _tracks(new, seconds)
    gaps = np.abs(old[:, :, :2] - here[:, :2]) - (old[:, :, 2:] + here[:, 2:])
    return bool((gaps.max(axis=2) < 0.3).any())


def _tracks(thing: Thing, seconds: np.ndarray) -> np.ndarray:
    """(n, 4): middle, and half the sides of the upright rectangle around it."""
    cosine, sine = math.cos(thing.heading), math.sin(thing.heading)
    width, length, _ = thing.size
    half = (
        (length * abs(cosine) + width * abs(sine)) / 2,
        (length * abs(sine) + width * abs(cosine)) / 2,
    )
    way = thing.speed * seconds
    return np.stack(
        [
            thing.start[0] + way * cosine,
            thing.start[1] + way * sine,
            np.full(len(seconds), half[0]),
            np.full(len(seconds), half[1]),
        ],
        axis=1,
    )
