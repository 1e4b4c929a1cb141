"""Writes made scenes as nuScenes does; an interrupted generation is completed by the next one.

Images first, scene by scene, then the tables, then the record that all of it is there. What the
tables need of a scene that was painted, how much is seen of each object, lies in ``.scenes`` until
they are written.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparsevit import plain_files
from sparsevit.atomic import remove_leftovers, write_atomic
from sparsevit.data.make import (
    RECORD,
    encode_image,
    locked,
    mended_os_errors,
    read_record,
    refuse_foreign_files,
    refuse_other_spec,
)
from sparsevit.data.nuscenes import geometry
from sparsevit.data.nuscenes.made import ground, render, shapes
from sparsevit.data.nuscenes.made.render import FINE, Camera, Seen, View
from sparsevit.data.nuscenes.made.spec import FRAMES_A_SCENE, VERSION, ScenesSpec
from sparsevit.data.nuscenes.made.world import STEP, Thing, World, layout, stream
from sparsevit.data.nuscenes.names import CAMERAS, CLASS_OF_CATEGORY, LIDAR, attribute_of
from sparsevit.data.nuscenes.tables import SPLITS_FILE, TABLES, official_split
from sparsevit.data.spec import SPLITS

DRAWN = 130.0
_PAINT, _NOISE = 3, 4
_COUNTS = ".scenes"
_MAP = "maps/made.png"

# Where the cameras of a nuScenes car are: x, y, z in metres, degrees counter-clockwise from ahead,
# focal length in widths of an image.
_MOUNTED = {
    "CAM_FRONT_LEFT": (1.52, 0.49, 1.51, 55, 0.79),
    "CAM_FRONT": (1.70, 0.02, 1.51, 0, 0.79),
    "CAM_FRONT_RIGHT": (1.55, -0.49, 1.50, -55, 0.79),
    "CAM_BACK_LEFT": (1.04, 0.48, 1.59, 110, 0.79),
    "CAM_BACK": (0.03, 0.00, 1.58, 180, 0.51),
    "CAM_BACK_RIGHT": (1.01, -0.48, 1.56, -110, 0.79),
}
_LIDAR_AT = (0.94, 0.0, 1.84)
_HORIZON = 0.54
"""The row of a camera's middle, in heights of an image."""
_FORWARD = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
"""From a camera's frame to that of a car it looks ahead of."""

_CATEGORY = {name: category for category, name in reversed(CLASS_OF_CATEGORY.items())}
_ATTRIBUTES = sorted(
    {attribute_of(name, speed) for name in _CATEGORY for speed in (0.0, 1.0)} - {""}
)
_VISIBILITY = {"1": "v0-40", "2": "v40-60", "3": "v60-80", "4": "v80-100"}

Counts = list[list[tuple[int, int, int]]]
"""For each sample of a scene, of each object in it: its number, and the fine pixels, over all
cameras, that are visible and that would be if it were alone."""


@dataclass(frozen=True)
class Scenes:
    """Made scenes on disk.

    Attributes:
        root: their folder.
        spec: what they were made from.
        state: ``made``, ``completed`` or ``reused``, as of
            :class:`~sparsevit.data.make.Dataset`.
        painted: how many images were written by this call.
        digest: SHA-256 over the tables; equal scenes have equal digests.
    """

    root: Path
    spec: ScenesSpec
    state: str
    painted: int
    digest: str


def make_scenes(
    root: Path | str,
    spec: ScenesSpec,
    *,
    force: bool = False,
    on_sample: Callable[[int, int], None] | None = None,
) -> Scenes:
    """Makes the scenes of ``spec`` at ``root``, or finds that they are there.

    Args:
        root: their folder; made if missing.
        spec: what to make.
        force: replace scenes that are there, also those of the same spec. Other files stay.
        on_sample: called after each scene with the number of samples done and that of all.

    Raises:
        UserError: the folder holds something else (other scenes: without ``force``), cannot be
            written, or another process is writing there.
    """
    root = Path(root)
    if not force and _is_complete(root, spec):
        return Scenes(root, spec, "reused", 0, _digest(root))
    with mended_os_errors(root):
        if root.is_dir() and read_record(root) is None:
            refuse_foreign_files(root)
    with mended_os_errors(root), locked(root):
        begun = _claim(root, spec, force)
        counts, painted = _paint_all(root, spec, on_sample)
        _write_tables(root, spec, counts)
        _write_record(root, spec, _digest(root))
        shutil.rmtree(root / _COUNTS)
    return Scenes(root, spec, "completed" if begun else "made", painted, _digest(root))


def cameras_of(spec: ScenesSpec) -> list[Camera]:
    """The six cameras, in the order of :data:`~sparsevit.data.nuscenes.names.CAMERAS`."""
    found = []
    for name in CAMERAS:
        *place, degrees, focal = _MOUNTED[name]
        turn = geometry.about_z(np.radians([degrees]))[0] @ _FORWARD
        # as a reader of the tables has it
        turn = geometry.rotation_matrices(geometry.quaternions_of(turn[None])[0])
        f = focal * spec.width
        intrinsic = np.array([[f, 0, spec.width / 2], [0, f, _HORIZON * spec.height], [0, 0, 1]])
        found.append(Camera(name, turn, np.array(place), intrinsic, spec.width, spec.height))
    return found


# --- painting ------------------------------------------------------------------------------------


def scene_numbers(spec: ScenesSpec, split: str) -> list[tuple[int, int]]:
    """The scenes of a split: a number, and how many samples."""
    whole, rest = divmod(spec.count(split), FRAMES_A_SCENE)
    lengths = [FRAMES_A_SCENE] * whole + [rest] * (rest > 0)
    return list(enumerate(lengths))


def _paint_all(
    root: Path, spec: ScenesSpec, on_sample: Callable[[int, int], None] | None
) -> tuple[dict[str, list[Counts]], int]:
    """Paints what is missing. Returns what tables need by split, and how many images were
    painted."""
    views = [View(camera) for camera in cameras_of(spec)]
    counts: dict[str, list[Counts]] = {split: [] for split in SPLITS}
    painted = done = 0
    for split in SPLITS:
        for number, length in scene_numbers(spec, split):
            kept = root / _COUNTS / f"{split}-{number}.json"
            try:
                found = plain_files.read_record(kept)
            except ValueError:
                found = _paint_scene(root, spec, views, split, number, length)
                write_atomic(kept, json.dumps(found), durable=False)
                painted += length * len(views)
            counts[split].append(found)
            done += length
            if on_sample is not None:
                on_sample(done, spec.train + spec.val)
    return counts, painted


def _paint_scene(
    root: Path, spec: ScenesSpec, views: Sequence[View], split: str, number: int, length: int
) -> Counts:
    world, counts = layout(spec, split, number), []
    dice = stream(spec, split, number, _PAINT)
    picture = render.smaller(ground.paint_ground(world, dice))
    sky, haze = ground.paint_sky(dice)
    looks = [
        shapes.faces_of(thing, stream(spec, split, number, _PAINT, thing.look))
        for thing in world.things
    ]
    for index in range(length):
        near, places = _near(world, index)
        faces = [render.placed(looks[i], *places[i], world.things[i].heading) for i in near]
        shadows = [_shadow(world.things[i], places[i]) for i in near]
        seen: list[Seen] = []
        for number_of_camera, view in enumerate(views):
            noise = stream(spec, split, number, _NOISE, index, number_of_camera)
            backdrop = view.backdrop(picture, sky, world.car(index * STEP))
            one = render.paint(view, backdrop, haze, faces, shadows, noise)
            path = root / image_name(spec, split, number, index, view.camera.name)
            write_atomic(path, encode_image(one.pixels, spec.image_format), durable=False)
            seen.append(one)
        visible, whole = (sum(getattr(one, key) for one in seen) for key in ("visible", "whole"))
        counts.append(
            [
                (i, int(visible[k]), int(whole[k]))
                for k, i in enumerate(near)
                if world.things[i].annotated and math.hypot(*places[i]) < spec.reach
            ]
        )
    return counts


def _near(world: World, index: int) -> tuple[list[int], list[tuple[float, float]]]:
    """Which things are painted at a sample, the nearest first, and where all are, from the car."""
    x, y = world.car(index * STEP)
    at = [thing.at(index * STEP) for thing in world.things]
    places = [(u - x, v - y) for u, v in at]
    away = [math.hypot(*place) for place in places]
    return sorted((i for i in range(len(away)) if away[i] < DRAWN), key=away.__getitem__), places


def _shadow(thing: Thing, place: tuple[float, float]) -> shapes.Faces:
    return render.placed(render.shadow(*thing.size[:2]), *place, thing.heading)


# --- tables --------------------------------------------------------------------------------------


def scene_name(split: str, number: int) -> str:
    return f"made-{split}-{number:04d}"


def image_name(spec: ScenesSpec, split: str, number: int, index: int, channel: str) -> str:
    """File of an image, relative to the dataset's folder."""
    moment = _timestamp(split, number, index)
    name = f"{scene_name(split, number)}__{channel}__{moment}.{spec.image_format}"
    return f"samples/{channel}/{name}"


def _timestamp(split: str, number: int, index: int) -> int:
    """In microseconds."""
    scene = number + 1_000_000 * SPLITS.index(split)
    return 1_600_000_000_000_000 + scene * 100_000_000 + round(index * STEP * 1e6)


def _token(spec: ScenesSpec, *names: object) -> str:
    return hashlib.sha256(":".join(map(str, (spec.seed, *names))).encode()).hexdigest()[:32]


Rows = dict[str, list[dict[str, Any]]]


def _write_tables(root: Path, spec: ScenesSpec, counts: Mapping[str, list[Counts]]) -> None:
    rows: Rows = {name: [] for name in TABLES}
    _fixed_rows(rows, spec)
    splits: dict[str, list[str]] = {}
    for split in SPLITS:
        for number, found in enumerate(counts[split]):
            _scene_rows(rows, spec, split, number, found)
        listed = [scene_name(split, number) for number in range(len(counts[split]))]
        splits[official_split(VERSION, split)] = listed
    blank = np.zeros((64, 64), np.uint8)
    write_atomic(root / _MAP, encode_image(blank, "png"), durable=False)
    for name, content in {**rows, SPLITS_FILE.removesuffix(".json"): splits}.items():
        text = json.dumps(content, separators=(",", ":"))
        write_atomic(root / VERSION / f"{name}.json", text)


def _fixed_rows(rows: Rows, spec: ScenesSpec) -> None:
    """What does not depend on scenes."""
    for name in spec.classes:
        token = _token(spec, "category", name)
        rows["category"].append({"token": token, "name": _CATEGORY[name], "description": name})
    for name in _ATTRIBUTES:
        token = _token(spec, "attribute", name)
        rows["attribute"].append({"token": token, "name": name, "description": ""})
    for token, level in _VISIBILITY.items():
        rows["visibility"].append({"token": token, "level": level, "description": ""})
    log = _token(spec, "log")
    rows["log"].append(
        {
            "token": log,
            "logfile": "made",
            "vehicle": "made",
            "date_captured": "2020-01-01",
            "location": "made",
        }
    )
    rows["map"].append(
        {
            "token": _token(spec, "map"),
            "log_tokens": [log],
            "category": "semantic_prior",
            "filename": _MAP,
        }
    )
    # the lidar's x points to the right and its y ahead
    turned = geometry.about_z(np.array([-math.pi / 2]))[0]
    sensors: list[tuple[str, str, np.ndarray, np.ndarray, list[Any]]] = [
        (LIDAR, "lidar", turned, np.array(_LIDAR_AT), [])
    ]
    for one in cameras_of(spec):
        intrinsic = one.intrinsic.tolist()
        sensors.append((one.name, "camera", one.rotation, one.translation, intrinsic))
    for name, modality, rotation, translation, intrinsic in sensors:
        sensor = _token(spec, "sensor", name)
        rows["sensor"].append({"token": sensor, "channel": name, "modality": modality})
        rows["calibrated_sensor"].append(
            {
                "token": _token(spec, "calibrated", name),
                "sensor_token": sensor,
                "translation": translation.tolist(),
                "rotation": geometry.quaternions_of(rotation[None])[0].tolist(),
                "camera_intrinsic": intrinsic,
            }
        )


def _scene_rows(rows: Rows, spec: ScenesSpec, split: str, number: int, counts: Counts) -> None:
    world = layout(spec, split, number)
    name = scene_name(split, number)
    tokens = [_token(spec, name, "sample", index) for index in range(len(counts))]
    rows["scene"].append(
        {
            "token": _token(spec, name),
            "log_token": _token(spec, "log"),
            "nbr_samples": len(tokens),
            "first_sample_token": tokens[0],
            "last_sample_token": tokens[-1],
            "name": name,
            "description": "A made scene.",
        }
    )
    annotated: dict[int, list[dict[str, Any]]] = {}
    for index, (token, found) in enumerate(zip(tokens, counts, strict=True)):
        moment = _timestamp(split, number, index)
        before, after = _neighbours(tokens, index)
        rows["sample"].append(
            {
                "token": token,
                "timestamp": moment,
                "prev": before,
                "next": after,
                "scene_token": _token(spec, name),
            }
        )
        pose = _token(spec, name, "pose", index)
        rows["ego_pose"].append(
            {"token": pose, "timestamp": moment, **_in_world(world, world.car(index * STEP), 0, 0)}
        )
        for channel in (LIDAR, *CAMERAS):
            rows["sample_data"].append(
                _data_row(spec, split, number, index, len(tokens), channel, token, pose)
            )
        for thing, visible, whole in found:
            row = _annotation(spec, world, name, thing, index, token, visible, whole)
            annotated.setdefault(thing, []).append(row)
    for thing, notes in annotated.items():
        _instance_rows(rows, spec, world.things[thing].name, notes)


def _data_row(
    spec: ScenesSpec,
    split: str,
    number: int,
    index: int,
    length: int,
    channel: str,
    sample: str,
    pose: str,
) -> dict[str, Any]:
    name = scene_name(split, number)
    tokens = [_token(spec, name, channel, i) for i in range(length)]
    before, after = _neighbours(tokens, index)
    camera = channel != LIDAR
    moment = _timestamp(split, number, index)
    scan = (
        f"samples/{LIDAR}/{name}__{LIDAR}__{moment}.pcd.bin"  # named, as each record is; not there
    )
    return {
        "token": tokens[index],
        "sample_token": sample,
        "ego_pose_token": pose,
        "calibrated_sensor_token": _token(spec, "calibrated", channel),
        "timestamp": moment,
        "fileformat": spec.image_format if camera else "pcd",
        "is_key_frame": True,
        "height": spec.height if camera else 0,
        "width": spec.width if camera else 0,
        "filename": image_name(spec, split, number, index, channel) if camera else scan,
        "prev": before,
        "next": after,
    }


def _annotation(
    spec: ScenesSpec,
    world: World,
    name: str,
    thing: int,
    index: int,
    sample: str,
    visible: int,
    whole: int,
) -> dict[str, Any]:
    one = world.things[thing]
    attribute = attribute_of(one.name, one.speed)
    share = visible / max(1, whole)
    height = one.size[2]
    return {
        "token": _token(spec, name, "annotation", thing, index),
        "sample_token": sample,
        "instance_token": _token(spec, name, "instance", thing),
        "visibility_token": str(1 + sum(share >= least for least in (0.4, 0.6, 0.8))),
        "attribute_tokens": [_token(spec, "attribute", attribute)] if attribute else [],
        **_in_world(world, one.at(index * STEP), height / 2, one.heading),
        "size": list(one.size),
        # a pixel of the image stands for a point
        "num_lidar_pts": visible // FINE**2,
        "num_radar_pts": 0,
    }


def _instance_rows(rows: Rows, spec: ScenesSpec, name: str, notes: list[dict[str, Any]]) -> None:
    tokens = [note["token"] for note in notes]
    for index, note in enumerate(notes):
        note["prev"], note["next"] = _neighbours(tokens, index)
    rows["sample_annotation"] += notes
    rows["instance"].append(
        {
            "token": notes[0]["instance_token"],
            "category_token": _token(spec, "category", name),
            "nbr_annotations": len(notes),
            "first_annotation_token": tokens[0],
            "last_annotation_token": tokens[-1],
        }
    )


def _neighbours(tokens: Sequence[str], index: int) -> tuple[str, str]:
    before = tokens[index - 1] if index else ""
    return before, tokens[index + 1] if index + 1 < len(tokens) else ""


def _in_world(
    world: World, place: tuple[float, float], height: float, heading: float
) -> dict[str, list[float]]:
    """Translation and rotation of what is somewhere in a scene."""
    cosine, sine = math.cos(world.turned), math.sin(world.turned)
    x, y = place
    half = (world.turned + heading) / 2
    return {
        "translation": [
            world.moved[0] + x * cosine - y * sine,
            world.moved[1] + x * sine + y * cosine,
            height,
        ],
        "rotation": [math.cos(half), 0.0, 0.0, math.sin(half)],
    }


# --- what is there -------------------------------------------------------------------------------


def _claim(root: Path, spec: ScenesSpec, force: bool) -> bool:
    """Makes ``root`` ours for ``spec``. Returns whether a generation of it had begun before."""
    record = read_record(root)
    if record is None:
        refuse_foreign_files(root)
    else:
        refuse_other_spec(root, record["spec"], spec.to_dict(), force)
    if record is not None and (force or record.get("complete")):
        # of complete ones a file is missing: the counts are gone too
        _remove_generated(root)
    # the first that is written: a folder without it is not ours to go on with
    _write_record(root, spec, None)
    folders = [".", VERSION, _COUNTS, "maps", *(f"samples/{camera}" for camera in CAMERAS)]
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        remove_leftovers(root / folder)
    return record is not None and not force


def _remove_generated(root: Path) -> None:
    """Deletes what a generation wrote, nothing else."""
    shutil.rmtree(root / _COUNTS, ignore_errors=True)
    for name in (*TABLES, SPLITS_FILE.removesuffix(".json")):
        (root / VERSION / f"{name}.json").unlink(missing_ok=True)
    for camera in CAMERAS:
        for path in (root / "samples" / camera).glob("made-*__CAM_*"):
            path.unlink()


def _is_complete(root: Path, spec: ScenesSpec) -> bool:
    record = read_record(root)
    if record is None or not record.get("complete") or record["spec"] != spec.to_dict():
        return False
    if record.get("digest") != _digest(root):
        return False
    names = [
        image_name(spec, split, number, index, camera)
        for split in SPLITS
        for number, length in scene_numbers(spec, split)
        for index in range(length)
        for camera in CAMERAS
    ]
    return all((root / name).is_file() for name in names)


def _digest(root: Path) -> str:
    """Over the tables; empty where one is missing."""
    total = hashlib.sha256()
    for name in (*TABLES, SPLITS_FILE.removesuffix(".json")):
        path = root / VERSION / f"{name}.json"
        if not path.is_file():
            return ""
        total.update(path.read_bytes())
    return total.hexdigest()


def _write_record(root: Path, spec: ScenesSpec, digest: str | None) -> None:
    record: dict[str, Any] = {"format": 1, "complete": digest is not None, "spec": spec.to_dict()}
    if digest is not None:
        record["digest"] = digest
    write_atomic(root / RECORD, (json.dumps(record, indent=2) + "\n").encode())
