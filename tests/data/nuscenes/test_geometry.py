"""Frames of boxes and cameras: round trips, and the meaning of a yaw."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from sparsevit.data.nuscenes import geometry

metres = st.floats(-60, 60)
sides = st.floats(0.2, 12)
angles = st.floats(-7, 7)
box = st.tuples(metres, metres, metres, sides, sides, sides, angles, metres, metres)
boxes = st.lists(box, max_size=5).map(lambda rows: np.array(rows, float).reshape(-1, 9))
upright = st.tuples(angles, metres, metres, metres)


def placed(angle: float, x: float, y: float, z: float) -> np.ndarray:
    return geometry.pose(np.array([math.cos(angle / 2), 0, 0, math.sin(angle / 2)]), (x, y, z))


@given(boxes, upright)
def test_boxes_come_back_from_the_world(found: np.ndarray, where: tuple[float, ...]) -> None:
    lidar2global = placed(*where)
    centres, sizes, rotations, velocities = geometry.to_global(found, lidar2global)
    quaternions = geometry.quaternions_of(rotations)
    back = geometry.to_lidar(centres, sizes, quaternions, velocities, lidar2global)
    assert back.shape == found.shape
    turned = (back[:, 6] - found[:, 6] + np.pi) % (2 * np.pi) - np.pi
    np.testing.assert_allclose(turned, 0, atol=1e-9)
    back[:, 6] = found[:, 6]
    np.testing.assert_allclose(back, found, atol=1e-9)


@given(boxes, upright)
def test_corners_are_those_of_the_box_in_the_world(
    found: np.ndarray, where: tuple[float, ...]
) -> None:
    lidar2global = placed(*where)
    centres, sizes, rotations, _ = geometry.to_global(found, lidar2global)
    for i, corners in enumerate(geometry.corners(found)):
        seen = corners @ lidar2global[:3, :3].T + lidar2global[:3, 3]
        own = (seen - centres[i]) @ rotations[
            i
        ]  # length along x, width along y, as nuScenes has it
        width, length, height = sizes[i]
        np.testing.assert_allclose(
            np.abs(own), [[length / 2, width / 2, height / 2]] * 8, atol=1e-8
        )
        assert own[[0, 1, 4, 5], 0].min() > 0  # the front


@pytest.mark.parametrize(
    ("heading", "yaw"), [(0.0, -math.pi / 2), (math.pi / 2, -math.pi), (-math.pi / 2, 0.0)]
)
def test_a_yaw_is_that_of_mmdetection3d_0(heading: float, yaw: float) -> None:
    rotation = np.array([[math.cos(heading / 2), 0, 0, math.sin(heading / 2)]])
    zero = np.zeros((1, 3))
    found = geometry.to_lidar(zero, zero + 1, rotation, np.zeros((1, 2)), np.eye(4))
    assert found[0, 6] == pytest.approx(yaw)


@given(boxes.filter(len), angles, metres)
def test_a_pixel_and_its_depth_give_the_point_back(
    found: np.ndarray, angle: float, height: float
) -> None:
    cam2lidar = np.eye(4)
    cam2lidar[:3, :3] = Rotation.from_euler("xyz", [angle, 0.3, 1.1]).as_matrix()
    cam2lidar[:3, 3] = [1, -2, height]
    intrinsic = np.array([[300.0, 0, 160], [0, 310, 90], [0, 0, 1]])
    corners = geometry.corners(found)
    pixels, depth = geometry.project(corners, cam2lidar, intrinsic)
    rays = np.concatenate([pixels, np.ones_like(depth)[..., None]], axis=-1)
    points = (rays * depth[..., None]) @ np.linalg.inv(intrinsic).T
    back = points @ cam2lidar[:3, :3].T + cam2lidar[:3, 3]
    kept = np.abs(depth) > 1e-3
    np.testing.assert_allclose(back[kept], corners[kept], atol=1e-6)
