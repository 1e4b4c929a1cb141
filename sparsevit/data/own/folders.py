"""What lies in a folder: its files, which split a name means, and where images are."""

from __future__ import annotations

import os
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import TypeVar

from sparsevit.errors import UserError

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm")
VAL_SHARE = 0.2

_RECORD = "workspace.json"
_SPLIT = re.compile(
    r"(?P<train>trainval|training|train)|(?P<val>validation|valid|val|dev)|(?P<test>testing|test)"
)
_AFTER = r"(?:annotations?|annots?|labels?|masks?|images?|imgs?|gt|set)?"
_WORD = re.compile(rf"(?:{_SPLIT.pattern}){_AFTER}")
_LOOKED_UP = 16
_MOST_FILES = 2_000_000

T = TypeVar("T")


def files_in(root: Path) -> list[Path]:
    """Every file under a folder, in order; not those of hidden folders and of workspaces.

    Raises:
        UserError: there is no such folder, or it cannot be read.
    """
    if not root.is_dir():
        is_file = root.exists()
        raise UserError(
            f"{root} is {'a file, not a folder' if is_file else 'not there'}.",
            "Give the folder of your data, or a .yaml file that describes it.",
        )
    try:
        os.listdir(root)
    except OSError as error:
        raise UserError(f"{root} cannot be read: {error.strerror}.", "Check the path.") from error
    found = []
    seen: set[str] = set()
    for where, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(where)
        if real in seen or _RECORD in names:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith((".", "__MACOSX")))
        found += [Path(where, name) for name in sorted(names) if not name.startswith(".")]
        if len(found) > _MOST_FILES:
            raise UserError(
                f"{root} has more than {_MOST_FILES:,} files.",
                "Give the folder of your data alone.",
            )
    return found


def is_image(path: PurePath) -> bool:
    """Whether a file's name is that of an image."""
    return path.suffix.lower() in IMAGES


def split_of(path: PurePath) -> str | None:
    """The split that a relative path names, its last part first: ``val`` of ``valid/a.json``."""
    for part in (path.stem if path.suffix else path.name, *reversed(path.parent.parts)):
        for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", part):
            match = _WORD.fullmatch(word.lower())
            if match:
                return match.lastgroup
    return None


def assigned(found: Mapping[str | None, T], what: str) -> tuple[dict[str, T], bool]:
    """Which split each find is, and whether ``val`` must be cut from ``train``.

    Args:
        found: split, None where the name says none -> what was found.
        what: was found, for the error.

    Raises:
        UserError: there is nothing to train on.
    """
    splits = {name: one for name, one in found.items() if name is not None}
    if "train" not in splits:
        if None in found:
            splits["train"] = found[None]
        elif len(splits) == 1:
            splits = {"train": next(iter(splits.values()))}
        else:
            raise UserError(
                f"There are {what} for {' and '.join(sorted(splits))}, and none for training.",
                "Have `train` in the name of the file or folder to train on, or say which it is in "
                "a YAML file: annotations: {train: ..., val: ...}.",
            )
    order: tuple[str, ...] = ("train", "val", "test")
    ordered = {name: splits[name] for name in order if name in splits}
    return ordered, "val" not in splits


def cut(
    names: Sequence[T], classes_of: Mapping[T, Iterable[object]], seed: int
) -> tuple[set[T], set[T]]:
    """Names to train on and to validate on: one of five, drawn by seed.

    A class that would be in the second only has one of its images moved to the first.

    Raises:
        UserError: there are not two.
    """
    if len(names) < 2:
        raise UserError(
            f"There is {len(names)} image with annotations: it cannot be split.",
            "Give two or more: some to train on, some to validate on.",
        )
    drawn = list(names)
    random.Random(seed).shuffle(drawn)
    count = max(1, round(len(drawn) * VAL_SHARE))
    val, train = drawn[:count], drawn[count:]
    known = {name for one in train for name in classes_of.get(one, ())}
    for one in list(val):
        new = set(classes_of.get(one, ())) - known
        if new and len(val) > 1:
            val.remove(one)
            train.append(one)
            known |= new
    return set(train), set(val)


def folder_of(
    names: Sequence[str],
    root: Path,
    beside: Path,
    split: str | None,
    index: Mapping[str, list[Path]],
) -> Path:
    """The folder that names of images in an annotation file are relative to.

    Args:
        names: as the file has them.
        root: of the data.
        beside: the folder of the file.
        split: of the file, if it has one.
        index: name of a file -> folders with a file of that name.

    Raises:
        UserError: no image is found.
    """
    step = max(1, len(names) // _LOOKED_UP)
    hits: Counter[Path] = Counter()
    for name in names[::step]:
        places = {place for place in (beside, root) if os.path.lexists(place / name)}
        before = PurePath(name).parts[:-1]
        absolute = PurePath(name).is_absolute()
        for folder in () if absolute else index.get(PurePath(name).name, ()):
            if before and folder.parts[-len(before) :] == before:
                places.add(Path(*folder.parts[: -len(before)]))
            elif not before:
                places.add(folder)
        hits.update(places)
    if not hits:
        raise UserError(
            f"No image of the annotations in {beside} is found under {root}, e.g. {names[0]}.",
            "Put the images there, or say where they are in a YAML file: images: FOLDER.",
        )

    def rank(folder: Path) -> tuple[int, bool, int]:
        same = folder.is_relative_to(root) and split_of(folder.relative_to(root)) == split
        return hits[folder], same, -len(folder.parts)

    return max(sorted(hits), key=rank)


def by_name(files: Iterable[Path]) -> dict[str, list[Path]]:
    """Name of an image -> folders that have one of that name."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        if is_image(path):
            found[path.name].append(path.parent)
    return found
