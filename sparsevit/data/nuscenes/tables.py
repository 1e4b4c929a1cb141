"""Reads nuScenes' tables: key frames with their cameras, poses and boxes.

The format is the one that nuscenes-devkit documents (docs/schema_nuscenes.md): JSON lists of
records that name each other by token. Everything is checked on the way, so that what is wrong with
a file is said in one sentence.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from sparsevit.data.images import image_fault
from sparsevit.data.nuscenes import geometry
from sparsevit.data.nuscenes.names import (
    BICYCLE_RACK,
    CAMERAS,
    CLASS_OF_CATEGORY,
    LIDAR,
    VALIDATION_SCENES,
)
from sparsevit.errors import UserError, shortened
from sparsevit.plain_files import open_file

TABLES = (
    *("category", "attribute", "visibility", "instance", "sensor", "calibrated_sensor"),
    *("ego_pose", "log", "scene", "sample", "sample_data", "sample_annotation", "map"),
)
SPLITS_FILE = "splits.json"
_AGAIN = "Unpack the tables of this version again; they come together."
_MOST = 2**62
_NO_ROTATION = 1e-3
"""How far from 1 the length of a quaternion must be."""
_LONGEST_STEP = 1.5
"""Seconds between two annotations of an object that give a velocity."""


@dataclass(frozen=True)
class Annotations:
    """The annotated objects of a key frame that are of one of the ten classes, in the world.

    Attributes:
        names: (n) classes.
        centres, sizes: (n, 3) metres; a size is width, length, height.
        rotations: (n, 4) quaternions (w, x, y, z).
        velocities: (n, 2) m/s; NaN where unknown.
        points: (n) lidar and radar points on each.
        attributes: (n) names; ``""`` for none.
        racks: (m, 10) bicycle racks: centre, size, rotation.
    """

    names: tuple[str, ...]
    centres: np.ndarray
    sizes: np.ndarray
    rotations: np.ndarray
    velocities: np.ndarray
    points: np.ndarray
    attributes: tuple[str, ...]
    racks: np.ndarray


@dataclass(frozen=True)
class Frame:
    """A key frame: six images at once.

    Attributes:
        token: of the sample.
        scene: name of its scene.
        timestamp: in microseconds.
        images: (6) files, in the order of :data:`~sparsevit.data.nuscenes.names.CAMERAS`.
        intrinsics: (6, 3, 3).
        cam2lidar: (6, 4, 4); by way of the world, as each image has its own moment.
        lidar2ego, ego2global: (4, 4), at the lidar's moment.
        annotations: what is in it.
    """

    token: str
    scene: str
    timestamp: int
    images: tuple[Path, ...]
    intrinsics: np.ndarray
    cam2lidar: np.ndarray
    lidar2ego: np.ndarray
    ego2global: np.ndarray
    annotations: Annotations


def find_version(root: Path | str) -> str:
    """The name of the only folder of tables in ``root``.

    Raises:
        UserError: there is none, or more than one.
    """
    found = _versions(Path(root))
    if len(found) == 1:
        return found[0]
    what = f"several versions ({', '.join(found)})" if found else "no folder of nuScenes tables"
    raise UserError(f"{root} has {what}.", "Name the version, such as --tables v1.0-mini.")


def read_frames(root: Path | str, version: str, split: str) -> tuple[Frame, ...]:
    """The key frames of a split, by time.

    Args:
        root: the dataset's folder, with ``samples`` and the folders of tables.
        version: name of a folder of tables. Which scenes of it validate is known of
            ``v1.0-trainval`` and ``v1.0-mini``; any other has a ``splits.json``, as the devkit
            reads it.
        split: ``train``, ``val``, or a name in ``splits.json``.

    Raises:
        UserError: a table is missing or damaged, records do not fit together, a calibration cannot
            be one, a sample lacks a camera, or the split is empty.
    """
    root = Path(root)
    tables = _table_folder(root, version)
    frames = _read_all(root, version, _stamp(tables))
    wanted = scenes_of(root, version, split, {frame.scene for frame in frames})
    chosen = tuple(frame for frame in frames if frame.scene in wanted)
    if not chosen:
        raise UserError(
            f"The split '{split}' of {tables} is empty: no sample is of one of its scenes.",
            "Check that the version is the one you mean, and that its tables are whole.",
        )
    return chosen


def scenes_of(root: Path | str, version: str, split: str, scenes: Iterable[str]) -> set[str]:
    """Which of the ``scenes`` of a version are of a split.

    Raises:
        UserError: the version has no such split.
    """
    path = _table_folder(Path(root), version) / SPLITS_FILE
    validation = VALIDATION_SCENES.get(version)
    if validation is not None and split in ("train", "val"):
        return {name for name in scenes if (name in validation) == (split == "val")}
    if not path.is_file():
        raise UserError(
            f"There is no list of the scenes of the split '{split}' of {version}.",
            f"Use train or val of {' or '.join(VALIDATION_SCENES)}, or write {path}: "
            '{"train": ["scene-0001", ...], "val": [...]}.',
        )
    splits = _json(path, dict)
    name = split if split in splits else official_split(version, split)
    listed = splits.get(name)
    if not isinstance(listed, list):
        known = ", ".join(map(str, splits)) or "none"
        raise UserError(f"{path} has no split '{split}'.", f"Its splits are: {known}.")
    return {str(one) for one in listed}


def official_split(version: str, split: str) -> str:
    """What nuscenes-devkit calls a split: ``val`` of ``v1.0-mini`` is ``mini_val`` there."""
    prefix = version.removeprefix("v1.0-")
    return split if prefix == "trainval" or split.startswith(prefix) else f"{prefix}_{split}"


def check_images(frames: Sequence[Frame]) -> None:
    """Refuse key frames of which an image is missing or cut short. Only the ends are looked at.

    Raises:
        UserError: one is.
    """
    for frame in frames:
        for camera, path in zip(CAMERAS, frame.images, strict=True):
            wrong = image_fault(path)
            if wrong:
                raise UserError(
                    f"{path} {wrong}; it is the image of {camera} in sample {frame.token}.",
                    "Unpack the images of this version again, or check the dataset's folder.",
                )


# --- tables --------------------------------------------------------------------------------------


class _Record(dict[str, Any]):
    """A record of a table, which says what it has not."""

    def __missing__(self, key: str) -> Any:
        raise _damaged(self, f"has no '{key}'")


def _damaged(record: Mapping[str, Any], what: str) -> UserError:
    token = shortened(record.get("token", "without a token"), 60)
    return UserError(f"The nuScenes tables are damaged: record {token} {what}.", _AGAIN)


class _Table:
    """A table by token.

    Args:
        folder: of tables.
        name: such as ``scene``.
        keep: which records to hold; all where None.
    """

    def __init__(
        self, folder: Path, name: str, keep: Callable[[dict[str, Any]], bool] | None = None
    ) -> None:
        self.path = folder / f"{name}.json"

        def made(content: dict[str, Any]) -> _Record | None:
            return _Record(content) if keep is None or keep(content) else None

        rows = _json(self.path, list, made)
        if any(row is not None and not isinstance(row, _Record) for row in rows):
            raise UserError(f"{self.path} is damaged: it is no list of records.", _AGAIN)
        found = (row for row in rows if row is not None)
        self.records: dict[str, _Record] = {_text(row, "token"): row for row in found}

    def __getitem__(self, token: Any) -> _Record:
        found = self.records.get(token) if isinstance(token, str) else None
        if found is None:
            raise UserError(f"{self.path} has no record {shortened(token, 60)}.", _AGAIN)
        return found

    def __iter__(self) -> Any:
        return iter(self.records.values())


def _json(path: Path, kind: type, hook: Any = None) -> Any:
    with open_file(path, "table") as file:
        try:
            content = json.loads(file.read(), object_hook=hook)
        except (ValueError, RecursionError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{path} is not valid JSON: {reason}.", _AGAIN) from None
        except MemoryError:
            raise UserError(
                f"{path} is larger than the memory that is free.", "Use a smaller version."
            ) from None
    if not isinstance(content, kind):
        what = "list of records" if kind is list else "mapping"
        raise UserError(f"{path} is damaged: it is no {what}.", _AGAIN)
    return content


def _versions(root: Path) -> list[str]:
    if not root.is_dir():
        raise UserError(f"There is no nuScenes folder {root}.", "Check the path.")
    return sorted(entry.parent.name for entry in root.glob("*/sample.json"))


def _table_folder(root: Path, version: str) -> Path:
    found = _versions(root)
    folder = root / version
    if folder.is_dir():
        return folder
    has = f"it has {', '.join(found)}" if found else "it has no folder of nuScenes tables"
    raise UserError(
        f"There is no version '{version}' in {root}: {has}.",
        "Check the version and the dataset's folder.",
    )


def _stamp(folder: Path) -> tuple[tuple[int, int], ...]:
    files = (folder / f"{name}.json" for name in TABLES)
    stats = [file.stat() if file.exists() else None for file in files]
    return tuple((s.st_mtime_ns, s.st_size) if s else (0, 0) for s in stats)


# --- frames --------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _read_all(root: Path, version: str, stamp: Any) -> tuple[Frame, ...]:
    """All key frames by time. Those of train and val are read once."""
    folder = root / version
    sensors, calibrated = _Table(folder, "sensor"), _Table(folder, "calibrated_sensor")
    scenes, samples = _Table(folder, "scene"), _Table(folder, "sample")
    # nine in ten images and scans are between key frames
    data = _Table(folder, "sample_data", lambda row: row.get("is_key_frame") is not False)
    needed = {_text(row, "ego_pose_token") for row in data}
    poses = _Table(folder, "ego_pose", lambda row: str(row.get("token")) in needed)
    notes = _read_annotations(folder, samples)
    channels: dict[str, dict[str, _Record]] = defaultdict(dict)
    for row in data:
        sensor = sensors[calibrated[row["calibrated_sensor_token"]]["sensor_token"]]
        channels[_text(row, "sample_token")][_text(sensor, "channel")] = row

    @lru_cache(maxsize=4096)
    def mounted(token: str) -> np.ndarray:
        return _pose(calibrated[token], "the calibration")

    @lru_cache(maxsize=4096)
    def intrinsic(token: str) -> np.ndarray:
        return _intrinsic(calibrated[token])

    def sensor2global(row: _Record) -> np.ndarray:
        car = _pose(poses[row["ego_pose_token"]], "the pose")
        return car @ mounted(row["calibrated_sensor_token"])

    def frame(sample: _Record) -> Frame:
        token, found = sample["token"], channels[sample["token"]]
        for channel in (LIDAR, *CAMERAS):
            if channel not in found:
                raise UserError(
                    f"Sample {token} of {folder} has no {channel}.",
                    "A key frame has all six cameras and the lidar. " + _AGAIN,
                )
        lidar, rows = found[LIDAR], [found[camera] for camera in CAMERAS]
        from_global = np.linalg.inv(sensor2global(lidar))
        return Frame(
            token=token,
            scene=_text(scenes[sample["scene_token"]], "name"),
            timestamp=_whole(sample, "timestamp"),
            images=tuple(root / _text(row, "filename") for row in rows),
            intrinsics=np.stack([intrinsic(row["calibrated_sensor_token"]) for row in rows]),
            cam2lidar=np.stack([from_global @ sensor2global(row) for row in rows]),
            lidar2ego=mounted(lidar["calibrated_sensor_token"]),
            ego2global=_pose(poses[lidar["ego_pose_token"]], "the pose"),
            annotations=notes[token],
        )

    return tuple(sorted(map(frame, samples), key=lambda one: one.timestamp))


def _read_annotations(folder: Path, samples: _Table) -> dict[str, Annotations]:
    """Sample token -> what is annotated in it."""
    categories, attributes = _Table(folder, "category"), _Table(folder, "attribute")
    instances, table = _Table(folder, "instance"), _Table(folder, "sample_annotation")
    kinds = {one["token"]: _text(categories[one["category_token"]], "name") for one in instances}
    rows = list(table)
    names, said = [], []
    in_sample: dict[str, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for number, row in enumerate(rows):
        kind = kinds[instances[row["instance_token"]]["token"]]
        boxes, racks = in_sample[_text(row, "sample_token")]
        names.append(CLASS_OF_CATEGORY.get(kind, ""))
        said.append(_attribute(row, attributes))
        if names[-1] or kind == BICYCLE_RACK:
            (boxes if names[-1] else racks).append(number)
    widths = {"translation": 3, "size": 3, "rotation": 4}
    columns = {key: _column(rows, key, width) for key, width in widths.items()}
    _check_boxes(rows, columns["size"], columns["rotation"])
    velocities = _velocities(rows, columns["translation"], table, samples)
    points = np.array(
        [_whole(row, "num_lidar_pts") + _whole(row, "num_radar_pts") for row in rows], np.int64
    )

    def of(token: str) -> Annotations:
        boxes, racks = in_sample[token]
        return Annotations(
            names=tuple(names[i] for i in boxes),
            centres=columns["translation"][boxes],
            sizes=columns["size"][boxes],
            rotations=columns["rotation"][boxes],
            velocities=velocities[boxes],
            points=points[boxes],
            attributes=tuple(said[i] for i in boxes),
            racks=np.concatenate([columns[key][racks] for key in widths], axis=1),
        )

    return {sample["token"]: of(sample["token"]) for sample in samples}


def _check_boxes(rows: Sequence[_Record], sizes: np.ndarray, rotations: np.ndarray) -> None:
    flat = (sizes <= 0).any(axis=1)
    turned = np.abs(np.linalg.norm(rotations, axis=1) - 1) > _NO_ROTATION
    for wrong, what in ((flat, "size that is not above 0"), (turned, "rotation that is none")):
        if wrong.any():
            raise _damaged(rows[int(wrong.argmax())], f"has a {what}")


def _attribute(row: _Record, attributes: _Table) -> str:
    tokens = row["attribute_tokens"]
    if not isinstance(tokens, list) or len(tokens) > 1:
        raise _damaged(row, "has more than one attribute")
    return _text(attributes[tokens[0]], "name") if tokens else ""


def _velocities(
    rows: Sequence[_Record], centres: np.ndarray, table: _Table, samples: _Table
) -> np.ndarray:
    """(n, 2) m/s from an object's annotations before and after, or as near as there are; else NaN.

    Args:
        rows: all annotations.
        centres: (n, 3) their translations.
    """
    times = 1e-6 * np.array([_whole(samples[row["sample_token"]], "timestamp") for row in rows])
    numbers = {token: number for number, token in enumerate(table.records)}

    def neighbours(key: str) -> np.ndarray:
        return np.array(
            [numbers[table[row[key]]["token"]] if row[key] else i for i, row in enumerate(rows)],
            int,
        )

    first, last = neighbours("prev"), neighbours("next")
    here = np.arange(len(rows))
    seconds = times[last] - times[first]
    longest = np.where((first != here) & (last != here), 2, 1) * _LONGEST_STEP
    known = (seconds > 0) & (seconds <= longest)
    way = (centres[last] - centres[first])[:, :2]
    velocities: np.ndarray = np.where(known, 1, np.nan)[:, None] * way
    return velocities / np.where(known, seconds, 1)[:, None]


def _column(rows: Sequence[_Record], key: str, length: int) -> np.ndarray:
    """(n, length) of all rows."""
    try:
        values = np.array([row[key] for row in rows], np.float64).reshape(len(rows), -1)
        if values.shape[1:] == (length,) and np.isfinite(values).all():
            return values
    except (TypeError, ValueError):
        pass
    # one of them is wrong, or there is none
    return np.array([_vector(row, key, length) for row in rows]).reshape(-1, length)


def _vector(row: _Record, key: str, length: int) -> np.ndarray:
    try:
        vector = np.asarray(row[key], np.float64)
    except (TypeError, ValueError):
        vector = np.full(1, np.nan)
    if vector.shape != (length,) or not np.isfinite(vector).all():
        raise _damaged(row, f"has a '{key}' that is not {length} numbers")
    return vector


def _whole(row: _Record, key: str) -> int:
    value = row[key]
    if not isinstance(value, int) or abs(value) > _MOST:
        raise _damaged(row, f"has a '{key}' that is no whole number")
    return value


def _text(row: _Record, key: str) -> str:
    value = row[key]
    if not isinstance(value, str):
        raise _damaged(row, f"has a '{key}' that is no text")
    return value


def _pose(row: _Record, what: str) -> np.ndarray:
    rotation = _vector(row, "rotation", 4)
    length = float(np.linalg.norm(rotation))
    if abs(length - 1) > _NO_ROTATION:
        raise UserError(
            f"{what[0].upper()}{what[1:]} {row['token']} is no rotation: its quaternion has the "
            f"length {length:.4g}, not 1.",
            _AGAIN,
        )
    return geometry.pose(rotation, _vector(row, "translation", 3))


def _intrinsic(row: _Record) -> np.ndarray:
    try:
        matrix = np.asarray(row["camera_intrinsic"], np.float64)
    except (TypeError, ValueError):
        matrix = np.zeros(0)
    fits = matrix.shape == (3, 3) and np.isfinite(matrix).all()
    if not fits or min(matrix[0, 0], matrix[1, 1]) <= 0 or list(matrix[2]) != [0, 0, 1]:
        raise UserError(
            f"The calibration {row['token']} has no camera matrix: its camera_intrinsic must be "
            "3x3, with focal lengths above 0 and 0, 0, 1 in the last row.",
            _AGAIN,
        )
    return matrix
