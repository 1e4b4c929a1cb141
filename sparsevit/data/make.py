"""Generates the embedded dataset on disk; an interrupted generation is completed by the next one.

``dataset.json`` is written first with ``"complete": false`` and again when everything else is
there. Every file appears whole (written beside its place, then renamed), so a killed generation
leaves files that are right and files that are missing, never files that are half.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from sparsevit import plain_files
from sparsevit.atomic import write_atomic
from sparsevit.data.spec import CLASSES, SPLITS, DatasetSpec, differences
from sparsevit.errors import UserError

if TYPE_CHECKING:
    from sparsevit.data.scene import Placed

RECORD = "dataset.json"
_FORMAT = 1
_LOCK = ".dataset.lock"
_OWN_IMAGE = re.compile(r"\d{6,}\.(png|jpg)")
# What a killed generation may leave of a file it was writing.
_LEFTOVER = re.compile(
    r"\.(dataset\.json|instances_\w+\.json|(train|val)\.txt|\d{6,}\.(png|jpg))\.\d+"
    r"(-[0-9a-f]{8})?\.tmp"
)


@dataclass(frozen=True)
class Dataset:
    """A dataset on disk.

    Attributes:
        root: its folder.
        spec: what it was made from.
        state: ``made`` now, ``completed`` (an earlier generation had been interrupted, or files
            were missing), or ``reused`` as it was.
        painted: how many images were written by this call.
        annotations: split -> COCO file; of images in folders of classes, a list of images and
            labels. The split's images lie in ``root / split``.
        digest: SHA-256 over both annotation files; equal datasets have equal digests.
    """

    root: Path
    spec: DatasetSpec
    state: str
    painted: int
    annotations: dict[str, Path]
    digest: str


def annotation_file(root: Path, split: str) -> Path:
    """Where the COCO annotations of ``split`` lie."""
    return root / "annotations" / f"instances_{split}.json"


def list_file(root: Path, split: str) -> Path:
    """Where the images of ``split`` in folders of classes are listed: a line for each, with its
    label, as in ImageNet's ``meta``. Labels count the classes in the order of their names."""
    return root / "meta" / f"{split}.txt"


def label_folder(root: Path, split: str) -> Path:
    """Where the label maps of ``split`` lie, if there are any: PNG files named as the images."""
    return root / "labels" / split


def image_name(spec: DatasetSpec, index: int) -> str:
    """File name of image ``index`` within its split's folder, after that of its class, if any."""
    folder = f"{spec.classes[index % len(spec.classes)]}/" if spec.folders else ""
    return f"{folder}{index:06d}.{spec.image_format}"


def label_name(index: int) -> str:
    """File name of the label map of image ``index``."""
    return f"{index:06d}.png"


def make_dataset(
    root: Path | str,
    spec: DatasetSpec,
    *,
    force: bool = False,
    on_image: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Makes the dataset of ``spec`` at ``root``, or finds that it is there.

    Args:
        root: its folder; made if missing.
        spec: what to make.
        force: replace a dataset that is there, also one of the same spec. Other files stay.
        on_image: called after each image with the number done and the number of all.

    Raises:
        UserError: the folder holds another dataset (without ``force``) or other files, cannot be
            written, or another process is writing there.
    """
    root = Path(root)
    if not force and _is_complete(root, spec):
        return _dataset(root, spec, "reused", 0)
    with mended_os_errors(root):
        # before anything is written, the lock's file too
        if root.is_dir() and read_record(root) is None:
            refuse_foreign_files(root)
    with mended_os_errors(root), locked(root):
        had_record = _claim(root, spec, force)
        painted = sum(_make_split(root, spec, split, on_image) for split in SPLITS)
        _write_record(root, spec, complete=True)
    return _dataset(root, spec, "completed" if had_record else "made", painted)


def read_record(root: Path) -> dict[str, Any] | None:
    """The content of ``dataset.json``; None where there is none that this module wrote."""
    path = root / RECORD
    try:
        record = plain_files.read_record(path)
    except ValueError:
        return None
    if not isinstance(record, dict) or record.get("format") != _FORMAT:
        return None
    return record if isinstance(record.get("spec"), dict) else None


def _dataset(root: Path, spec: DatasetSpec, state: str, painted: int) -> Dataset:
    paths = {split: _described_in(root, spec, split) for split in SPLITS}
    digest = hashlib.sha256("".join(_sha256(path) for path in paths.values()).encode())
    return Dataset(root, spec, state, painted, paths, digest.hexdigest())


def _is_complete(root: Path, spec: DatasetSpec) -> bool:
    record = read_record(root)
    if record is None or not record.get("complete") or record["spec"] != spec.to_dict():
        return False
    return all(_split_is_whole(root, spec, split, record) for split in SPLITS)


def _split_is_whole(root: Path, spec: DatasetSpec, split: str, record: dict[str, Any]) -> bool:
    path = _described_in(root, spec, split)
    if not path.is_file() or _sha256(path) != record.get("annotations", {}).get(split):
        return False
    return not _missing_images(root, spec, split)


def _missing_images(root: Path, spec: DatasetSpec, split: str) -> set[int]:
    images, labels = _names_in(root / split), _names_in(label_folder(root, split))
    if spec.folders:
        images = {f"{name}/{one}" for name in images for one in _names_in(root / split / name)}
    return {
        index
        for index in range(spec.count(split))
        if image_name(spec, index) not in images
        or (spec.labels and label_name(index) not in labels)
    }


def _names_in(folder: Path) -> set[str]:
    return {entry.name for entry in os.scandir(folder)} if folder.is_dir() else set()


def _claim(root: Path, spec: DatasetSpec, force: bool) -> bool:
    """Makes ``root`` ours for ``spec``. Returns whether a generation of it had begun before."""
    record = read_record(root)
    if record is None:
        refuse_foreign_files(root)
    else:
        refuse_other_spec(root, record["spec"], spec.to_dict(), force)
    begun = record is not None and not force
    if force:
        _remove_generated(root)
    # the first that is written: a folder without it is not ours to go on with
    _write_record(root, spec, complete=False)
    for folder in (root, *_folders(root, spec)):
        folder.mkdir(parents=True, exist_ok=True)
        for entry in folder.iterdir():
            if _LEFTOVER.fullmatch(entry.name):
                entry.unlink()
    return begun


def _described_in(root: Path, spec: DatasetSpec, split: str) -> Path:
    return list_file(root, split) if spec.folders else annotation_file(root, split)


def _folders(root: Path, spec: DatasetSpec) -> list[Path]:
    """All that a dataset has."""
    found = [_described_in(root, spec, SPLITS[0]).parent, *(root / split for split in SPLITS)]
    if spec.labels:
        found += [label_folder(root, split) for split in SPLITS]
    if spec.folders:
        found += [root / split / name for split in SPLITS for name in spec.classes]
    return found


def refuse_foreign_files(root: Path) -> None:
    """Refuse a folder, not yet ours, that has files in it.

    Raises:
        UserError: it has.
    """
    foreign = sorted(
        entry.name
        for entry in root.iterdir()
        if entry.name != _LOCK and not _LEFTOVER.fullmatch(entry.name)
    )
    if foreign:
        shown = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
        raise UserError(
            f"{root} contains files that are not a dataset made by sparsevit ({shown}).",
            "Choose an empty or a new folder.",
        )


def refuse_other_spec(root: Path, old: dict[str, Any], new: dict[str, Any], force: bool) -> None:
    """Refuse a folder that has a dataset of another kind, or, without ``force``, of another spec.

    Raises:
        UserError: it has.
    """
    kinds = [spec.get("task", "detection or segmentation") for spec in (old, new)]
    if kinds[0] != kinds[1]:
        raise UserError(
            f"{root} contains a dataset for {kinds[0]}, not for {kinds[1]}.",
            "Choose another folder.",
        )
    if not force and old != new:
        raise UserError(
            f"{root} contains a dataset made with different options ({differences(old, new)}).",
            "Use --force to replace it, or choose another folder.",
        )


def _remove_generated(root: Path) -> None:
    """Deletes what a generation wrote, nothing else."""
    for split in SPLITS:
        for path in (annotation_file(root, split), list_file(root, split)):
            path.unlink(missing_ok=True)
        classes = [root / split / name for name in CLASSES]
        for folder in (root / split, label_folder(root, split), *classes):
            for entry in list(os.scandir(folder)) if folder.is_dir() else []:
                if entry.is_file(follow_symlinks=False) and _OWN_IMAGE.fullmatch(entry.name):
                    os.unlink(entry.path)
        for folder in classes:
            # an empty one would be a class
            with suppress(OSError):
                folder.rmdir()


def _make_split(
    root: Path, spec: DatasetSpec, split: str, on_image: Callable[[int, int], None] | None
) -> int:
    """Writes a split's missing images, then its annotations. Returns how many were painted."""
    from sparsevit.data.scene import layout, paint

    missing = _missing_images(root, spec, split)
    before = 0 if split == SPLITS[0] else spec.train
    annotations: list[dict[str, Any]] = []
    for index in range(spec.count(split)):
        if spec.folders and index not in missing:
            continue
        objects = layout(spec, split, index)
        if index in missing:
            pixels = paint(spec, split, index, objects)
            # whoever finds one missing paints it again
            image = root / split / image_name(spec, index)
            write_atomic(image, encode_image(pixels, spec.image_format), durable=False)
            if spec.labels:
                label_map = label_folder(root, split) / label_name(index)
                write_atomic(
                    label_map, encode_image(label_map_of(spec, objects), "png"), durable=False
                )
        if not spec.folders:
            annotations += _image_annotations(spec, index, objects, first_id=len(annotations) + 1)
        if on_image is not None:
            on_image(before + index + 1, spec.train + spec.val)
    if spec.folders:
        write_atomic(list_file(root, split), _listed(spec, split).encode())
        return len(missing)
    content = {
        "info": _info(spec, split),
        "licenses": [],
        "categories": _categories(spec),
        "images": [_image_entry(spec, index) for index in range(spec.count(split))],
        "annotations": annotations,
    }
    text = json.dumps(content, separators=(",", ":"))
    write_atomic(annotation_file(root, split), text.encode())
    return len(missing)


def _listed(spec: DatasetSpec, split: str) -> str:
    """A line for each image and its label."""
    names, order = spec.classes, sorted(spec.classes)
    return "".join(
        f"{image_name(spec, index)} {order.index(names[index % len(names)])}\n"
        for index in range(spec.count(split))
    )


def _image_annotations(
    spec: DatasetSpec, index: int, objects: list[Placed], first_id: int
) -> list[dict[str, Any]]:
    from sparsevit.data import masks

    size = (spec.height, spec.width)
    return [
        {
            "id": first_id + place,
            "image_id": index + 1,
            "category_id": item.label + 1,
            "iscrowd": 0,
            **masks.encode(item.visible, item.left, item.top, size, spec.masks),
        }
        for place, item in enumerate(objects)
    ]


def _image_entry(spec: DatasetSpec, index: int) -> dict[str, Any]:
    return {
        "id": index + 1,
        "file_name": image_name(spec, index),
        "width": spec.width,
        "height": spec.height,
    }


def _info(spec: DatasetSpec, split: str) -> dict[str, Any]:
    return {
        "description": f"sparsevit shapes, {split} split, generated with seed {spec.seed}",
        "version": str(spec.to_dict()["generator"]),
    }


def _categories(spec: DatasetSpec) -> list[dict[str, Any]]:
    return [
        {"id": label + 1, "name": name, "supercategory": "shape"}
        for label, name in enumerate(spec.classes)
    ]


def label_map_of(spec: DatasetSpec, objects: list[Placed]) -> Any:
    """(height, width) uint8: 0 where no object is seen, else 1 + its index in ``spec.classes``."""
    import numpy as np

    labels = np.zeros((spec.height, spec.width), np.uint8)
    for item in objects:
        rows, columns = item.visible.shape
        part = labels[item.top : item.top + rows, item.left : item.left + columns]
        part[item.visible] = item.label + 1
    return labels


def encode_image(pixels: Any, image_format: str) -> bytes:
    """Image file content of (height, width) or (height, width, 3) uint8, BGR."""
    import cv2

    # Huffman coding alone is the fastest here, and the smallest: noise has no repetitions to find.
    options = {
        "png": (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, 2),
        "jpg": (cv2.IMWRITE_JPEG_QUALITY, 95),
    }[image_format]
    return cv2.imencode(f".{image_format}", pixels, options)[1].tobytes()


def _write_record(root: Path, spec: DatasetSpec, *, complete: bool) -> None:
    record: dict[str, Any] = {"format": _FORMAT, "complete": complete, "spec": spec.to_dict()}
    if complete:
        record["annotations"] = {s: _sha256(_described_in(root, spec, s)) for s in SPLITS}
    write_atomic(root / RECORD, (json.dumps(record, indent=2) + "\n").encode())


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Alone in a dataset's folder, which is made if missing.

    Raises:
        UserError: another process writes there.
    """
    root.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(root / _LOCK, timeout=0):
            yield
    except filelock.Timeout:
        raise UserError(
            f"Another process is writing the dataset at {root}.", "Wait until it is done."
        ) from None


@contextmanager
def mended_os_errors(root: Path) -> Iterator[None]:
    """What the system says of a folder that cannot be written, as a ``UserError``."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"Cannot write the dataset at {root}: {reason}.",
            "Choose a folder that you can write to.",
        ) from error
