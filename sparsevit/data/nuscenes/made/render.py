"""Paints what a camera sees: ground, sky, and faces with the nearest in front.

Every face is a plane, and over a plane the inverse depth is linear in the pixel, so a depth buffer
needs one multiplication a pixel and is exact. A pixel (x, y) of an image is the square from there
to (x + 1, y + 1), as image augmentation takes it; images are painted twice as large and then
shrunk.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import cv2
import numpy as np

from sparsevit.data import textures
from sparsevit.data.dice import Dice
from sparsevit.data.nuscenes.made import ground, shapes
from sparsevit.data.nuscenes.made.shapes import Faces

FINE = 2
"""How many pixels are painted for one, along each side."""
NEAR = 0.2
_SUN = np.array([0.45, 0.3, 0.84])
_FAR = 160.0
"""Metres after which haze has taken two thirds of a colour."""
_LEVELS = 3
_TILE = 32
_TILE_METRES = {shapes.WINDOWS: (3.2, 3.4), shapes.STRIPES: (1.6, 4.0), shapes.LEAVES: (1.3, 1.3)}


@dataclass(frozen=True)
class Camera:
    """A calibrated camera.

    Attributes:
        name: of its channel.
        rotation, translation: (3, 3) and (3,), from its frame (x right, y down, z ahead) to the
            car's.
        intrinsic: (3, 3).
        width, height: of its images, in pixels.
    """

    name: str
    rotation: np.ndarray
    translation: np.ndarray
    intrinsic: np.ndarray
    width: int
    height: int


@dataclass(frozen=True)
class Seen:
    """An image, and what is in it.

    Attributes:
        pixels: (height, width, 3) uint8, BGR.
        owners: (FINE x height, FINE x width) int, whose face is nearest; -1 for ground and sky.
        visible, whole: of each owner, the fine pixels where it is nearest, and those that it would
            have in this image if it were alone.
    """

    pixels: np.ndarray
    owners: np.ndarray
    visible: np.ndarray
    whole: np.ndarray


class View:
    """A camera with all that stays the same from scene to scene: its rays, and where they go.

    Attributes:
        size: (rows, columns) of what is painted.
        middles: y of the middles of its rows, and x of those of its columns.
        rays: x of the rays through its columns, and y of those through its rows, at depth 1.
        horizon: the first row that is ground.
        ground_depth: (rows - horizon, columns), of the ground.
    """

    def __init__(self, camera: Camera) -> None:
        self.camera = camera
        self.size = (FINE * camera.height, FINE * camera.width)
        self.focal = FINE * np.array([camera.intrinsic[0, 0], camera.intrinsic[1, 1]])
        self.centre = FINE * camera.intrinsic[:2, 2]
        self.middles = [np.arange(count, dtype=np.float32) + 0.5 for count in self.size]
        self.rays = [
            ((self.middles[1 - axis] - self.centre[axis]) / self.focal[axis]).astype(np.float32)
            for axis in (0, 1)
        ]
        rays = np.stack(np.meshgrid(*self.rays), axis=-1)
        rays = np.concatenate([rays, np.ones((*self.size, 1))], axis=-1) @ camera.rotation.T
        down = -rays[..., 2]
        # a camera stands upright: a row is ground as a whole, or not at all
        self.horizon = int((down.mean(axis=1) <= 1e-3).sum())
        below = rays[self.horizon :]
        away = camera.translation[2] / down[self.horizon :]
        self._ground = (below[..., :2] * away[..., None] + camera.translation[:2]).astype(
            np.float32
        )
        self.ground_depth = away.astype(np.float32)
        self._sky = self._sky_map(rays[: self.horizon])
        self._blend = self._levels(away.mean(axis=1))

    @staticmethod
    def _sky_map(rays: np.ndarray) -> np.ndarray:
        flat = np.hypot(rays[..., 0], rays[..., 1])
        around = np.degrees(np.arctan2(rays[..., 1], rays[..., 0])) % 360
        up = np.degrees(np.arctan2(rays[..., 2], flat)).clip(0, ground.SKY_DEGREES)
        scale = ground.SKY_PIXELS
        return np.stack([around, ground.SKY_DEGREES - up], axis=-1).astype(np.float32) * scale

    def _levels(self, depth: np.ndarray) -> list[tuple[slice, np.ndarray]]:
        """For each size of the ground's picture, the rows that take from it and how much."""
        cells = np.abs(np.gradient(depth)) / ground.CELL if len(depth) > 1 else np.ones(len(depth))
        level = (np.log(cells.clip(1)) / math.log(4)).clip(0, _LEVELS - 1)
        parts = []
        for number in range(_LEVELS):
            weight = (1 - np.abs(level - number)).clip(0, 1)
            rows = np.nonzero(weight)[0]
            span = slice(int(rows[0]), int(rows[-1]) + 1) if len(rows) else slice(0, 0)
            parts.append((span, weight[span, None, None].astype(np.float32)))
        return parts

    def backdrop(
        self, picture: Sequence[np.ndarray], sky: np.ndarray, car: tuple[float, float]
    ) -> np.ndarray:
        """Ground and sky: (rows, columns, 3) uint8.

        Args:
            picture: of the ground from above, in falling sizes.
            sky: the panorama.
            car: its (x, y) in the scene.
        """
        canvas = np.empty((*self.size, 3), np.uint8)
        left, low = ground.ground_origin()
        place = self._ground + np.array([car[0] - left, car[1] - low], np.float32)
        lower = np.zeros((*place.shape[:2], 3), np.float32)
        for number, (rows, weight) in enumerate(self._blend):
            if rows.stop > rows.start:
                cells = place[rows] / np.float32(ground.CELL * 4**number)
                lower[rows] += weight * _taken(picture[number], cells, cv2.BORDER_REFLECT)
        canvas[self.horizon :] = lower
        if self.horizon:
            canvas[: self.horizon] = _taken(sky, self._sky, cv2.BORDER_WRAP)
        return canvas


def _taken(picture: np.ndarray, places: np.ndarray, border: int) -> np.ndarray:
    """What a picture has at (rows, columns, 2) places x, y."""
    columns, rows = places[..., 0], places[..., 1]
    found = cv2.remap(picture, columns, rows, cv2.INTER_LINEAR, borderMode=border)
    return np.asarray(found)


def smaller(picture: np.ndarray) -> list[np.ndarray]:
    """A picture, and the same at a quarter of its sides, again and again."""
    sizes = [picture]
    for _ in range(_LEVELS - 1):
        rows, columns = sizes[-1].shape[:2]
        sizes.append(cv2.resize(sizes[-1], (columns // 4, rows // 4), interpolation=cv2.INTER_AREA))
    return sizes


def placed(faces: Faces, x: float, y: float, heading: float) -> Faces:
    """Faces of a thing where it stands."""
    cosine, sine = math.cos(heading), math.sin(heading)
    turned = faces.corners.copy()
    turned[..., 0] = faces.corners[..., 0] * cosine - faces.corners[..., 1] * sine + x
    turned[..., 1] = faces.corners[..., 0] * sine + faces.corners[..., 1] * cosine + y
    return Faces(turned, faces.colours, faces.patterns)


def shadow(width: float, length: float) -> Faces:
    """What a thing darkens of the ground: one face, in the thing's frame."""
    x, y = length / 2 + 0.12, width / 2 + 0.12
    face = [[(-x, -y, 0.0), (x, -y, 0.0), (x, y, 0.0), (-x, y, 0.0)]]
    return Faces(np.array(face), np.zeros((1, 3)), np.zeros(1, int))


def paint(
    view: View,
    backdrop: np.ndarray,
    haze: np.ndarray,
    things: Sequence[Faces],
    shadows: Sequence[Faces],
    dice: Dice,
) -> Seen:
    """Paints an image.

    Args:
        view: of the camera.
        backdrop: ground and sky; changed.
        haze: (3,) colour of what is far away.
        things: in the car's frame; the i-th owns its faces.
        shadows: on the ground.
        dice: for the camera's noise.
    """
    inverse = np.zeros(view.size, np.float32)
    inverse[view.horizon :] = 1 / view.ground_depth
    owners, touched = np.full(view.size, -1, np.int32), np.full(view.size, -1, np.int32)
    whole = np.zeros(len(things), np.int64)
    for face in _on_screen(view, shadows):
        area, inside = face.covered(view)
        part = backdrop[area]
        np.copyto(part, part // 2, where=inside[..., None])
    for face in _on_screen(view, things):
        area, inside = face.covered(view)
        new = inside & (touched[area] != face.owner)
        whole[face.owner] += np.count_nonzero(new)
        np.copyto(touched[area], face.owner, where=new)
        depth = face.inverse_depth(view, area)
        nearest = inside & (depth > inverse[area])
        if not nearest.any():
            continue
        np.copyto(inverse[area], depth, where=nearest)
        np.copyto(owners[area], face.owner, where=nearest)
        shade = face.colour
        if face.pattern:
            shade = np.minimum(shade * _patterned(view, face, area, depth), 255)
        np.copyto(backdrop[area], shade.astype(np.uint8), where=nearest[..., None])
    visible = np.bincount(owners[owners >= 0], minlength=len(things))
    return Seen(_photograph(backdrop, inverse, haze, view.camera, dice), owners, visible, whole)


@dataclass(frozen=True)
class _Face:
    """A face on the screen.

    Attributes:
        owner: number of its thing.
        corners: (4, 3) in the camera's frame.
        colour: (3,) BGR, as it is lit.
        pattern: of :class:`~sparsevit.data.nuscenes.made.shapes.Faces`.
        plane: (3,) such that its product with a ray is the inverse depth.
        edges: (k, 3) such that a x + b y + c is at least 0 for pixels inside.
        low, high: (2,) first pixels x and y, and those after the last.
    """

    owner: int
    corners: np.ndarray
    colour: np.ndarray
    pattern: int
    plane: np.ndarray
    edges: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def covered(self, view: View) -> tuple[tuple[slice, slice], np.ndarray]:
        """The part of the image about the face, and which pixels of it have their middle in it."""
        area = slice(self.low[1], self.high[1]), slice(self.low[0], self.high[0])
        xs, ys = view.middles[1][area[1]], view.middles[0][area[0]]
        a, b, c = self.edges.T[..., None]
        sides = (a * xs)[:, None, :] + (b * ys + c)[:, :, None]
        return area, sides.min(axis=0) >= 0

    def inverse_depth(self, view: View, area: tuple[slice, slice]) -> np.ndarray:
        """1 / depth at the pixels of an area."""
        x, y, z = self.plane
        across, down = x * view.rays[0][area[1]], y * view.rays[1][area[0]] + z
        inverse: np.ndarray = across + down[:, None]
        return inverse


def _on_screen(view: View, things: Sequence[Faces]) -> Iterator[_Face]:
    """The faces that look at a camera and may cover a pixel."""
    if not things:
        return
    camera = view.camera
    owner = np.repeat(np.arange(len(things)), [len(one.corners) for one in things])
    corners = np.concatenate([one.corners for one in things])
    colours = np.concatenate([one.colours for one in things])
    patterns = np.concatenate([one.patterns for one in things])
    diagonals = corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1]
    normals = np.cross(*diagonals)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-12)
    lit = ((0.62 + 0.38 * normals @ _SUN)[:, None] * colours).clip(0, 255).astype(np.float32)
    toward = (corners - camera.translation) @ camera.rotation
    away = -(normals * (corners[:, 0] - camera.translation)).sum(axis=1)
    depth = toward[:, :, 2]
    front = (away > 1e-6) & (depth > NEAR).any(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        flat = toward[:, :, :2] / depth[:, :, None] * view.focal + view.centre
        low, high = _pixels(view, flat)
        edges, planes = _edges(flat), normals @ camera.rotation / -away[:, None]
    cut = (depth <= NEAR).any(axis=1)
    for i in np.nonzero(front & (cut | (low < high).all(axis=1)))[0]:
        face = _Face(
            int(owner[i]), toward[i], lit[i], int(patterns[i]), planes[i], edges[i], low[i], high[i]
        )
        if cut[i]:
            part = _beyond_near(toward[i])
            flat = part[:, :2] / part[:, 2:] * view.focal + view.centre
            first, after = _pixels(view, flat)
            if (first >= after).any():
                continue
            face = replace(face, edges=_edges(flat), low=first, high=after)
        yield face


def _pixels(view: View, flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first pixels, and those after the last, whose middles are within (..., k, 2) points."""
    size = np.array(view.size[::-1])
    low = np.ceil(np.nan_to_num(flat.min(axis=-2)) - 0.5).clip(0, size)
    high = np.floor(np.nan_to_num(flat.max(axis=-2)) - 0.5).clip(-1, size - 1) + 1
    return low.astype(int), high.astype(int)


def _edges(flat: np.ndarray) -> np.ndarray:
    """(..., k, 3) half planes of convex polygons of (..., k, 2) corners."""
    after = np.roll(flat, -1, axis=-2)
    a, b = flat[..., 1] - after[..., 1], after[..., 0] - flat[..., 0]
    c = -(a * flat[..., 0] + b * flat[..., 1])
    turn = np.sign((flat[..., 0] * after[..., 1] - flat[..., 1] * after[..., 0]).sum(axis=-1))
    half_planes: np.ndarray = np.stack([a, b, c], axis=-1) * turn[..., None, None]
    return half_planes


def _beyond_near(corners: np.ndarray) -> np.ndarray:
    """The part of a convex face that is at depth :data:`NEAR` and beyond: (k, 3)."""
    depth = corners[:, 2] - NEAR
    kept: list[np.ndarray] = []
    for i in range(len(corners)):
        j = (i + 1) % len(corners)
        if depth[i] >= 0:
            kept.append(corners[i])
        if (depth[i] >= 0) != (depth[j] >= 0):
            share = depth[i] / (depth[i] - depth[j])
            kept.append(corners[i] + share * (corners[j] - corners[i]))
    return np.array(kept)


def _patterned(
    view: View, face: _Face, area: tuple[slice, slice], inverse: np.ndarray
) -> np.ndarray:
    """How bright a face's pattern is at the pixels of an area: (rows, columns, 1) float."""
    corners = face.corners
    xs, ys = view.rays[0][area[1]], view.rays[1][area[0]][:, None]
    depth = 1 / np.where(inverse > 1e-6, inverse, 1)
    cells = []
    axes = corners[1] - corners[0], corners[3] - corners[0]
    for axis, metres in zip(axes, _TILE_METRES[face.pattern], strict=True):
        length = float(np.linalg.norm(axis)) or 1.0
        # whole tiles on a face
        tiles = max(1, round(length / metres)) * _TILE / length**2
        x, y, z = axis * tiles
        along = (x * xs + (y * ys + z)) * depth - float(corners[0] @ axis) * tiles
        cells.append(along.astype(int) % _TILE)
    values: np.ndarray = _tiles()[face.pattern][-1 - cells[1], cells[0]][..., None]
    return values


@cache
def _tiles() -> dict[int, np.ndarray]:
    """Patterns that repeat: (_TILE, _TILE) brightness, the first row on top."""
    windows = np.ones((_TILE, _TILE), np.float32)
    windows[6:24, 7:25] = 0.38
    windows[6:24, 15:17] = 0.9
    windows[24:26, 6:26] = 1.15
    stripes = np.ones((_TILE, _TILE), np.float32)
    stripes[:, :3] = 0.86
    leaves = textures.clouds(_TILE, _TILE, Dice(0, 9), 8, octaves=3).astype(np.float32) / 128
    return {shapes.WINDOWS: windows, shapes.STRIPES: stripes, shapes.LEAVES: leaves.clip(0.4, 1.6)}


def _photograph(
    canvas: np.ndarray, inverse: np.ndarray, haze: np.ndarray, camera: Camera, dice: Dice
) -> np.ndarray:
    """What a camera makes of it: haze over what is far, an image of its size, exposure, noise."""
    image = cv2.resize(canvas, (camera.width, camera.height), interpolation=cv2.INTER_AREA)
    near = inverse[::FINE, ::FINE]
    # the sky has its own
    clear = np.where(near > 0, np.exp(-1 / (_FAR * near.clip(1e-4))), 1)[..., None]
    lit = image * clear + haze.astype(np.float32) * (1 - clear)
    gain, strength = dice.uniform(0.92, 1.08), dice.uniform(1, 4)
    noise = dice.bytes(2, camera.height, camera.width).astype(np.float32).sum(axis=0) - 255
    noisy = lit * gain + noise[..., None] * (strength / 128)
    pixels: np.ndarray = np.rint(noisy).clip(0, 255).astype(np.uint8)
    return pixels
