"""Boxes and cameras in three frames: the world, the lidar, an image.

A box in the lidar's frame is a row (x, y, z, w, l, h, yaw, vx, vy): its centre and size in metres,
its velocity in m/s. The yaw is that of mmdetection3d 0.17: clockwise seen from above, and 0 where
the box is long in y. So a box that heads along the angle ``a``, counter-clockwise from x, has the
yaw ``-a - pi/2``.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

# Signs of x (w), y (l) and z (h) of a box's corners: the bottom's four around, then the top's.
_CORNERS = np.array(
    [(x, y, z) for z in (-1, 1) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))], np.float64
)
EDGES = (
    *((0, 1), (1, 2), (2, 3), (3, 0)),
    *((4, 5), (5, 6), (6, 7), (7, 4)),
    *((0, 4), (1, 5), (2, 6), (3, 7)),
)
"""Pairs of :func:`corners` that an edge joins."""


def rotation_matrices(quaternions: np.ndarray) -> np.ndarray:
    """(..., 3, 3) rotations of (..., 4) quaternions (w, x, y, z) of any length but 0."""
    flat = np.asarray(quaternions, np.float64).reshape(-1, 4)
    if not len(flat):
        return np.zeros((0, 3, 3))
    return (
        Rotation.from_quat(flat[:, [1, 2, 3, 0]]).as_matrix().reshape(*quaternions.shape[:-1], 3, 3)
    )


def quaternions_of(matrices: np.ndarray) -> np.ndarray:
    """(n, 4) unit quaternions (w, x, y, z) of (n, 3, 3) rotations."""
    if not len(matrices):
        return np.zeros((0, 4))
    return Rotation.from_matrix(matrices).as_quat()[:, [3, 0, 1, 2]]


def pose(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """The (4, 4) matrix that takes points of a frame to the one in which it is placed.

    Args:
        rotation: (4,) quaternion (w, x, y, z).
        translation: (3,) metres.
    """
    matrix = np.eye(4)
    matrix[:3, :3] = rotation_matrices(np.asarray(rotation))
    matrix[:3, 3] = translation
    return matrix


def about_z(angles: np.ndarray) -> np.ndarray:
    """(n, 3, 3) rotations by (n,) angles in radians, counter-clockwise seen from above."""
    cosine, sine = np.cos(angles), np.sin(angles)
    matrices = np.zeros((len(angles), 3, 3))
    matrices[:, 0, 0] = matrices[:, 1, 1] = cosine
    matrices[:, 1, 0], matrices[:, 0, 1] = sine, -sine
    matrices[:, 2, 2] = 1
    return matrices


def to_lidar(
    centres: np.ndarray,
    sizes: np.ndarray,
    rotations: np.ndarray,
    velocities: np.ndarray,
    lidar2global: np.ndarray,
) -> np.ndarray:
    """Annotated boxes as rows in the lidar's frame.

    Args:
        centres: (n, 3) in the world.
        sizes: (n, 3) width, length, height.
        rotations: (n, 4) quaternions.
        velocities: (n, 2) in the world.
        lidar2global: (4, 4).

    Returns:
        (n, 9) float64.
    """
    turn = lidar2global[:3, :3].T
    turned = turn @ rotation_matrices(rotations)
    # the first of the angles of z, y, x; a box is not quite upright where the lidar is tilted
    heading = np.arctan2(-turned[:, 0, 1], turned[:, 0, 0])
    flat = np.concatenate([velocities, np.zeros((len(velocities), 1))], axis=1)
    return np.concatenate(
        [
            (centres - lidar2global[:3, 3]) @ turn.T,
            sizes,
            (-heading - np.pi / 2)[:, None],
            (flat @ turn.T)[:, :2],
        ],
        axis=1,
    )


def to_global(
    boxes: np.ndarray, lidar2global: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Centres (n, 3), sizes (n, 3), rotations (n, 3, 3) and velocities (n, 2) in the world.

    Args:
        boxes: (n, 9) rows in the lidar's frame.
        lidar2global: (4, 4).
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 9)
    turn = lidar2global[:3, :3]
    flat = np.concatenate([boxes[:, 7:9], np.zeros((len(boxes), 1))], axis=1)
    return (
        boxes[:, :3] @ turn.T + lidar2global[:3, 3],
        boxes[:, 3:6],
        turn @ about_z(-boxes[:, 6] - np.pi / 2),
        (flat @ turn.T)[:, :2],
    )


def headings(rotations: np.ndarray) -> np.ndarray:
    """(n,) angles in the plane of what (n, 3, 3) rotations make of x."""
    return np.arctan2(rotations[:, 1, 0], rotations[:, 0, 0])


def corners(boxes: np.ndarray) -> np.ndarray:
    """(n, 8, 3) corners of (n, 9) rows, in the same frame; the front is the side of 0, 1, 4, 5."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 9)
    own = _CORNERS * boxes[:, None, 3:6] / 2
    return own @ about_z(-boxes[:, 6]).transpose(0, 2, 1) + boxes[:, None, :3]


def project(
    points: np.ndarray, cam2lidar: np.ndarray, intrinsic: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where points are in an image.

    Args:
        points: (..., 3) in the lidar's frame.
        cam2lidar: (4, 4).
        intrinsic: (3, 3).

    Returns:
        (..., 2) pixels, and (...) depths in metres; those at depth 0 or behind are not in the
        image.
    """
    seen = (points - cam2lidar[:3, 3]) @ cam2lidar[:3, :3]
    flat = seen @ intrinsic.T
    depth = seen[..., 2]
    away = np.where(np.abs(depth) < 1e-9, 1e-9, depth)
    return flat[..., :2] / away[..., None], depth
