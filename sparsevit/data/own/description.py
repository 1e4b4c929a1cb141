"""What is known of a user's own data, whatever form it has on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Size = tuple[int, int]
"""(width, height) in pixels."""

MOST_PIXELS_A_SIDE = 20_000


@dataclass(frozen=True)
class Choice:
    """Something that was found or chosen, and why."""

    what: str
    chosen: str
    why: str = ""


@dataclass(frozen=True)
class Split:
    """Images to train, validate or test on.

    Attributes:
        images: the folder that names are relative to.
        annotations: the COCO file, or the folder of the label maps; with folders of classes that of
            the images.
        names: of the images; with label maps what image and label map have in common.
        amounts: class -> how many objects, pixels, or images.
        images_with: class -> in how many images it is.
        empty: how many images have nothing annotated.
        outside: how many boxes leave their image.
        rewritten: what a COCO file must hold instead; None where the file serves as it is.
        labels: with folders of classes, the label of each image.
    """

    images: Path
    annotations: Path
    names: tuple[str, ...]
    amounts: Mapping[str, int]
    images_with: Mapping[str, int]
    empty: int = 0
    outside: int = 0
    rewritten: dict[str, Any] | None = field(default=None, repr=False)
    labels: tuple[int, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class OwnData:
    """A user's own data.

    Attributes:
        task: name of the task that it is for.
        root: the folder; or that of the YAML file that describes it.
        classes: in the order of their labels.
        splits: of ``train``, ``val``, ``test``; the first two are always there.
        sizes: (width, height) of the images -> how many.
        said: what was found, for people.
        faults: images and annotations that cannot be used; what is wrong with each.
        boxes: (width, height) of each training object, as shares of its image's.
        masks: objects have masks.
        void: label that is of no class.
        suffixes: of image files and of label maps.
        image_size, iterations: that the user asks for.
        names_from: what the names of the classes are from.
    """

    task: str
    root: Path
    classes: tuple[str, ...]
    splits: Mapping[str, Split]
    sizes: Mapping[Size, int]
    said: Sequence[Choice] = ()
    faults: Sequence[str] = ()
    boxes: Sequence[tuple[float, float]] = field(default=(), repr=False)
    masks: bool = False
    void: int = 255
    suffixes: tuple[str, str] = ("", "")
    image_size: Size | None = None
    iterations: int | None = None
    names_from: str = ""

    @property
    def has_label_maps(self) -> bool:
        """Whether labels are of pixels."""
        return bool(self.suffixes[1])

    def in_one_split_only(self) -> dict[str, str]:
        """Class -> the only one of train and val that has it."""
        found = {}
        for name in self.classes:
            having = [s for s in ("train", "val") if self.splits[s].images_with.get(name)]
            if len(having) == 1:
                found[name] = having[0]
        return found
