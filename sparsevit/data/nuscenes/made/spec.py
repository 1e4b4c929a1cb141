"""What made scenes are made of: every choice that their files depend on, and nothing else."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sparsevit.data.nuscenes.names import CLASSES
from sparsevit.data.spec import IMAGE_FORMATS, check_choice, check_classes, check_whole

VERSION = "v1.0-made"
"""The folder of the tables."""
TASK = "bev"

FRAMES_A_SCENE = 10
# Raised whenever the same spec would give other files, so that scenes made before are not reused.
GENERATOR_VERSION = 1
SMALLEST_IMAGE, LARGEST_IMAGE = 32, 4096
_MOST_SAMPLES, _MOST_OBJECTS = 100_000, 200


@dataclass(frozen=True)
class ScenesSpec:
    """The choices that scenes are made from; equal specs give equal pixels and tables.

    Args:
        train, val: samples in each split, 1 to 100 000; a sample is six images at one moment, and a
            scene has ten samples, half a second apart (the last one of a split may have fewer).
        width, height: image size in pixels, 32 to 4096.
        seed: 0 or more; a scene depends on the seed, its split and its number, not on the count.
        objects: fewest and most objects in a scene; fewer where it has no more room.
        classes: which of the ten classes there are.
        reach: metres from the car within which objects are annotated, 10 to 60.
        image_format: ``jpg``, or ``png`` (exact, five times the space).

    Raises:
        UserError: a value is out of its range; says which and what the range is.
    """

    train: int = 300
    val: int = 60
    width: int = 320
    height: int = 180
    seed: int = 0
    objects: tuple[int, int] = (30, 50)
    classes: tuple[str, ...] = CLASSES
    reach: int = 60
    image_format: str = "jpg"

    def __post_init__(self) -> None:
        for name in ("train", "val"):
            check_whole(f"number of {name} samples", getattr(self, name), 1, _MOST_SAMPLES)
        for name in ("width", "height"):
            check_whole(f"image {name}", getattr(self, name), SMALLEST_IMAGE, LARGEST_IMAGE)
        check_whole("seed", self.seed, 0, 2**63 - 1)
        low, high = self.objects
        check_whole("largest number of objects in a scene", high, 1, _MOST_OBJECTS)
        check_whole("smallest number of objects in a scene", low, 0, high)
        check_classes(self.classes, CLASSES)
        check_whole("reach in metres", self.reach, 10, 60)
        check_choice("image format", self.image_format, IMAGE_FORMATS)

    def count(self, split: str) -> int:
        """Number of samples in ``split`` (``train`` or ``val``)."""
        return {"train": self.train, "val": self.val}[split]

    def to_dict(self) -> dict[str, Any]:
        """The spec as JSON values, with the generator's version."""
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return {"task": TASK, "generator": GENERATOR_VERSION, **plain}
