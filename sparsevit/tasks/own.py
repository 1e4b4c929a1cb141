"""What tasks share when they fit a config to a user's own data."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

WINDOW = 7
STRIDES = (4, 8, 16, 32)
_STEP = 32
_OTHER_SHAPE, _FEW = 0.15, 0.05


def nested(value: Any) -> Iterator[Any]:
    """Every mapping in a value of a config, itself too."""
    if isinstance(value, dict):
        yield value
    items = value.values() if isinstance(value, dict) else value
    if isinstance(items, (list, tuple)) or isinstance(value, dict):
        for one in items:
            yield from nested(one)


def kind(value: Any) -> str:
    """A type's name without its scope."""
    found = value.get("type") if isinstance(value, dict) else None
    return str(getattr(found, "__name__", str(found).rpartition(".")[2]))


def put_dataset(loader: Any, made: dict[str, Any]) -> None:
    """Put a dataset in the place of the innermost one of a loader, whose pipeline it takes."""
    holder = loader
    while True:
        dataset = holder["dataset"]
        inner = dataset.get("datasets")
        if isinstance(inner, (list, tuple)) and inner:
            pipeline = inner[0].get("pipeline", [])
            break
        if "dataset" not in dataset:
            pipeline = dataset.get("pipeline", [])
            break
        holder = dataset
    holder["dataset"] = {**made, "pipeline": pipeline}


def set_pipelines(
    cfg: Any,
    size: tuple[int, int],
    load: Mapping[str, Any],
    pack: str,
    tested: Mapping[str, Any] | None = None,
) -> None:
    """Set what becomes of an image: read, resized, in training flipped at random, packed.

    Args:
        cfg: with a dataset in every loader; changed.
        size: (width, height) of images for the network.
        load: step that reads annotations.
        pack: type of the step that packs.
        tested: more arguments of that step outside training.
    """
    read: dict[str, Any] = {"type": "LoadImageFromFile"}
    resize = {"type": "Resize", "scale": size, "keep_ratio": False}
    flip = {"type": "RandomFlip", "prob": 0.5}
    cfg.train_dataloader.dataset.pipeline = [read, {**load}, resize, flip, {"type": pack}]
    for split in ("val", "test"):
        packed = {"type": pack, **(tested or {})}
        cfg[f"{split}_dataloader"].dataset.pipeline = [read, resize, {**load}, packed]


def set_classes(model: Any, heads: tuple[str, ...], count: int) -> None:
    """Set the number of classes in every head of a name, and of class weights that follow it.

    Args:
        model: of a config; changed.
        heads: how heads end that have a number for each class of the data.
        count: classes.
    """
    for part in nested(model):
        for name, value in part.items():
            if str(name) not in heads:
                continue
            for head in value if isinstance(value, (list, tuple)) else (value,):
                if isinstance(head, dict):
                    _set_head(head, count)


def _set_head(head: dict[str, Any], count: int) -> None:
    head["num_classes"] = count
    if "num_things_classes" in head:
        head["num_things_classes"], head["num_stuff_classes"] = count, 0
    if "out_channels" in head and kind(head).endswith("FCNHead"):
        head["out_channels"] = None
    for loss in nested(head):
        weight = loss.get("class_weight")
        if isinstance(weight, (list, tuple)):
            # of queries the last class is none; other weights are those of other classes
            loss["class_weight"] = [1.0] * count + [weight[-1]] if "num_queries" in head else None


def within(root: Path, place: Path) -> str:
    """A path as a config has it: relative to the data's root where it is below."""
    if place == root:
        return ""
    return place.relative_to(root).as_posix() if place.is_relative_to(root) else os.fspath(place)


def usual_size(sizes: Mapping[tuple[int, int], int]) -> tuple[int, int, bool]:
    """The most frequent (width, height), and whether more than a few images are of another shape.

    Args:
        sizes: (width, height) -> how many images.
    """
    width, height = max(sizes, key=lambda size: sizes[size])
    others = sum(
        count
        for (across, down), count in sizes.items()
        if abs(across * height / (down * width) - 1) > _OTHER_SHAPE
    )
    return width, height, others > _FEW * sum(sizes.values())


def network_size(width: float, height: float, longest: float, several: bool) -> tuple[int, int]:
    """(width, height) of images for a network, in steps of its largest stride.

    Args:
        width, height: of the images as they are.
        longest: side that is wanted.
        several: images have several shapes, so that a square suits them best.
    """
    scale = longest / max(width, height)
    sides = [max(_STEP, round(side * scale / _STEP) * _STEP) for side in (width, height)]
    return (max(sides), max(sides)) if several else (sides[0], sides[1])
