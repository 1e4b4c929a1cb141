"""What is wrong with tables is said in one sentence."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparsevit.cli.main import main
from sparsevit.data.nuscenes import geometry
from sparsevit.data.nuscenes.dataset import data_info
from sparsevit.data.nuscenes.made.spec import VERSION
from sparsevit.data.nuscenes.names import CAMERAS, CLASSES, VALIDATION_SCENES
from sparsevit.data.nuscenes.tables import (
    TABLES,
    Frame,
    check_images,
    find_version,
    official_split,
    read_frames,
    scenes_of,
)
from sparsevit.errors import UserError


@pytest.fixture
def copied(root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(root, tmp_path / "copy"))


def rewrite(root: Path, table: str, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    path = root / VERSION / f"{table}.json"
    rows = json.loads(path.read_text(encoding="utf-8"))
    changed = change(rows)
    path.write_text(json.dumps(rows if changed is None else changed), encoding="utf-8")


def test_frames_come_in_time_with_six_cameras(frames: tuple[Frame, ...]) -> None:
    assert [frame.timestamp for frame in frames] == sorted(frame.timestamp for frame in frames)
    assert len(frames) == 14
    for frame in frames:
        assert [path.parent.name for path in frame.images] == list(CAMERAS)
        assert frame.cam2lidar.shape == (6, 4, 4)
        turns = frame.cam2lidar[:, :3, :3]
        np.testing.assert_allclose(turns @ turns.transpose(0, 2, 1), [np.eye(3)] * 6, atol=1e-12)
    check_images(frames)


def test_a_camera_of_a_later_moment_is_seen_by_way_of_the_world(copied: Path) -> None:
    """The car has gone 2 m further when the camera is triggered."""
    before = read_frames(copied, VERSION, "val")[0]
    rows = json.loads((copied / VERSION / "sample_data.json").read_text(encoding="utf-8"))
    poses = json.loads((copied / VERSION / "ego_pose.json").read_text(encoding="utf-8"))
    row = next(
        r for r in rows if r["sample_token"] == before.token and "CAM_BACK__" in r["filename"]
    )
    later = dict(next(pose for pose in poses if pose["token"] == row["ego_pose_token"]))
    ahead = before.ego2global[:3, 0] * 2
    later |= {"token": "later", "translation": list(np.add(later["translation"], ahead))}
    row["ego_pose_token"] = "later"
    (copied / VERSION / "sample_data.json").write_text(json.dumps(rows), encoding="utf-8")
    (copied / VERSION / "ego_pose.json").write_text(json.dumps([*poses, later]), encoding="utf-8")
    after = read_frames(copied, VERSION, "val")[0]
    moved = after.cam2lidar[:, :3, 3] - before.cam2lidar[:, :3, 3]
    expected = np.zeros((6, 3))
    expected[CAMERAS.index("CAM_BACK"), 1] = 2  # ahead is y in the lidar's frame
    np.testing.assert_allclose(moved, expected, atol=1e-9)


def test_velocities_are_those_of_centred_differences(root: Path) -> None:
    frame = read_frames(root, VERSION, "val")[4]
    speeds = np.linalg.norm(frame.annotations.velocities, axis=1)
    moving = np.array([a.endswith(("moving", "with_rider")) for a in frame.annotations.attributes])
    known = ~np.isnan(speeds)
    assert (speeds[known & ~moving] < 1e-6).all()
    assert (speeds[known & moving] > 0.5).all()
    assert moving.any()
    assert (~moving).any()


def test_the_devkit_reads_the_same(root: Path, frames: tuple[Frame, ...]) -> None:
    devkit = pytest.importorskip("nuscenes.nuscenes")
    tables = devkit.NuScenes(VERSION, str(root), verbose=False)
    assert len(tables.sample) == 17
    for frame in frames:
        sample = tables.get("sample", frame.token)
        _, lidar_boxes, _ = tables.get_sample_data(sample["data"]["LIDAR_TOP"])
        velocities = [tables.box_velocity(token)[:2] for token in sample["anns"]]
        np.testing.assert_allclose(frame.annotations.velocities, velocities)
        ours = data_info(frame, CLASSES, valid_only=False)
        boxes = ours["gt_bboxes_3d"]
        for box, theirs in zip(boxes, lidar_boxes, strict=True):
            np.testing.assert_allclose(box[:3], theirs.center, atol=1e-4)
            np.testing.assert_allclose(box[3:6], theirs.wlh, atol=1e-6)
            heading = theirs.orientation.yaw_pitch_roll[0]
            np.testing.assert_allclose(np.cos(box[6] + heading + np.pi / 2), 1, atol=1e-6)
        for camera, name in enumerate(CAMERAS):
            token = sample["data"][name]
            path, camera_boxes, intrinsic = tables.get_sample_data(token, box_vis_level=0)
            assert str(path) == str(frame.images[camera])
            np.testing.assert_allclose(frame.intrinsics[camera], intrinsic)
            by_token = {box.token: box for box in camera_boxes}
            for row, annotation in enumerate(sample["anns"]):
                if annotation not in by_token:
                    continue
                _, depth = geometry.project(
                    boxes[row, :3], frame.cam2lidar[camera], frame.intrinsics[camera]
                )
                assert depth == pytest.approx(by_token[annotation].center[2], abs=1e-3)


def test_the_devkit_has_the_same_splits() -> None:
    splits = pytest.importorskip("nuscenes.utils.splits")
    assert VALIDATION_SCENES["v1.0-trainval"] == set(splits.val)
    assert VALIDATION_SCENES["v1.0-mini"] == set(splits.mini_val)
    assert not VALIDATION_SCENES["v1.0-trainval"] & set(splits.train)


def test_splits_are_those_of_the_version(root: Path, copied: Path) -> None:
    assert len(VALIDATION_SCENES["v1.0-trainval"]) == 150
    assert official_split("v1.0-mini", "val") == "mini_val"
    assert official_split("v1.0-trainval", "val") == "val"
    assert scenes_of(root, VERSION, "val", ()) == {"made-val-0000", "made-val-0001"}
    assert scenes_of(root, VERSION, "made_val", ()) == scenes_of(root, VERSION, "val", ())
    (copied / VERSION).rename(copied / "v1.0-mini")
    names = {"scene-0103", "scene-0061"}
    assert scenes_of(copied, "v1.0-mini", "val", names) == {"scene-0103"}
    assert scenes_of(copied, "v1.0-mini", "train", names) == {"scene-0061"}


def test_the_version_is_found(root: Path, copied: Path, tmp_path: Path) -> None:
    assert find_version(root) == VERSION
    shutil.copytree(copied / VERSION, copied / "v1.0-mini")
    with pytest.raises(UserError, match="several versions"):
        find_version(copied)
    with pytest.raises(UserError, match="no folder of nuScenes tables"):
        find_version(tmp_path)
    with pytest.raises(UserError, match="There is no nuScenes folder"):
        find_version(tmp_path / "missing")


def without(key: str) -> Callable[[list[dict[str, Any]]], Any]:
    return lambda rows: rows[0].pop(key) and None


def with_value(key: str, value: object) -> Callable[[list[dict[str, Any]]], Any]:
    return lambda rows: rows[0].update({key: value})


CAMERA_ROW = 1  # of calibrated sensors; the first is the lidar

MISTAKES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "unknown version": (
        lambda root: (root / VERSION).rename(root / "v1.0-other"),
        f"no version '{VERSION}' in .*: it has v1.0-other",
    ),
    "no table": (
        lambda root: (root / VERSION / "ego_pose.json").unlink(),
        "There is no table .*ego_pose.json",
    ),
    "damaged json": (
        lambda root: (root / VERSION / "sample.json").write_text('[{"token": "a"', "utf-8"),
        "sample.json is not valid JSON",
    ),
    "no list": (lambda root: rewrite(root, "scene", lambda rows: {"a": 1}), "no list of records"),
    "a list of numbers": (lambda root: rewrite(root, "scene", lambda rows: [1]), "no list of rec"),
    "no token": (lambda root: rewrite(root, "scene", without("token")), "has no 'token'"),
    "no field": (lambda root: rewrite(root, "sample", without("timestamp")), "has no 'timestamp'"),
    "no such record": (
        lambda root: rewrite(root, "sample", with_value("scene_token", "gone")),
        "scene.json has no record gone",
    ),
    "no splits": (
        lambda root: (root / VERSION / "splits.json").unlink(),
        "no list of the scenes of the split 'val'",
    ),
    "another split": (
        lambda root: (root / VERSION / "splits.json").write_text('{"other": []}', "utf-8"),
        "has no split 'val'",
    ),
    "an empty split": (
        lambda root: (root / VERSION / "splits.json").write_text('{"val": []}', "utf-8"),
        "The split 'val' of .* is empty",
    ),
    "no camera": (
        lambda root: rewrite(
            root, "sample_data", lambda rows: [r for r in rows if "CAM_BACK__" not in r["filename"]]
        ),
        "has no CAM_BACK.",
    ),
    "no rotation": (
        lambda root: rewrite(
            root,
            "calibrated_sensor",
            lambda rows: rows[CAMERA_ROW].update(rotation=[0.5, 0.5, 0.5, 0.9]),
        ),
        "is no rotation: its quaternion has the length 1.249",
    ),
    "no numbers": (
        lambda root: rewrite(root, "ego_pose", with_value("translation", ["a", 0, 0])),
        "'translation' that is not 3 numbers",
    ),
    "no camera matrix": (
        lambda root: rewrite(
            root, "calibrated_sensor", lambda rows: rows[CAMERA_ROW].update(camera_intrinsic=[])
        ),
        "has no camera matrix",
    ),
    "two attributes": (
        lambda root: rewrite(root, "sample_annotation", with_value("attribute_tokens", ["a", "b"])),
        "more than one attribute",
    ),
    "no image": (
        lambda root: next((root / "samples" / "CAM_FRONT").glob("made-val-0000*")).unlink(),
        "CAM_FRONT.* cannot be read: No such file",
    ),
    "half an image": (
        lambda root: halve(next((root / "samples" / "CAM_FRONT").glob("made-val-0000*"))),
        "is cut short; it is the image of CAM_FRONT",
    ),
}


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_said_and_ends_with_2(
    copied: Path, mistake: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, said = MISTAKES[mistake]
    spoil(copied)
    with pytest.raises(UserError, match=said) as raised:
        check_images(read_frames(copied, VERSION, "val"))
    assert raised.value.remedy
    out = copied.parent / "out.png"
    arguments = ["show", str(copied), "--tables", VERSION, "--images", "14", "--out", str(out)]
    assert main(["data", *arguments]) == 2
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err
    assert not out.exists()


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(TABLES),
    st.integers(0, 10**6),
    st.sampled_from(
        [None, "", "gone", [], {}, ["gone"], [1], -1, 0, True, 1e400, math.nan, 10**30, [0.0] * 4]
    ),
)
def test_any_value_in_a_table_is_taken_or_refused(
    copied: Path, table: str, number: int, value: object
) -> None:
    path = copied / VERSION / f"{table}.json"
    before = path.read_bytes()
    rows = json.loads(before)
    row = rows[number % len(rows)]
    row[list(row)[number // len(rows) % len(row)]] = value
    path.write_text(json.dumps(rows), encoding="utf-8")
    with contextlib.suppress(UserError):
        read_frames(copied, VERSION, "val")
    path.write_bytes(before)


def test_every_table_is_written(root: Path) -> None:
    assert {f"{name}.json" for name in (*TABLES, "splits")} == {
        path.name for path in (root / VERSION).iterdir()
    }
