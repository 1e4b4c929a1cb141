"""The pipeline: where a pixel goes, where a box goes, and that both still meet."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.registry import TRANSFORMS
from mmengine.registry import FUNCTIONS
from PIL import Image

import sparsevit.data.nuscenes.registered  # noqa: F401
from sparsevit.data.nuscenes import geometry, transforms
from sparsevit.data.nuscenes.dataset import data_info
from sparsevit.data.nuscenes.names import CAMERAS, CLASSES
from sparsevit.data.nuscenes.tables import Frame
from sparsevit.errors import UserError

CONFIG = {
    "cams": list(CAMERAS),
    "Ncams": 6,
    "input_size": (32, 64),
    "src_size": (54, 96),
    "resize": (-0.06, 0.11),
    "rot": (-5.4, 5.4),
    "flip": True,
    "crop_h": (0.0, 0.0),
    "resize_test": 0.04,
}


def loaded(frame: Frame, **options: Any) -> dict[str, Any]:
    step = {"type": "LoadMultiViewImageFromFiles_BEVDet", "data_config": CONFIG, **options}
    return TRANSFORMS.build(step).transform(data_info(frame, CLASSES))


def in_input(results: dict[str, Any], points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of the input, and depths, of points in the lidar's frame: (6, n, 2) and (6, n)."""
    rows = []
    for i in range(6):
        cam2lidar = np.eye(4)
        cam2lidar[:3, :3] = results["rots"][i].numpy()
        cam2lidar[:3, 3] = results["trans"][i].numpy()
        # a mirrored or scaled scene has no rotation here, but an inverse
        seen = (points - cam2lidar[:3, 3]) @ np.linalg.inv(cam2lidar[:3, :3]).T
        flat = seen @ results["intrins"][i].double().numpy().T
        pixels = np.concatenate([flat[:, :2] / flat[:, 2:], np.ones((len(flat), 1))], axis=1)
        moved = pixels @ results["post_rots"][i].double().numpy().T
        rows.append((moved + results["post_trans"][i].double().numpy(), flat[:, 2:]))
    return np.stack([row[0][:, :2] for row in rows]), np.stack([row[1][:, 0] for row in rows])


def test_the_forms_are_those_of_models(frames: tuple[Frame, ...]) -> None:
    results = TRANSFORMS.build({"type": "Pack3DDetInputs"}).transform(loaded(frames[0]))
    inputs, sample = results["inputs"], results["data_samples"]
    assert inputs["imgs"].dtype == torch.uint8
    assert {key: tuple(value.shape) for key, value in inputs.items()} == {
        "imgs": (6, 3, 32, 64),
        "rots": (6, 3, 3),
        "trans": (6, 3),
        "intrins": (6, 3, 3),
        "post_rots": (6, 3, 3),
        "post_trans": (6, 3),
    }
    assert {value.dtype for key, value in inputs.items() if key != "imgs"} == {torch.float32}
    real = sample.gt_instances_3d
    assert real.bboxes_3d.shape == (len(real.labels_3d), 9)
    assert real.bboxes_3d.dtype == torch.float32
    assert sample.sample_token == frames[0].token
    assert len(sample.img_paths) == 6
    np.testing.assert_array_equal(sample.bev_augmentation, np.eye(4))
    batch = FUNCTIONS.get("collate_samples")([results, results])
    assert batch["inputs"] == [inputs, inputs]
    assert batch["data_samples"][1] is sample


def test_in_testing_the_middle_below_is_cut_out(frames: tuple[Frame, ...]) -> None:
    results = loaded(frames[0])
    scale = 64 / 96 + 0.04
    width, height = int(96 * scale), int(54 * scale)
    expected = [-((width - 64) // 2), -(height - 32), 0]
    np.testing.assert_allclose(results["post_rots"][0], np.diag([scale, scale, 1]), atol=1e-6)
    np.testing.assert_allclose(results["post_trans"][0], expected, atol=1e-6)


def test_in_training_every_image_is_changed_by_itself(frames: tuple[Frame, ...]) -> None:
    np.random.seed(0)
    results = loaded(frames[0], is_train=True)
    determinants = np.linalg.det(results["post_rots"].numpy())
    assert (determinants > 0).any()
    assert (determinants < 0).any()  # half are mirrored
    assert len(set(np.abs(determinants).round(6))) == 6
    fewer = loaded(frames[0], is_train=True, data_config={**CONFIG, "Ncams": 4})
    assert fewer["imgs"].shape[0] == fewer["rots"].shape[0] == 4


@settings(max_examples=40)
@given(
    st.floats(0.5, 1.4),
    st.integers(0, 20),
    st.integers(0, 20),
    st.booleans(),
    st.floats(-6, 6),
    st.tuples(st.integers(30, 70), st.integers(20, 40)),
)
def test_a_pixel_goes_where_the_matrix_says(
    scale: float, left: int, top: int, flip: bool, degrees: float, place: tuple[int, int]
) -> None:
    """A soft spot in a dark image has its middle of mass where it should be."""
    x, y = place
    xs, ys = np.arange(100)[None, :] + 0.5, np.arange(60)[:, None] + 0.5
    spot = 250 * np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / 18)
    image = Image.fromarray(spot.astype(np.uint8)).convert("RGB")
    resized = int(100 * scale), int(60 * scale)
    drawn = scale, resized, (left, top, left + 90, top + 60), flip, degrees
    matrix, shift = transforms.pixel_matrix(*drawn)
    expected = matrix @ [x, y] + shift
    if not (14 < expected[0] < 76 and 14 < expected[1] < 46):
        return  # partly cut off
    seen = np.array(transforms.changed(image, *drawn), float)[..., 0]
    rows, columns = np.mgrid[: seen.shape[0], : seen.shape[1]] + 0.5
    found = (seen * columns).sum() / seen.sum(), (seen * rows).sum() / seen.sum()
    # the size is rounded down to whole pixels, as in BEVDet
    assert np.hypot(*(np.array(found) - expected)) < 1.6


@settings(max_examples=25)
@given(st.integers(0, 10**6))
def test_augmentation_keeps_boxes_where_they_are_in_the_images(
    frames: tuple[Frame, ...], seed: int
) -> None:
    """Boxes turn, cameras turn with them: every corner stays at its pixel, at a scaled depth."""
    np.random.seed(seed)
    plain = loaded(frames[seed % len(frames)], is_train=True)
    pixels, depths = in_input(plain, geometry.corners(plain["gt_bboxes_3d"]).reshape(-1, 3))
    turn = {
        "type": "GlobalRotScaleTrans",
        "rot_range": [-0.3925, 0.3925],
        "translation_std": [1] * 3,
    }
    moved = TRANSFORMS.build(turn).transform(plain)
    moved = TRANSFORMS.build({"type": "RandomFlip3D"}).transform(moved)
    corners = geometry.corners(moved["gt_bboxes_3d"])
    matrix = moved["bev_augmentation"]
    if np.linalg.det(matrix[:2, :2]) < 0:
        corners = corners[:, [1, 0, 3, 2, 5, 4, 7, 6]]  # what was left is right now
    again, deeper = in_input(moved, corners.reshape(-1, 3))
    ahead = depths > 1
    np.testing.assert_allclose(again[ahead], pixels[ahead], atol=0.05, rtol=1e-4)
    np.testing.assert_allclose(deeper[ahead], depths[ahead], atol=1e-3, rtol=1e-4)


def boxes_of(seed: int) -> np.ndarray:
    return np.random.RandomState(seed).uniform(-3, 3, (20, 9)).astype(np.float32)


def test_flips_are_those_of_mmdetection3d_0() -> None:
    boxes = boxes_of(0)
    for key, signs in (("horizontal", (1, -1)), ("vertical", (-1, 1))):
        moved = transforms.moved_boxes(boxes, np.diag([*signs, 1.0, 1.0]))
        expected = boxes.copy()
        expected[:, [0, 7]] *= signs[0]
        expected[:, [1, 8]] *= signs[1]
        expected[:, 6] = -boxes[:, 6] + (math.pi if key == "horizontal" else 0)
        assert_same_boxes(moved, expected)


def test_turns_and_scales_are_those_of_mmdetection3d_0() -> None:
    boxes, angle, scale = boxes_of(1), 0.3, 1.05
    turn = TRANSFORMS.build(
        {
            "type": "GlobalRotScaleTrans",
            "rot_range": [angle, angle],
            "scale_ratio_range": [scale, scale],
        }
    )
    results = {"gt_bboxes_3d": boxes, "rots": torch.eye(3)[None], "trans": torch.zeros(1, 3)}
    moved = turn.transform(results)["gt_bboxes_3d"]
    cosine, sine = math.cos(angle), math.sin(angle)
    transposed = np.array([[cosine, -sine], [sine, cosine]])
    expected = boxes.copy()
    expected[:, :2] = boxes[:, :2] @ transposed
    expected[:, 7:] = boxes[:, 7:] @ transposed
    expected[:, [0, 1, 2, 3, 4, 5, 7, 8]] *= scale
    expected[:, 6] += angle
    assert_same_boxes(moved, expected)


def assert_same_boxes(found: np.ndarray, expected: np.ndarray) -> None:
    turned = transforms.within_half_turn(found[:, 6] - expected[:, 6])
    np.testing.assert_allclose(turned, 0, atol=1e-5)
    assert np.abs(found[:, 6]).max() <= math.pi + 1e-6
    rest = [0, 1, 2, 3, 4, 5, 7, 8]
    np.testing.assert_allclose(found[:, rest], expected[:, rest], atol=1e-5)


def test_filters_leave_out_what_is_outside_and_what_is_no_class() -> None:
    boxes = np.zeros((4, 9), np.float32)
    boxes[:, 0] = [0, 51, 52, -52]
    results: dict[str, Any] = {"gt_bboxes_3d": boxes, "gt_labels_3d": np.array([-1, 2, 3, 4])}
    reach = {"type": "ObjectRangeFilter", "point_cloud_range": [-51.2, -51.2, -5, 51.2, 51.2, 3]}
    assert list(TRANSFORMS.build(reach).transform(results)["gt_labels_3d"]) == [-1, 2]
    named = TRANSFORMS.build({"type": "ObjectNameFilter", "classes": CLASSES})
    assert list(named.transform(results)["gt_labels_3d"]) == [2]
    assert len(results["gt_bboxes_3d"]) == 1


@pytest.mark.parametrize("content", [None, b"", b"no image"])
def test_an_image_that_cannot_be_read_is_named(
    frames: tuple[Frame, ...], tmp_path: Path, content: bytes | None
) -> None:
    info = data_info(frames[0], CLASSES)
    info["img_paths"][2] = str(tmp_path / "broken.jpg")
    if content is not None:
        (tmp_path / "broken.jpg").write_bytes(content)
    step = TRANSFORMS.build({"type": "LoadMultiViewImageFromFiles_BEVDet", "data_config": CONFIG})
    with pytest.raises(UserError, match=r"broken\.jpg (cannot be read|is)"):
        step.transform(info)
