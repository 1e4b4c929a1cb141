"""A segmentor's config for a user's own data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparsevit.data.own import Choice, OwnData
from sparsevit.tasks.own import (
    kind,
    nested,
    network_size,
    put_dataset,
    set_classes,
    set_pipelines,
    usual_size,
    within,
)
from sparsevit.tasks.segmentation import labels

_IGNORED = 255


def fit_data(
    cfg: Any, data: OwnData, files: Mapping[str, Path], palette: list[tuple[int, int, int]]
) -> None:
    """See :meth:`sparsevit.tasks.Task.fit_data`."""
    set_classes(cfg.model, labels.HEADS, len(data.classes))
    # mmseg turns a void label 0 into 255 itself
    zero = data.void == 0
    void = _IGNORED if zero else data.void
    metainfo = {"classes": data.classes, "palette": [list(colour) for colour in palette]}
    for split in ("train", "val", "test"):
        name = split if split in data.splits else "val"
        one = data.splits[name]
        dataset: dict[str, Any] = {
            "type": "BaseSegDataset",
            "data_root": os.fspath(data.root),
            "ann_file": os.fspath(files[name]),
            "data_prefix": {
                "img_path": within(data.root, one.images),
                "seg_map_path": within(data.root, one.annotations),
            },
            "img_suffix": data.suffixes[0],
            "seg_map_suffix": data.suffixes[1],
            "metainfo": metainfo,
            "ignore_index": void,
            "reduce_zero_label": zero,
        }
        if split != "train":
            dataset["test_mode"] = True
            metric = {"type": "IoUMetric", "iou_metrics": ["mIoU"], "ignore_index": void}
            cfg[f"{split}_evaluator"] = metric
        put_dataset(cfg[f"{split}_dataloader"], dataset)
        for step in nested(cfg[f"{split}_dataloader"].dataset):
            _set_void(step, void, zero)
    preprocessor = cfg.model.get("data_preprocessor")
    if isinstance(preprocessor, dict):
        preprocessor["seg_pad_val"] = void
    for _, head in labels.heads(cfg.model):
        head["ignore_index"] = void


def _set_void(step: dict[str, Any], void: int, zero: bool) -> None:
    name = kind(step)
    if name == "LoadAnnotations":
        step["reduce_zero_label"] = zero
    elif name == "RandomCrop":
        step["ignore_index"] = void
    elif name == "Pad":
        padded = step.get("pad_val")
        image = padded.get("img", 0) if isinstance(padded, dict) else padded or 0
        step["pad_val"] = {"img": image, "seg": void}
    elif "seg_pad_val" in step:
        step["seg_pad_val"] = void


def suit(cfg: Any, data: OwnData, most: int) -> tuple[tuple[int, int], list[Choice]]:
    """See :meth:`sparsevit.tasks.Task.suit`."""
    size, why = _image_size(data, most)
    for part in nested(cfg.model):
        # statistics of one process: the usual one here
        if part.get("type") == "SyncBN":
            part["type"] = "BN"
    load = {"type": "LoadAnnotations", "reduce_zero_label": data.void == 0}
    set_pipelines(cfg, size, load, "PackSegInputs")
    cfg.model.test_cfg = {"mode": "whole"}
    return size, [Choice("image size", f"{size[0]}x{size[1]}", why)]


def _image_size(data: OwnData, most: int) -> tuple[tuple[int, int], str]:
    if data.image_size is not None:
        return data.image_size, "as the YAML file says"
    width, height, several = usual_size(data.sizes)
    size = network_size(width, height, min(max(width, height), most), several)
    why = f"images are {width}x{height}"
    if max(width, height) > most:
        why += f"; {most} px at the most here"
    return size, why + ("; images have several shapes" if several else "")
