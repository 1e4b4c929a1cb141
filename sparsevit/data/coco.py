"""Reads a COCO annotation file once, as data, and says what is in it, or what is wrong with it.

Training on a wrong file fails late and obscurely: a class list that does not match gives an empty
dataset, a run length that leaves its image crashes in C code. What reads the file again later
(mmdet, pycocotools) reads one that was accepted here.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import stat
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from reprlib import repr as short
from typing import Any

from sparsevit.errors import UserError

# COCO's limits between small, medium and large objects, in square pixels.
_SMALL, _MEDIUM = 32**2, 96**2

_FORMAT = "See https://cocodataset.org/#format-data for what an entry must have."
_NAMED = 3

# What OpenCV decodes at most.
_MOST_PIXELS = 2**30
# No coordinate of an image is larger.
_MOST = 1e7
# Other libraries parse the file again, deeper in the stack than this module does.
_SPARE_FRAMES = 250


@dataclass(frozen=True)
class AnnotationSummary:
    """What an annotation file holds.

    Attributes:
        path: the file.
        images, annotations: how many.
        categories: class names in the file's order, which is the order of mmdet's labels.
        per_category: class name -> number of annotations.
        small, medium, large: annotations by area (below 32^2, below 96^2, and above).
        polygons, rles: annotations by the form of their mask; those without one are in neither.
        crowds: annotations with ``iscrowd`` set.
        empty_images: images without an annotation.
    """

    path: Path
    images: int
    annotations: int
    categories: tuple[str, ...]
    per_category: dict[str, int]
    small: int
    medium: int
    large: int
    polygons: int
    rles: int
    crowds: int
    empty_images: int


@dataclass(frozen=True)
class ImageEntry:
    """An image as the file describes it: its name within the image folder, its size in pixels."""

    id: int | str
    file_name: str
    width: int
    height: int


@dataclass(frozen=True)
class Fault:
    """Why an image cannot be used, or an annotation in it, of a category."""

    image: int | str
    what: str
    category: int | str | None = None


@dataclass(frozen=True)
class Annotations:
    """What training and evaluation need to know of a file.

    Attributes:
        summary: its counts.
        images: id -> image, in the file's order.
        category_ids: class name -> id, in the file's order.
        images_with: category id -> ids of the images with an annotation of it.
        boxes: image id -> a number that follows from its boxes.
        faults: images with an annotation that cannot be used.
    """

    summary: AnnotationSummary
    images: Mapping[int | str, ImageEntry]
    category_ids: Mapping[str, int | str]
    images_with: Mapping[int | str, frozenset[int | str]]
    boxes: Mapping[int | str, int]
    faults: tuple[Fault, ...]


def check_annotations(
    path: Path | str,
    images: Path | str | None = None,
    classes: Sequence[str] | None = None,
    sample: int = 32,
) -> AnnotationSummary:
    """Checks a COCO annotation file by itself.

    Args:
        path: the JSON file.
        images: folder that its file names are relative to; None: not checked.
        classes: names that a config wants to train; each must be in the file. None: not checked.
        sample: how many images, spread over the file, are looked up in ``images``.

    Raises:
        UserError: as :func:`read_annotations`; also where an annotation cannot be used, a class of
            ``classes`` is not in the file, or sampled images are not in ``images``.
    """
    found = read_annotations(path)
    if found.faults:
        raise UserError(
            f"{path} is not in COCO's format: {named_faults(found, found.faults)}.", _FORMAT
        )
    if classes is not None:
        check_classes(found.summary, classes)
    if images is not None:
        entries = list(found.images.values())
        count = min(sample, len(entries))
        chosen = [entries[i * len(entries) // count] for i in range(count)]
        refuse_missing(found.summary.path, Path(images), chosen)
    return found.summary


def read_annotations(
    path: Path | str, needs: Iterable[str] = (), masks: bool = True
) -> Annotations:
    """Reads a COCO annotation file, and checks all that is used of it.

    Args:
        path: the JSON file; it is read again only if it has changed.
        needs: what each annotation must have beside a box: of ``area``, ``iscrowd``,
            ``segmentation``.
        masks: look at masks where they are. Else they may be anything.

    Returns:
        Its content. Annotations that cannot be used are listed in it, not refused.

    Raises:
        UserError: the file is missing, no regular file, no JSON, or not of COCO's form; it has no
            images or no annotations; ids are used twice; annotations name unknown images or
            categories.
    """
    path = Path(path)
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"Cannot read the annotation file {path}: {reason}.",
            "Check the path (data_root and ann_file in the config).",
        ) from error
    if not stat.S_ISREG(status.st_mode):
        raise UserError(
            f"Cannot read the annotation file {path}: it is not a regular file.",
            "Check the path (data_root and ann_file in the config).",
        )
    stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
    return _read_once(path, stamp, frozenset(needs), masks)


def load_json(path: Path) -> dict[str, Any]:
    """The content of a COCO file, of which only the top level is checked.

    Raises:
        UserError: it cannot be read, is no JSON, or lacks a list that COCO's form has.
    """
    remedy = "Give a COCO annotation file (instances_*.json)."
    try:
        content = _parsed(path.read_bytes(), _SPARE_FRAMES)
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.", remedy) from error
    except RecursionError:
        raise UserError(f"{path} is nested too deeply.", remedy) from None
    except MemoryError:
        raise UserError(f"{path} is larger than the memory that is free.", remedy) from None
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}.", remedy) from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a COCO annotation file: it is not an object.", remedy)
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise UserError(
                f"{path} is not a COCO annotation file: it has no '{key}' list.", remedy
            )
        if not content[key]:
            raise UserError(f"{path} has no {key}.", "Nothing can be trained or evaluated on it.")
    return content


def named_faults(found: Annotations, faults: Sequence[Fault]) -> str:
    """How many images cannot be used, and the first few, for people."""
    first: dict[int | str, str] = {}
    for fault in faults:
        first.setdefault(fault.image, f"{' ' if fault.category is None else ': '}{fault.what}")
    some = [f"{shown(found.images[i].file_name)}{what}" for i, what in list(first.items())[:_NAMED]]
    more = len(first) - len(some)
    return (
        f"{len(first)} of its {len(found.images)} images cannot be used ("
        + "; ".join(some)
        + (f"; and {more} more)" if more else ")")
    )


def check_classes(summary: AnnotationSummary, classes: Sequence[str]) -> None:
    """Refuse classes that a file does not have.

    Raises:
        UserError: with the class that was perhaps meant.
    """
    missing = [name for name in classes if name not in summary.categories]
    if not missing:
        return
    close = difflib.get_close_matches(missing[0], summary.categories, n=1)
    hint = f" (is it '{close[0]}'?)" if close else ""
    raise UserError(
        f"{len(missing)} of {len(classes)} classes of the config are not in {summary.path}: "
        f"{shortened(missing)}{hint}. The file has: {shortened(summary.categories)}.",
        "Set metainfo.classes of the datasets, and num_classes of the heads, to the file's.",
    )


def refuse_missing(path: Path, folder: Path, entries: Sequence[ImageEntry]) -> None:
    """Refuse a folder that is missing, or in which images are.

    Raises:
        UserError: with the first image that is not there.
    """
    if not folder.is_dir():
        raise UserError(
            f"The image folder {folder} does not exist.",
            "Check data_root and data_prefix in the config.",
        )
    missing = [entry for entry in entries if not os.path.lexists(folder / entry.file_name)]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(entries)} images looked up for {path} are not in {folder}, "
            f"e.g. {shown(missing[0].file_name)}.",
            "Check data_root and data_prefix in the config, or download the images.",
        )


def shortened(names: Sequence[str]) -> str:
    """The first few names, for people."""
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")


def shown(name: str) -> str:
    """A file's name, for people."""
    return name if name.isprintable() and len(name) <= 100 else short(name)


# --- reading -------------------------------------------------------------------------------------


def _parsed(content: bytes, frames: int) -> Any:
    # others read it as UTF-8, and so without a byte order mark
    return _parsed(content, frames - 1) if frames else json.loads(content.decode())


@lru_cache(maxsize=8)
def _read_once(
    path: Path, stamp: tuple[int, ...], needs: frozenset[str], masks: bool
) -> Annotations:
    content = load_json(path)
    images = {entry.id: entry for entry in _entries(path, "images", content, _image_entry)}
    names: dict[int | str, str] = dict(_entries(path, "categories", content, _category_entry))
    _check_unique(path, "image", images, content["images"])
    _check_unique(path, "category", names, content["categories"])
    twice = [name for name, count in Counter(names.values()).items() if count > 1]
    if twice:
        raise UserError(
            f"{path} has several categories that are named {short(twice[0])}.",
            "Give each category its own name, or make them one.",
        )
    return _with_annotations(path, content["annotations"], images, names, needs, masks)


def _with_annotations(
    path: Path,
    annotations: list[Any],
    images: dict[int | str, ImageEntry],
    names: dict[int | str, str],
    needs: frozenset[str],
    masks: bool,
) -> Annotations:
    by_category: Counter[Any] = Counter()
    by_size: Counter[str] = Counter()
    by_form: Counter[str] = Counter()
    images_with: defaultdict[Any, set[Any]] = defaultdict(set)
    boxes: Counter[Any] = Counter()
    faults = []
    ids = set()
    unknown: dict[str, set[Any]] = {"category": set(), "image": set()}
    crowds = 0
    for place, annotation in enumerate(annotations):
        for key in ("category_id", "image_id", "id"):
            if not isinstance(annotation, dict) or not _is_id(annotation.get(key)):
                raise _unlike_coco(path, "annotations", place, _no_id(annotation, key))
        image, category = annotation["image_id"], annotation["category_id"]
        ids.add(annotation["id"])
        if category not in names:
            unknown["category"].add(category)
            continue
        if image not in images:
            unknown["image"].add(image)
            continue
        by_category[category] += 1
        images_with[category].add(image)
        if annotation.get("segmentation"):
            by_form[type(annotation["segmentation"]).__name__] += 1
        crowds += annotation.get("iscrowd") in (1, True)
        wrong = _wrong_with(annotation, images[image], needs, masks)
        if wrong:
            what = f"annotation {short(annotation['id'])} {wrong}"
            faults.append(Fault(image, what, category))
            continue
        box = annotation["bbox"]
        boxes[image] += hash(tuple(box))
        by_size[_size_name(annotation.get("area", box[2] * box[3]))] += 1
    for what, keys in unknown.items():
        _check_references(path, what, keys)
    _check_unique(path, "annotation", ids, annotations)
    seen = frozenset().union(*images_with.values())
    summary = AnnotationSummary(
        path=path,
        images=len(images),
        annotations=len(annotations),
        categories=tuple(names.values()),
        per_category={name: by_category[key] for key, name in names.items()},
        small=by_size["small"],
        medium=by_size["medium"],
        large=by_size["large"],
        polygons=by_form["list"],
        rles=by_form["dict"],
        crowds=crowds,
        empty_images=len(images) - len(seen),
    )
    return Annotations(
        summary=summary,
        images=images,
        category_ids={name: key for key, name in names.items()},
        images_with={key: frozenset(found) for key, found in images_with.items()},
        boxes=boxes,
        faults=tuple(faults),
    )


def _entries(
    path: Path, key: str, content: Mapping[str, Any], made: Callable[[Any], Any]
) -> list[Any]:
    entries = []
    for place, entry in enumerate(content[key]):
        try:
            entries.append(made(entry))
        except ValueError as error:
            raise _unlike_coco(path, key, place, str(error)) from None
    if len({type(entry["id"]) for entry in content[key]}) > 1:
        raise UserError(
            f"{path} is not in COCO's format: some ids of its {key} are numbers and some are "
            f"strings.",
            _FORMAT,
        )
    return entries


def _image_entry(entry: Any) -> ImageEntry:
    if not isinstance(entry, dict) or not _is_id(entry.get("id")):
        raise ValueError(_no_id(entry, "id"))
    name = entry.get("file_name")
    if not isinstance(name, str) or not name or "\0" in name or not _is_encodable(name):
        raise ValueError(f"has no file_name that a file can have ({short(name)})")
    for key in ("width", "height"):
        size = entry.get(key)
        if type(size) is not int or size < 1:
            raise ValueError(f"({short(name)}) has no {key} in pixels ({short(size)})")
    if entry["width"] * entry["height"] > _MOST_PIXELS:
        raise ValueError(f"({short(name)}) has more than {_MOST_PIXELS} pixels")
    return ImageEntry(entry["id"], name, entry["width"], entry["height"])


def _category_entry(entry: Any) -> tuple[int | str, str]:
    if not isinstance(entry, dict) or not _is_id(entry.get("id")):
        raise ValueError(_no_id(entry, "id"))
    name = entry.get("name")
    if not isinstance(name, str) or not name:
        raise ValueError(f"has no name ({short(name)})")
    return entry["id"], name


def _no_id(entry: Any, key: str) -> str:
    if not isinstance(entry, dict):
        return f"is not an object ({short(entry)})"
    if key not in entry:
        return f"has no {key}"
    return f"has {short(entry[key])} as {key}, which is neither an integer nor a string"


def _unlike_coco(path: Path, key: str, place: int, what: str) -> UserError:
    return UserError(f"{path} is not in COCO's format: {key}[{place}] {what}.", _FORMAT)


def _is_id(value: Any) -> bool:
    return (type(value) is int and abs(value) < 2**63) or type(value) is str


def _is_encodable(name: str) -> bool:
    try:
        os.fsencode(name)
    except UnicodeError:
        return False
    return True


def _size_name(area: float) -> str:
    if area < _SMALL:
        return "small"
    return "medium" if area < _MEDIUM else "large"


def _check_unique(path: Path, what: str, different: Any, entries: list[Any]) -> None:
    if len(different) != len(entries):
        counts = Counter(entry["id"] for entry in entries)
        key, count = counts.most_common(1)[0]
        raise UserError(
            f"{path} uses the same {what} id for several entries: {short(key)} {count} times.",
            f"Give each {what} its own id.",
        )


def _check_references(path: Path, what: str, unknown: set[Any]) -> None:
    if unknown:
        some = ", ".join(short(key) for key in sorted(unknown, key=str)[:3])
        raise UserError(
            f"Annotations in {path} refer to {what} ids that are not in the file ({some}).",
            f"Add the missing {what} entries, or remove those annotations.",
        )


# --- one annotation ------------------------------------------------------------------------------


def _wrong_with(
    annotation: Mapping[str, Any], image: ImageEntry, needs: frozenset[str], masks: bool
) -> str | None:
    """What of an annotation cannot be used."""
    box: Any = annotation.get("bbox")
    if not has_box(annotation):
        return f"has no bbox of four finite numbers ({short(box)})"
    if box[2] < 0 or box[3] < 0:
        return f"has a bbox with a negative width or height ({short(box)})"
    if "area" in annotation or "area" in needs:
        area = annotation.get("area")
        if not _is_number(area, _MOST_PIXELS, least=0):
            return f"has no area in square pixels ({short(area)})"
    if "iscrowd" in annotation or "iscrowd" in needs:
        crowd = annotation.get("iscrowd")
        if not isinstance(crowd, (int, float)) or crowd not in (0, 1):
            return f"has no iscrowd of 0 or 1 ({short(crowd)})"
    segmentation = annotation.get("segmentation")
    if not segmentation and isinstance(segmentation, (list, dict, type(None))):
        return "has no segmentation" if "segmentation" in needs else None
    return _wrong_with_mask(segmentation, image) if masks else None


def has_box(annotation: Mapping[str, Any]) -> bool:
    """Whether an annotation has a ``bbox`` of four finite numbers."""
    box = annotation.get("bbox")
    return isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))


def _is_number(value: Any, most: float = _MOST, least: float = -_MOST) -> bool:
    return type(value) in (int, float) and least <= value <= most


def _are_finite(numbers: list[Any]) -> bool:
    """Whether all are finite numbers; there are millions of them."""
    try:
        return {*map(type, numbers)} <= {int, float} and math.isfinite(sum(numbers))
    except OverflowError:
        return False


def _wrong_with_mask(mask: Any, image: ImageEntry) -> str | None:
    if isinstance(mask, list):
        # it is drawn pixel by pixel, wherever it leads
        most = 10 * max(image.width, image.height) + 1000
        return next(filter(None, (_wrong_with_polygon(one, most) for one in mask)), None)
    if not isinstance(mask, dict):
        return f"has a segmentation that is neither a list of polygons nor RLE ({short(mask)})"
    size, counts = mask.get("size"), mask.get("counts")
    if size != [image.height, image.width]:
        return (
            f"has an RLE mask of size {short(size)}, and the image is "
            f"{[image.height, image.width]} (height, width)"
        )
    if isinstance(counts, str):
        counts = _run_lengths(counts)
    if not isinstance(counts, list) or not all(
        type(count) is int and 0 <= count <= _MOST_PIXELS for count in counts
    ):
        return f"has an RLE mask whose counts are malformed ({short(mask.get('counts'))})"
    if sum(counts) != image.height * image.width:
        return (
            f"has an RLE mask whose run lengths add up to {short(sum(counts))} pixels, and the "
            f"image has {image.height * image.width}"
        )
    return None


def _wrong_with_polygon(polygon: Any, most: float) -> str | None:
    if not isinstance(polygon, list) or not _are_finite(polygon):
        return f"has a polygon that is not a list of finite numbers ({short(polygon)})"
    if polygon and (min(polygon) < -most or max(polygon) > most):
        return f"has a polygon that leads far out of the image ({short(polygon)})"
    if len(polygon) < 6 or len(polygon) % 2:
        return f"has a polygon of {len(polygon)} numbers, not x and y of three points or more"
    return None


def _run_lengths(text: str) -> list[int] | None:
    """Run lengths of COCO's compressed RLE; None where it is malformed.

    Each number is written in groups of 5 bits, the lowest first, with a bit that says whether more
    follow. From the fourth number on it is the difference to the last but one.
    """
    import numpy as np

    codes = np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int64) - 48
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        return None
    ends = np.flatnonzero((codes & 32) == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 7:
        return None
    groups = np.arange(len(codes)) - np.repeat(starts, lengths)
    values = np.add.reduceat((codes & 31) << (5 * groups), starts)
    values -= np.where(codes[ends] & 16, 1 << (5 * lengths), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    counts: list[int] = values.tolist()
    return counts
