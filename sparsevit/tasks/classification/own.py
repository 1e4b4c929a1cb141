"""A classifier's config for a user's own data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparsevit.data.own import Choice, OwnData
from sparsevit.tasks.classification import images
from sparsevit.tasks.own import network_size, put_dataset, usual_size, within

_LEAST, _MOST = 112, 224
"""Longer side of images for the network, in pixels: smaller ones are enlarged, so that there are
windows to skip."""
_CROP = (0.35, 1.0)
"""Share of an image that a crop in training has."""


def fit_data(cfg: Any, data: OwnData, files: Mapping[str, Path]) -> None:
    """See :meth:`sparsevit.tasks.Task.fit_data`."""
    for key in ("head", "data_preprocessor"):
        part = cfg.model.get(key)
        if isinstance(part, dict):
            part["num_classes"] = len(data.classes)
    for split in ("train", "val", "test"):
        name = split if split in data.splits else "val"
        dataset: dict[str, Any] = {
            "type": "CustomDataset",
            "data_root": os.fspath(data.root),
            "ann_file": os.fspath(files[name]),
            "data_prefix": within(data.root, data.splits[name].images),
            "metainfo": {"classes": data.classes},
        }
        if split != "train":
            dataset["test_mode"] = True
            topk = [k for k in images.TOPK if k <= len(data.classes)]
            cfg[f"{split}_evaluator"] = {"type": "Accuracy", "topk": topk}
        put_dataset(cfg[f"{split}_dataloader"], dataset)


def suit(cfg: Any, data: OwnData, most: int) -> tuple[tuple[int, int], list[Choice]]:
    """See :meth:`sparsevit.tasks.Task.suit`."""
    size, why = _image_size(data, most)
    # a map of small images may be smaller than a window
    cfg.model.backbone.pad_small_map = True
    read, pack = {"type": "LoadImageFromFile"}, {"type": "PackInputs"}
    width, height = size
    crop = {"type": "RandomResizedCrop", "scale": (height, width), "crop_ratio_range": _CROP}
    flip = {"type": "RandomFlip", "prob": 0.5}
    resize = {"type": "Resize", "scale": size, "keep_ratio": False}
    cfg.train_dataloader.dataset.pipeline = [read, crop, flip, pack]
    for split in ("val", "test"):
        cfg[f"{split}_dataloader"].dataset.pipeline = [read, resize, pack]
    return size, [Choice("image size", f"{width}x{height}", why)]


def _image_size(data: OwnData, most: int) -> tuple[tuple[int, int], str]:
    if data.image_size is not None:
        return data.image_size, "as the YAML file says"
    width, height, several = usual_size(data.sizes)
    longest = max(_LEAST, min(max(width, height), _MOST, most))
    size = network_size(width, height, longest, several)
    why = f"images are {width}x{height}"
    if longest != max(width, height):
        why += f"; {_LEAST} to {_MOST} px here"
    return size, why + ("; images have several shapes" if several else "")
