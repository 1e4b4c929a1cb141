"""What an embedded dataset is made of: every choice that its files depend on, and nothing else."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sparsevit.errors import UserError, shortened

CLASSES = ("circle", "triangle", "square", "star", "ring", "cross", "crescent")
SPLITS = ("train", "val")
MASK_FORMS = ("mixed", "polygon", "rle")
IMAGE_FORMATS = ("png", "jpg")
CLASSIFICATION = "classification"

LEAST_BYTES_A_PIXEL = {"png": 100, "jpg": 10}
"""That an image file takes, in hundredths."""

# Raised whenever the same spec would give other files, so that a dataset made before is not reused.
GENERATOR_VERSION = 1

SMALLEST_IMAGE, LARGEST_IMAGE = 32, 8192
SMALLEST_OBJECT, SMALLEST_OF_A_CLASS = 6.0, 16.0
_MOST_IMAGES, _MOST_OBJECTS = 1_000_000, 500


@dataclass(frozen=True)
class DatasetSpec:
    """The choices a dataset is made from; equal specs give equal pixels and annotations.

    Args:
        train, val: number of images in each split, 1 to 1 000 000.
        width, height: image size in pixels, 32 to 8192.
        seed: 0 or more; image i of a split depends on the seed, the split and i, not on the count.
        objects: fewest and most objects in an image. Fewer than the fewest are placed only where
            an image has no room left for another visible one.
        object_size: smallest and largest diameter in pixels of the circle around an object. None:
            12 to 48 px at 224 px, in proportion at other sizes.
        classes: which of :data:`CLASSES` to draw; category ids are 1, 2, ... in this order.
        masks: ``polygon``, ``rle``, or ``mixed``: polygons for what is in one piece without a hole,
            RLE for the rest.
        image_format: ``png`` (exact) or ``jpg`` (a quarter of the space).
        labels: write a label map of each image too, for semantic segmentation: 0 is background, the
            classes are 1, 2, ... in their order.
        hues: each class has its part of all hues, rather than any colour.
        folders: one object in an image, and images in a folder for each class, with neither boxes
            nor masks, for classification. Objects are then larger: 0.3 to 0.7 of the image.

    Raises:
        UserError: a value is out of its range; says which and what the range is.
    """

    train: int = 1000
    val: int = 200
    width: int = 224
    height: int = 224
    seed: int = 0
    objects: tuple[int, int] = (2, 8)
    object_size: tuple[float, float] | None = None
    classes: tuple[str, ...] = CLASSES
    masks: str = "mixed"
    image_format: str = "png"
    labels: bool = False
    hues: bool = False
    folders: bool = False

    def __post_init__(self) -> None:
        for name in ("train", "val"):
            check_whole(f"number of {name} images", getattr(self, name), 1, _MOST_IMAGES)
        for name in ("width", "height"):
            check_whole(f"image {name}", getattr(self, name), SMALLEST_IMAGE, LARGEST_IMAGE)
        check_whole("seed", self.seed, 0, 2**63 - 1)
        _check_objects(self.objects)
        if self.object_size is not None:
            _check_object_size(self.object_size, min(self.width, self.height))
        check_classes(self.classes, CLASSES)
        check_choice("masks", self.masks, MASK_FORMS)
        check_choice("image format", self.image_format, IMAGE_FORMATS)
        if self.folders:
            _check_folders(self)

    def count(self, split: str) -> int:
        """Number of images in ``split`` (``train`` or ``val``)."""
        return {"train": self.train, "val": self.val}[split]

    def size_range(self) -> tuple[float, float]:
        """Smallest and largest object diameter in pixels, with the default worked out."""
        if self.object_size is not None:
            return self.object_size
        side = min(self.width, self.height)
        if self.folders:
            return max(SMALLEST_OF_A_CLASS, 0.3 * side), max(SMALLEST_OF_A_CLASS, 0.7 * side)
        scale = side / 224
        return max(SMALLEST_OBJECT, 12 * scale), max(SMALLEST_OBJECT, 48 * scale)

    def to_dict(self) -> dict[str, Any]:
        """The spec as JSON values, with the generator's version."""
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        for name in ("labels", "hues", "folders"):
            if not plain[name]:
                del plain[name]  # as in the records of datasets from before there were any
        task = {"task": CLASSIFICATION} if self.folders else {}
        return {"generator": GENERATOR_VERSION, **task, **plain}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Which entries of two :meth:`DatasetSpec.to_dict` differ, as ``name old -> new, ...``."""
    names = [*new, *(name for name in old if name not in new)]
    changed = [name for name in names if old.get(name) != new.get(name)]
    return ", ".join(f"{name} {old.get(name)} -> {new.get(name)}" for name in changed)


def parse_range(text: str, what: str) -> tuple[float, float]:
    """``"2:8"`` -> (2.0, 8.0); ``"5"`` -> (5.0, 5.0). ``what`` names the value in the error."""
    parts = text.split(":")
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2):
        raise UserError(f"{what} '{text}' is not a range.", "Write it as MIN:MAX, for example 2:8.")
    return numbers[0], numbers[-1]


def parse_objects(text: str) -> tuple[int, int]:
    """``"2:8"`` -> (2, 8): fewest and most objects in an image."""
    low, high = parse_range(text, "Objects in an image")
    if not (low.is_integer() and high.is_integer()):
        raise UserError(
            f"Objects in an image '{text}' is not a range of whole numbers.",
            "Write e.g. 2:8.",
        )
    return int(low), int(high)


def parse_size(text: str) -> tuple[int, int]:
    """``"224"`` -> (224, 224); ``"320x200"`` -> (320, 200): width and height in pixels."""
    if not re.fullmatch(r"-?[0-9]{1,9}(x-?[0-9]{1,9})?", text):
        raise UserError(
            f"Image size '{text}' is not a size.", "Write one number or WIDTHxHEIGHT: 224, 320x200."
        )
    width, _, height = text.partition("x")
    return int(width), int(height or width)


def parse_classes(text: str) -> tuple[str, ...]:
    """``"circle,ring"`` -> ("circle", "ring")."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def check_whole(what: str, value: object, low: int, high: int) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if whole and low <= value <= high:  # type: ignore[operator]
        return
    raise UserError(f"The {what} is {value!r}.", f"It must be a whole number from {low} to {high}.")


def _check_objects(objects: tuple[int, int]) -> None:
    low, high = objects
    check_whole("largest number of objects in an image", high, 1, _MOST_OBJECTS)
    check_whole("smallest number of objects in an image", low, 0, high)


def _check_folders(spec: DatasetSpec) -> None:
    if spec.objects != (1, 1) or spec.labels:
        raise UserError(
            "An image in the folder of a class has one object, and no label map.",
            "Leave objects and labels out.",
        )
    if len(spec.classes) < 2:
        raise UserError("There is one class.", "Give two or more to tell apart.")
    if spec.size_range()[0] < SMALLEST_OF_A_CLASS:
        raise UserError(
            f"Objects of {spec.size_range()[0]:g} px are too small to be all that is in an image.",
            f"Give {SMALLEST_OF_A_CLASS:g} px or more.",
        )


def _check_object_size(size: tuple[float, float], side: int) -> None:
    two = isinstance(size, (tuple, list)) and len(size) == 2
    if not two or not all(isinstance(one, (int, float)) for one in size):
        raise UserError(
            f"The size of objects is {shortened(repr(size))}, which is no range.",
            "Give MIN:MAX in pixels; in a config, a pair of numbers.",
        )
    low, high = size
    if SMALLEST_OBJECT <= low <= high <= side:
        return
    raise UserError(
        f"Objects of {low:g} to {high:g} px do not fit.",
        f"Give MIN:MAX from {SMALLEST_OBJECT:g} to the image's shorter side, {side} px.",
    )


def check_classes(classes: tuple[str, ...], choices: tuple[str, ...]) -> None:
    known = ", ".join(choices)
    if not classes:
        raise UserError("No class is given.", f"Choose from: {known}.")
    for name in classes:
        if name not in choices:
            close = difflib.get_close_matches(name, choices, n=1)
            hint = f"Did you mean {close[0]}? " if close else ""
            raise UserError(f"There is no class '{name}'.", f"{hint}Classes are: {known}.")
    if len(set(classes)) != len(classes):
        raise UserError(f"A class is given twice: {', '.join(classes)}.", "Give each once.")


def check_choice(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"The {what} '{value}' is not known.", f"Use one of: {', '.join(choices)}.")
