"""Made scenes: the same again, completed, hidden where something is in front."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from shapely.geometry import Polygon

from sparsevit.data.dice import Dice
from sparsevit.data.make import make_dataset
from sparsevit.data.nuscenes import geometry
from sparsevit.data.nuscenes.dataset import data_info
from sparsevit.data.nuscenes.made import render, shapes
from sparsevit.data.nuscenes.made.make import Scenes, cameras_of, make_scenes
from sparsevit.data.nuscenes.made.render import FINE, Camera, View
from sparsevit.data.nuscenes.made.spec import VERSION, ScenesSpec
from sparsevit.data.nuscenes.made.world import SIZES, STEP, Thing, layout
from sparsevit.data.nuscenes.names import CAMERAS, CLASSES
from sparsevit.data.nuscenes.tables import Frame, read_frames
from sparsevit.data.spec import DatasetSpec
from sparsevit.errors import UserError

TINY = ScenesSpec(train=1, val=1, width=48, height=32, objects=(8, 12))


def digest_of(root: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.name != ".dataset.lock":
            total.update(path.name.encode() + path.read_bytes())
    return total.hexdigest()


def test_the_same_spec_gives_the_same_files(tmp_path: Path) -> None:
    one, two = (make_scenes(tmp_path / name, TINY) for name in "ab")
    assert digest_of(one.root) == digest_of(two.root)
    assert one.digest == two.digest
    other = make_scenes(tmp_path / "c", replace(TINY, seed=1))
    assert other.digest != one.digest


def test_a_scene_does_not_depend_on_how_many_there_are(scenes: Scenes, tmp_path: Path) -> None:
    fewer = make_scenes(tmp_path / "few", replace(scenes.spec, train=1, val=2))
    for path in (fewer.root / "samples").rglob("*.jpg"):
        assert path.read_bytes() == (scenes.root / path.relative_to(fewer.root)).read_bytes()


def test_scenes_are_reused_completed_and_replaced(tmp_path: Path) -> None:
    made = make_scenes(tmp_path / "a", TINY)
    assert (made.state, made.painted) == ("made", 12)
    again = make_scenes(made.root, TINY)
    assert (again.state, again.painted, again.digest) == ("reused", 0, made.digest)
    before = digest_of(made.root)
    next((made.root / "samples").rglob("*.jpg")).unlink()
    completed = make_scenes(made.root, TINY)
    assert completed.state == "completed"
    assert digest_of(made.root) == before
    with pytest.raises(UserError, match=r"different options .*seed 0 -> 1"):
        make_scenes(made.root, replace(TINY, seed=1))
    forced = make_scenes(made.root, replace(TINY, seed=1), force=True)
    assert forced.state == "made"
    assert forced.digest != made.digest


def test_an_interrupted_generation_goes_on_where_it_was(tmp_path: Path) -> None:
    whole = make_scenes(tmp_path / "whole", replace(TINY, train=11))

    def stop(done: int, total: int) -> None:
        if done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_scenes(tmp_path / "part", replace(TINY, train=11), on_sample=stop)
    completed = make_scenes(tmp_path / "part", replace(TINY, train=11))
    assert (completed.state, completed.painted) == ("completed", 12)
    assert digest_of(completed.root) == digest_of(whole.root)


def test_other_files_and_other_datasets_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match="not a dataset made by sparsevit"):
        make_scenes(tmp_path / "mine", TINY)
    made = make_scenes(tmp_path / "scenes", TINY)
    small = DatasetSpec(train=1, val=1, width=32, height=32)
    for force in (False, True):
        with pytest.raises(UserError, match="a dataset for bev, not for detection"):
            make_dataset(made.root, small, force=force)
    make_dataset(tmp_path / "shapes", small)
    with pytest.raises(UserError, match="for detection or segmentation, not for bev"):
        make_scenes(tmp_path / "shapes", TINY, force=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"train": 0}, "number of train samples"),
        ({"width": 31}, "image width"),
        ({"objects": (5, 2)}, "smallest number of objects"),
        ({"classes": ("cart",)}, "no class 'cart'"),
        ({"classes": ("car", "car")}, "given twice"),
        ({"classes": ()}, "No class"),
        ({"image_format": "gif"}, "image format"),
    ],
)
def test_a_choice_out_of_its_range_is_refused(change: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        replace(TINY, **change)


def test_nothing_touches_anything_else(scenes: Scenes) -> None:
    world = layout(scenes.spec, "val", 0)
    objects = [thing for thing in world.things if thing.annotated]
    assert len(objects) >= 30
    assert len({thing.name for thing in objects} & set(CLASSES)) > 6
    for index in range(10):
        rows = [
            [*thing.at(index * STEP), 1, *thing.size, -thing.heading - math.pi / 2, 0, 0]
            for thing in objects
        ]
        rows.append([*world.car(index * STEP), 1, *SIZES["car"], -math.pi / 2, 0, 0])
        plans = [Polygon(corners[:4, :2]) for corners in geometry.corners(np.array(rows))]
        for i, one in enumerate(plans):
            assert not any(one.intersects(other) for other in plans[i + 1 :])


# --- what a camera sees --------------------------------------------------------------------------

AHEAD = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


def plain_view() -> View:
    intrinsic = np.array([[50.0, 0, 50], [0, 50, 30], [0, 0, 1]])
    return View(Camera("CAM_FRONT", AHEAD, np.array([0.0, 0.0, 1.0]), intrinsic, 100, 60))


def wall(x: float, width: float, height: float) -> shapes.Faces:
    """An upright face that looks at the camera, ``x`` ahead of it."""
    y = width / 2
    face = [[(x, y, 0.0), (x, -y, 0.0), (x, -y, height), (x, y, height)]]
    return shapes.Faces(np.array(face), np.full((1, 3), 200.0), np.zeros(1, int))


def seen(*things: shapes.Faces) -> render.Seen:
    view = plain_view()
    backdrop = np.zeros((*view.size, 3), np.uint8)
    return render.paint(view, backdrop, np.zeros(3), things, [], Dice(0))


def test_a_wall_hides_what_is_behind_it_and_no_more() -> None:
    """At 10 m, 4 m x 3 m are 20 x 15 pixels; the wall at 5 m, 1 m wide and 1 m high, is 10 x 10."""
    for order in ((0, 1), (1, 0)):
        both = [wall(10, 4, 3), wall(5, 1, 1)]
        found = seen(*(both[i] for i in order))
        far, near = order.index(0), order.index(1)
        assert found.whole[far] == 20 * 15 * FINE**2
        assert found.visible[near] == found.whole[near] == 10 * 10 * FINE**2
        # the near one's top is at the camera's height, the far one's foot at 5 pixels below it
        assert found.visible[far] == (20 * 15 - 10 * 5) * FINE**2
    hidden = seen(wall(10, 1, 0.9), wall(5, 1, 1))
    assert list(hidden.visible) == [0, 10 * 10 * FINE**2]


def test_what_crosses_the_near_plane_is_cut_there() -> None:
    """A floor from behind the camera to far ahead covers all below the horizon up to its end."""
    floor = shapes.Faces(
        np.array(
            [[(-5.0, -99.0, 0.01), (50.0, -99.0, 0.01), (50.0, 99.0, 0.01), (-5.0, 99.0, 0.01)]]
        ),
        np.full((1, 3), 200.0),
        np.zeros(1, int),
    )
    found = seen(floor)
    covered = (found.owners == 0).any(axis=1)
    first = 30 * FINE + 50 * FINE * 0.99 / 50  # the row of 50 m
    assert covered[math.ceil(first) :].all()
    assert not covered[: math.floor(first)].any()
    assert (found.owners == 0)[covered].all()


def test_faces_that_look_away_are_not_seen() -> None:
    turned = wall(10, 4, 3)
    away = shapes.Faces(turned.corners[:, ::-1], turned.colours, turned.patterns)
    assert seen(away).visible.sum() == 0


@pytest.mark.parametrize("name", CLASSES)
def test_a_thing_fills_its_box_and_stays_in_it(name: str) -> None:
    for speed in (0.0, 2.0):
        thing = Thing(name, SIZES[name], (0, 0), 0.0, speed, 1)
        corners = shapes.faces_of(thing, Dice(4)).corners.reshape(-1, 3)
        width, length, height = thing.size
        half = np.array([length / 2, width / 2])
        assert (np.abs(corners[:, :2]) <= half * 1.001).all()
        assert (np.abs(corners[:, :2]).max(axis=0) > half * 0.35).all()
        assert corners[:, 2].min() >= 0
        assert height * 0.9 < corners[:, 2].max() <= height * 1.001


def test_pixels_of_objects_are_within_their_boxes(scenes: Scenes) -> None:
    """What the tables say is where the images have it: a lone box is found by its colour."""
    view = View(cameras_of(scenes.spec)[CAMERAS.index("CAM_FRONT")])
    thing = Thing("car", SIZES["car"], (12.0, 1.0), 0.4, 0.0, 1)
    faces = render.placed(shapes.faces_of(thing, Dice(1)), 12.0, 1.0, 0.4)
    backdrop = np.zeros((*view.size, 3), np.uint8)
    found = render.paint(view, backdrop, np.zeros(3), [faces], [], Dice(0))
    camera = view.camera
    cam2car = np.eye(4)
    cam2car[:3, :3], cam2car[:3, 3] = camera.rotation, camera.translation
    row = np.array([[12.0, 1.0, SIZES["car"][2] / 2, *SIZES["car"], -0.4 - math.pi / 2, 0, 0]])
    pixels, _ = geometry.project(geometry.corners(row)[0], cam2car, camera.intrinsic)
    ys, xs = np.nonzero(found.owners == 0)
    xs, ys = (xs + 0.5) / FINE, (ys + 0.5) / FINE
    assert pixels[:, 0].min() - 0.5 <= xs.min() <= pixels[:, 0].min() + 2
    assert pixels[:, 0].max() - 2 <= xs.max() <= pixels[:, 0].max() + 0.5
    assert pixels[:, 1].max() - 2 <= ys.max() <= pixels[:, 1].max() + 0.5


def test_the_annotations_count_what_is_visible(scenes: Scenes, frames: tuple[Frame, ...]) -> None:
    rows = json.loads(
        (scenes.root / VERSION / "sample_annotation.json").read_text(encoding="utf-8")
    )
    points = np.array([row["num_lidar_pts"] for row in rows])
    assert (points == 0).any()
    assert (points > 100).any()
    levels = {row["visibility_token"] for row in rows}
    assert levels == {"1", "2", "3", "4"}
    # one that is before a camera and has points is in an image
    for frame in frames[:3]:
        info = data_info(frame, CLASSES)
        for box in geometry.corners(info["gt_bboxes_3d"]):
            inside = False
            for camera in range(6):
                pixels, depth = geometry.project(
                    box, info["cam2lidar"][camera], info["intrinsics"][camera]
                )
                ahead = depth > 0
                inside |= bool(ahead.any()) and bool(
                    (pixels[ahead].max(axis=0) > 0).all()
                    and (pixels[ahead].min(axis=0) < [scenes.spec.width, scenes.spec.height]).all()
                )
            assert inside


def test_images_are_of_the_size_and_not_blank(scenes: Scenes, frames: tuple[Frame, ...]) -> None:
    for path in frames[0].images:
        pixels = cv2.imread(str(path))
        assert pixels.shape == (scenes.spec.height, scenes.spec.width, 3)
        assert pixels.std() > 10


def test_classes_that_were_not_asked_for_are_not_there(tmp_path: Path) -> None:
    made = make_scenes(tmp_path / "few", replace(TINY, classes=("car", "pedestrian")))
    names = {n for f in read_frames(made.root, VERSION, "val") for n in f.annotations.names}
    assert names <= {"car", "pedestrian"}
