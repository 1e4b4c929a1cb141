"""What a user says of own data in a small YAML file."""

from __future__ import annotations

import difflib
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparsevit.data.own.description import MOST_PIXELS_A_SIDE, Size
from sparsevit.errors import UserError, shortened
from sparsevit.limits import LONGEST_TRAINING
from sparsevit.plain_files import expanded, read_plain, read_text

SUFFIXES = (".yaml", ".yml")
KEYS = (*("task", "images", "annotations", "classes", "image_size", "iterations", "void", "seed"),)
_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Given:
    """The file's content; a folder alone says nothing but itself.

    Attributes:
        root: the folder that paths are relative to.
        task: name of a task.
        images, annotations: split -> folder or file; the key None means all splits.
        classes: names, or None.
        image_size: to train and test at.
        iterations: to pretrain for.
        void: label that is of no class.
        seed: by which one set is split.
    """

    root: Path
    task: str | None = None
    images: Mapping[str | None, Path] = field(default_factory=dict)
    annotations: Mapping[str | None, Path] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None
    image_size: Size | None = None
    iterations: int | None = None
    void: int | None = None
    seed: int = 0


def given(source: str | os.PathLike[str], tasks: tuple[str, ...]) -> Given:
    """What a folder, a COCO file or a YAML file says.

    Args:
        source: one of these.
        tasks: names that ``task`` may have.

    Raises:
        UserError: the file is no plain data, has unknown keys, or values of a wrong kind.
    """
    path = expanded(source).absolute()
    path = path.resolve() if ".." in path.parts else path
    if path.suffix.lower() == ".json" and path.is_file():
        return Given(path.parent, annotations={None: path})
    if path.is_dir() or path.suffix.lower() not in SUFFIXES:
        return Given(path)
    said = read_plain(path, "description of data", f"It has the keys {', '.join(KEYS)}.")
    if not isinstance(said, dict):
        raise UserError(
            f"{path} does not describe data: it is no mapping.",
            f"Write keys and values; the keys are {', '.join(KEYS)}.",
        )
    for key in said:
        if key not in KEYS:
            near = difflib.get_close_matches(str(key), KEYS, n=1)
            raise UserError(
                f"{path} has the key {shortened(key)}, which is not known.",
                f"Did you mean {near[0]}?" if near else f"The keys are {', '.join(KEYS)}.",
            )
    task = said.get("task")
    if task is not None and task not in tasks:
        raise UserError(f"{path}: task is {shortened(task)}.", f"Use one of: {', '.join(tasks)}.")
    return Given(
        root=path.parent,
        task=task,
        images=_paths(path, said, "images"),
        annotations=_paths(path, said, "annotations"),
        classes=_classes(path, said.get("classes")),
        image_size=_size(path, said.get("image_size")),
        iterations=_whole(path, said, "iterations", LONGEST_TRAINING, least=1),
        void=_whole(path, said, "void", 255),
        seed=_whole(path, said, "seed", 2**32 - 1) or 0,
    )


def class_names(path: Path) -> tuple[str, ...]:
    """The names in a text file, one a line.

    Raises:
        UserError: it cannot be read, or a name stands in it twice.
    """
    lines = (line.strip() for line in read_text(path, "list of classes").splitlines())
    return _different(path, tuple(line for line in lines if line))


def _paths(path: Path, said: Mapping[str, Any], key: str) -> dict[str | None, Path]:
    value = said.get(key)
    if value is None:
        return {}
    named = value if isinstance(value, dict) else {None: value}
    for split, place in named.items():
        if (split is not None and split not in _SPLITS) or not isinstance(place, str):
            raise UserError(
                f"{path}: {key} is {shortened(value)}.",
                f"Write one path, or one for each split: {key}: {{train: PATH, val: PATH}}.",
            )
    found = {split: path.parent / expanded(place) for split, place in named.items()}
    for place in found.values():
        if not place.exists():
            raise UserError(
                f"{path}: {key} names {place}, which is not there.",
                f"Correct it; paths are relative to {path.parent}.",
            )
    return found


def _classes(path: Path, value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, str):
        return class_names(path.parent / expanded(value))
    if not isinstance(value, list) or not value or not all(isinstance(n, str) for n in value):
        raise UserError(
            f"{path}: classes is {shortened(value)}.",
            "Write a list of names (in quotes where they are numbers, yes or no), or a text file "
            "with one a line.",
        )
    return _different(path, tuple(value))


def _different(path: Path, names: tuple[str, ...]) -> tuple[str, ...]:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice or not names:
        said = f"names the class {shortened(twice[0])} twice" if names else "names no class"
        raise UserError(f"{path} {said}.", "Give each class a name of its own, one a line.")
    return names


def _size(path: Path, value: Any) -> Size | None:
    if value is None:
        return None
    sides = value if isinstance(value, list) else re.split("[xX]", str(value))
    try:
        width, height = (int(side) for side in (sides if len(sides) == 2 else [*sides, *sides]))
    except (TypeError, ValueError):
        width = height = 0
    if not (32 <= width <= MOST_PIXELS_A_SIDE and 32 <= height <= MOST_PIXELS_A_SIDE):
        raise UserError(
            f"{path}: image_size is {shortened(value)}.",
            "Write WIDTHxHEIGHT in pixels, 32 or more each, such as 640x480.",
        )
    return width, height


def _whole(path: Path, said: Mapping[str, Any], key: str, most: int, least: int = 0) -> int | None:
    value = said.get(key)
    if value is not None and not (type(value) is int and least <= value <= most):
        raise UserError(
            f"{path}: {key} is {shortened(value)}.",
            f"Write a whole number from {least} to {most}.",
        )
    return value
