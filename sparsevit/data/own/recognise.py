"""What kind of data a folder holds."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from sparsevit.data.own import class_folders, label_maps, objects
from sparsevit.data.own.description import OwnData
from sparsevit.data.own.folders import files_in, is_image, split_of
from sparsevit.data.own.given import KEYS, Given, given
from sparsevit.errors import UserError

DETECTION, SEGMENTATION, CLASSIFICATION = "detection", "segmentation", "classification"
FORMS = (
    "Give COCO annotation files and their images; or images and label maps of the same names; or a "
    "folder of images for each class; or a YAML file that says where they are (keys: "
    f"{', '.join(KEYS)})."
)


def recognise(source: str | os.PathLike[str], *, look: bool = False) -> OwnData:
    """Describe the data in a folder, or that a YAML file names; nothing is written.

    Args:
        source: a folder, a YAML file, or a COCO file.
        look: read images too, where nothing else needs them.

    Raises:
        UserError: nothing that is known is there, or it does not go together.
    """
    said = given(source, (DETECTION, SEGMENTATION, CLASSIFICATION))
    files = _files(said)
    if said.task == CLASSIFICATION:
        return _classes(said, files, look)
    coco, wrong = _coco(said, files) if said.task != SEGMENTATION else ({}, [])
    if coco:
        if wrong:
            raise wrong[0]
        return objects.describe(said, files, coco, look=look)
    pairs = label_maps.label_pairs(said, files) if said.task != DETECTION else []
    if pairs:
        return label_maps.describe(said, files, pairs)
    if wrong:
        raise wrong[0]
    if said.task is None and not said.annotations:
        return _classes(said, files, look)
    raise _unknown(said, files)


def _classes(said: Given, files: Sequence[Path], look: bool) -> OwnData:
    found = class_folders.class_folders(said, files)
    if not found:
        raise _unknown(said, files)
    return class_folders.describe(said, found, look=look)


def _files(said: Given) -> list[Path]:
    """Those of the folders that are named; of the root too, where it is not said where all is."""
    named = (*said.images.values(), *said.annotations.values())
    places = [place for place in named if place.is_dir()]
    if not (said.images and said.annotations):
        places.insert(0, said.root)
    return list(dict.fromkeys(path for place in places for path in files_in(place)))


def _coco(
    said: Given, files: Sequence[Path]
) -> tuple[dict[str | None, list[Path]], list[UserError]]:
    """Annotation files by split, and what is wrong with those that nearly are such."""
    named = [place for place in said.annotations.values() if place.is_file()]
    folders = [place for place in said.annotations.values() if place.is_dir()]
    within = [path for path in files if any(path.is_relative_to(place) for place in folders)]
    found, wrong = objects.coco_files(named or within or files)
    # images to be tested elsewhere come without annotations
    faults = [
        error
        for path, error in wrong.items()
        if "has no annotations" not in error.problem or split_of(path) != "test"
    ]
    if named and faults:
        raise faults[0]
    if named and len(found) < len(named):
        raise UserError(
            f"{next(p for p in named if p not in found)} is not a COCO annotation file.", FORMS
        )
    by_split: dict[str | None, list[Path]] = defaultdict(list)
    for path in found:
        inside = path.relative_to(said.root) if path.is_relative_to(said.root) else Path(path.name)
        places = said.annotations.items()
        told = next((s for s, place in places if s and path.is_relative_to(place)), None)
        by_split[told or split_of(inside)].append(path)
    if None in by_split and "train" in by_split:
        del by_split[None]
    return by_split, faults


def _unknown(said: Given, files: Sequence[Path]) -> UserError:
    images = [path for path in files if is_image(path)]
    what = f"{len(images)} images and no annotations that are known" if images else "no image"
    if said.task is not None:
        what = f"no data for {said.task} that is known"
    return UserError(f"{said.root} has {what}.", FORMS)
