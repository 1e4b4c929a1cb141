"""Own data with boxes: files of COCO's form, by whatever names."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsevit.data.coco import (
    Annotations,
    check_classes,
    has_box,
    load_json,
    named_faults,
    read_annotations,
    refuse_missing,
    shortened,
)
from sparsevit.data.images import image_faults
from sparsevit.data.own.description import Choice, OwnData, Split
from sparsevit.data.own.folders import assigned, by_name, cut, folder_of
from sparsevit.data.own.given import Given
from sparsevit.errors import UserError

_MOST_FILES = 200
_BOX_SHARE = 0.99
"""Masks of which so many are no more than their box are not learned."""


@dataclass
class _File:
    """An annotation file: its split, what it holds, and the folder of its images."""

    path: Path
    split: str | None
    found: Annotations
    folder: Path


def coco_files(files: Sequence[Path]) -> tuple[list[Path], dict[Path, UserError]]:
    """The files of COCO's form, and what is wrong with those that nearly are."""
    images = {path.with_suffix("") for path in files if path.suffix.lower() != ".json"}
    # a description of one image alone lies beside it
    named = [p for p in files if p.suffix.lower() == ".json" and p.with_suffix("") not in images]
    good: list[Path] = []
    wrong: dict[Path, UserError] = {}
    for path in filter(Path.is_file, named[:_MOST_FILES]):
        try:
            load_json(path)
            good.append(path)
        except UserError as error:
            if "not a COCO annotation file" not in error.problem:
                wrong[path] = error
    return good, wrong


def describe(
    given: Given, files: Sequence[Path], paths: Mapping[str | None, list[Path]], *, look: bool
) -> OwnData:
    """What annotation files say.

    Args:
        given: what the user says.
        files: all under its root.
        paths: split, None where it has none -> annotation files.
        look: read images too.

    Raises:
        UserError: the files do not go together, or something is missing.
    """
    chosen = {split: _one(split, found) for split, found in paths.items()}
    splits, must_cut = assigned(chosen, "annotation files")
    index = by_name(files)
    opened = {name: _open(given, path, name, index) for name, path in splits.items()}
    said: list[Choice] = []
    classes = _classes(given, opened, said)
    kept: dict[str, Collection[Any] | None] = dict.fromkeys(opened)
    if must_cut:
        one = opened["train"]
        within: dict[Any, list[str]] = {key: [] for key in one.found.images}
        for name in classes:
            for key in one.found.images_with.get(one.found.category_ids[name], ()):
                within[key].append(name)
        annotated = [key for key, names in within.items() if names]
        _, val = cut(annotated, within, given.seed)
        train = set(within) - val
        kept = {**kept, "train": train, "val": val}
        opened["val"] = one
        said.append(
            Choice(
                "splits",
                f"{len(train)} train, {len(val)} val",
                f"{one.path.name} is one set, split by seed {given.seed}",
            )
        )
    masks = _have_masks(opened, classes, said)
    made: dict[str, Split] = {}
    boxes: list[tuple[float, float]] = []
    for name, one in opened.items():
        made[name], found_boxes = _split(one, kept[name], classes)
        boxes = found_boxes if name == "train" else boxes
    if not boxes:
        raise UserError(
            f"No box in {opened['train'].path} can be used.",
            "Give each annotation a bbox: [x, y, width, height], in pixels.",
        )
    sizes = Counter(
        (image.width, image.height)
        for one in {id(one): one for one in opened.values()}.values()
        for image in one.found.images.values()
    )
    return OwnData(
        task="detection",
        root=given.root,
        classes=classes,
        splits=made,
        sizes=sizes,
        said=tuple(said),
        faults=_faults(opened, look),
        boxes=boxes,
        masks=masks,
        image_size=given.image_size,
        iterations=given.iterations,
        names_from="named in the annotations",
    )


def _one(split: str | None, found: list[Path]) -> Path:
    """The file of a split, where COCO's own sets have several."""
    instances = [path for path in found if "instances" in path.stem.lower()]
    fewer = instances or found
    if len(fewer) > 1:
        names = ", ".join(path.name for path in fewer[:3])
        what = f"for {split}" if split else "whose name says no split"
        raise UserError(
            f"There are {len(fewer)} annotation files {what}: {names}.",
            "Say which to use in a YAML file: annotations: {train: FILE, val: FILE}.",
        )
    return fewer[0]


def _open(given: Given, path: Path, split: str, index: Mapping[str, list[Path]]) -> _File:
    found = read_annotations(path)
    names = [image.file_name for image in found.images.values()]
    folder = given.images.get(split, given.images.get(None))
    if folder is None or not (folder / names[0]).exists():
        root = given.root if folder is None else folder
        folder = folder_of(names, root, path.parent, split, index)
    refuse_missing(path, folder, list(found.images.values()))
    return _File(path, split, found, folder)


def _classes(given: Given, opened: Mapping[str, _File], said: list[Choice]) -> tuple[str, ...]:
    """Those that have an object somewhere, in the order of the first file."""
    first = opened["train"]
    listed = [one.found.summary.categories for one in opened.values()]
    if given.classes is not None:
        for one in opened.values():
            check_classes(one.found.summary, given.classes)
        wanted = set(given.classes)
    else:
        counts = [one.found.summary.per_category for one in opened.values()]
        wanted = {name for count in counts for name, number in count.items() if number}
    classes = {
        one.path: tuple(c for c in names if c in wanted)
        for one, names in zip(opened.values(), listed, strict=True)
    }
    ours = classes[first.path]
    for path, theirs in classes.items():
        if theirs != ours:
            odd = sorted(set(theirs) ^ set(ours))
            what = (
                f"{shortened(odd)} in one of them only"
                if odd
                else f"the same in another order ({shortened(ours)}; {shortened(theirs)})"
            )
            raise UserError(
                f"{first.path} and {path} disagree on classes: {what}.",
                "Give all files the same categories in the same order, or name those to use in a "
                "YAML file: classes: [...].",
            )
    if not any(first.found.summary.per_category.get(name) for name in ours):
        raise UserError(
            f"No object in {first.path} is of the classes {shortened(sorted(wanted))}.",
            "Correct classes, or the annotations.",
        )
    unused = [name for name in first.found.summary.categories if name not in ours]
    if unused:
        why = "not in classes" if given.classes is not None else "no object has them"
        said.append(Choice("left out", shortened(unused), why))
    return ours


def _have_masks(opened: Mapping[str, _File], classes: Sequence[str], said: list[Choice]) -> bool:
    """Whether all objects have masks that say more than their boxes."""
    flat = objects = masked = 0
    for one in {id(one): one for one in opened.values()}.values():
        wanted = {one.found.category_ids[name] for name in classes}
        for note in load_json(one.path)["annotations"]:
            if note["category_id"] in wanted:
                objects += 1
                masked += bool(note.get("segmentation"))
                flat += _is_box(note)
    if masked < objects:
        if masked:
            why = f"only {masked} of {objects} objects have a mask"
            said.append(Choice("masks", "not used", why))
        return False
    if flat >= _BOX_SHARE * objects:
        said.append(Choice("masks", "not used", "they are the boxes"))
        return False
    return True


def _is_box(note: Mapping[str, Any]) -> bool:
    polygons, box = note.get("segmentation"), note.get("bbox")
    if not isinstance(polygons, list) or len(polygons) != 1 or not isinstance(box, list):
        return False
    one = polygons[0]
    if not isinstance(one, list) or len(one) not in (8, 10) or len(box) != 4:
        return False
    ends = ((box[0], box[0] + box[2]), (box[1], box[1] + box[3]))
    return all(min(abs(v - end) for end in ends[i % 2]) <= 1 for i, v in enumerate(one))


def _split(
    one: _File, ids: Collection[Any] | None, classes: Sequence[str]
) -> tuple[Split, list[tuple[float, float]]]:
    content = load_json(one.path)
    names = {one.found.category_ids[name]: name for name in classes}
    broken = {fault.image for fault in one.found.faults}
    amounts: Counter[str] = Counter()
    within: defaultdict[str, set[Any]] = defaultdict(set)
    boxes, kept, full, outside, incomplete = [], [], set(), 0, False
    for note in content["annotations"]:
        key = note["image_id"]
        if ids is not None and key not in ids:
            continue
        kept.append(note)
        incomplete |= "area" not in note or "iscrowd" not in note
        if note["category_id"] not in names or key in broken:
            continue
        image, (x, y, width, height) = one.found.images[key], note["bbox"]
        amounts[names[note["category_id"]]] += 1
        within[names[note["category_id"]]].add(key)
        full.add(key)
        outside += x < -1 or y < -1 or x + width > image.width + 1 or y + height > image.height + 1
        if width > 0 and height > 0:
            boxes.append((width / image.width, height / image.height))
    images = [image for image in content["images"] if ids is None or image["id"] in ids]
    rewritten = None
    if ids is not None or incomplete:
        whole = [
            {"iscrowd": 0, "area": _area(note), **note} if incomplete else note for note in kept
        ]
        rewritten = {**content, "images": images, "annotations": whole}
    return Split(
        images=one.folder,
        annotations=one.path,
        names=tuple(image["file_name"] for image in images),
        amounts={name: amounts[name] for name in classes},
        images_with={name: len(within[name]) for name in classes},
        empty=len(images) - len(full),
        outside=outside,
        rewritten=rewritten,
    ), boxes


def _area(note: Mapping[str, Any]) -> Any:
    return note["bbox"][2] * note["bbox"][3] if has_box(note) else 0


def _faults(opened: Mapping[str, _File], look: bool) -> tuple[str, ...]:
    said = []
    for one in {id(one): one for one in opened.values()}.values():
        faults = list(one.found.faults)
        if look:
            faults += image_faults(one.folder, one.found.images.values())
        if faults:
            said.append(f"{one.path}: {named_faults(one.found, faults)}")
    return tuple(said)
