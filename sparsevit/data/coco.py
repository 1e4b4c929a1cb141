"""Reads a COCO annotation file once and says what is in it, or what is wrong with it.

Training on a wrong file fails late and obscurely (a class list that does not match gives an empty
dataset); phases call :func:`check_annotations` first.
"""

from __future__ import annotations

import difflib
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sparsevit.errors import UserError

# COCO's limits between small, medium and large objects, in square pixels.
_SMALL, _MEDIUM = 32**2, 96**2


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


def check_annotations(
    path: Path | str,
    images: Path | str | None = None,
    classes: Sequence[str] | None = None,
    sample: int = 32,
) -> AnnotationSummary:
    """Checks a COCO annotation file as far as training and evaluation rely on it.

    Args:
        path: the JSON file.
        images: folder that its file names are relative to; None: not checked.
        classes: names that a config wants to train; each must be in the file. None: not checked.
        sample: how many images, spread over the file, are looked up in ``images``.

    Raises:
        UserError: the file is missing, no JSON, or not of COCO's form; it has no images or no
            annotations; annotations name unknown images or categories; a class of ``classes`` is
            not in it; sampled images are not in ``images``.
    """
    summary, names = _read(Path(path))
    if classes is not None:
        _check_classes(summary, classes)
    if images is not None:
        _check_images(summary.path, Path(images), names, sample)
    return summary


def _read(path: Path) -> tuple[AnnotationSummary, tuple[str, ...]]:
    """The summary and all image file names; read again only if the file has changed."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise UserError(
            f"Cannot read the annotation file {path}: {error.strerror}.",
            "Check the path (data_root and ann_file in the config).",
        ) from error
    return _read_once(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=8)
def _read_once(path: Path, mtime: int, size: int) -> tuple[AnnotationSummary, tuple[str, ...]]:
    content = _load(path)
    try:
        names = tuple(str(image["file_name"]) for image in content["images"])
        return _summarise(path, content), names
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"an entry has no {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(
            f"{path} is not in COCO's format: {what}.",
            "See https://cocodataset.org/#format-data for what an entry must have.",
        ) from error


def _load(path: Path) -> dict[str, Any]:
    remedy = "Give a COCO annotation file (instances_*.json)."
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.", remedy) from error
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


def _summarise(path: Path, content: dict[str, Any]) -> AnnotationSummary:
    names = {category["id"]: str(category["name"]) for category in content["categories"]}
    image_ids = {image["id"] for image in content["images"]}
    _check_unique(path, "image", len(image_ids), len(content["images"]))
    _check_unique(path, "category", len(names), len(content["categories"]))
    by_category: Counter[Any] = Counter()
    by_size: Counter[str] = Counter()
    by_form: Counter[str] = Counter()
    seen_images = set()
    crowds = 0
    for annotation in content["annotations"]:
        by_category[annotation["category_id"]] += 1
        seen_images.add(annotation["image_id"])
        _, _, width, height = annotation["bbox"]
        by_size[_size_name(annotation.get("area", width * height))] += 1
        by_form[type(annotation.get("segmentation")).__name__] += 1
        crowds += bool(annotation.get("iscrowd"))
    _check_references(path, "category", set(by_category) - set(names))
    _check_references(path, "image", seen_images - image_ids)
    return AnnotationSummary(
        path=path,
        images=len(image_ids),
        annotations=len(content["annotations"]),
        categories=tuple(names.values()),
        per_category={name: by_category[key] for key, name in names.items()},
        small=by_size["small"],
        medium=by_size["medium"],
        large=by_size["large"],
        polygons=by_form["list"],
        rles=by_form["dict"],
        crowds=crowds,
        empty_images=len(image_ids - seen_images),
    )


def _size_name(area: float) -> str:
    if area < _SMALL:
        return "small"
    return "medium" if area < _MEDIUM else "large"


def _check_unique(path: Path, what: str, different: int, total: int) -> None:
    if different != total:
        raise UserError(
            f"{path} uses the same {what} id for several entries.", f"Give each {what} its own id."
        )


def _check_references(path: Path, what: str, unknown: set[Any]) -> None:
    if unknown:
        some = ", ".join(str(key) for key in sorted(unknown, key=str)[:3])
        raise UserError(
            f"Annotations in {path} refer to {what} ids that are not in the file ({some}).",
            f"Add the missing {what} entries, or remove those annotations.",
        )


def _check_classes(summary: AnnotationSummary, classes: Sequence[str]) -> None:
    missing = [name for name in classes if name not in summary.categories]
    if not missing:
        return
    close = difflib.get_close_matches(missing[0], summary.categories, n=1)
    hint = f" (is it '{close[0]}'?)" if close else ""
    raise UserError(
        f"{len(missing)} of {len(classes)} classes of the config are not in {summary.path}: "
        f"{_shortened(missing)}{hint}. The file has: {_shortened(summary.categories)}.",
        "Set metainfo.classes of the datasets, and num_classes of the heads, to the file's.",
    )


def _shortened(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")


def _check_images(path: Path, folder: Path, names: tuple[str, ...], sample: int) -> None:
    if not folder.is_dir():
        raise UserError(
            f"The image folder {folder} does not exist.",
            "Check data_root and data_prefix in the config.",
        )
    count = min(sample, len(names))
    chosen = [names[i * len(names) // count] for i in range(count)]
    missing = [name for name in chosen if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of {count} images looked up for {path} are not in {folder}, "
            f"e.g. {missing[0]}.",
            "Check data_root and data_prefix in the config, or download the images.",
        )
