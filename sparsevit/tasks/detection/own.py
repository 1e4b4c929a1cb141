"""A detector's config for a user's own data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sparsevit.data.own import Choice, OwnData
from sparsevit.errors import UserError
from sparsevit.tasks.detection.checks import makes_masks
from sparsevit.tasks.own import (
    STRIDES,
    nested,
    network_size,
    put_dataset,
    set_classes,
    set_pipelines,
    usual_size,
    within,
)

_HEADS = ("bbox_head", "mask_head", "mask_iou_head")
_SMALL = 32
"""Side of an object that COCO calls small, in pixels: the smallest should not be smaller."""

_LEAST_SIDE = 320
_LEAST_RATIO = 1.25
_SCALES = (2, 3, 4, 6, 8, 12, 16)


def fit_data(
    cfg: Any, data: OwnData, files: Mapping[str, Path], palette: list[tuple[int, int, int]]
) -> None:
    """See :meth:`sparsevit.tasks.Task.fit_data`."""
    masks = _fit_masks(cfg, data)
    set_classes(cfg.model, _HEADS, len(data.classes))
    metainfo = {"classes": data.classes, "palette": palette}
    for split in ("train", "val", "test"):
        name = split if split in data.splits else "val"
        one = data.splits[name]
        dataset: dict[str, Any] = {
            "type": "CocoDataset",
            "data_root": os.fspath(data.root),
            "ann_file": within(data.root, files[name]),
            "data_prefix": {"img": within(data.root, one.images)},
            "metainfo": metainfo,
        }
        if split == "train":
            dataset["filter_cfg"] = {"filter_empty_gt": True, "min_size": 1}
        else:
            dataset["test_mode"] = True
            cfg[f"{split}_evaluator"] = {
                "type": "CocoMetric",
                "ann_file": os.fspath(files[name]),
                "metric": ["bbox", "segm"] if masks else ["bbox"],
                "format_only": False,
            }
        put_dataset(cfg[f"{split}_dataloader"], dataset)
    for split in ("train", "val", "test"):
        for step in nested(cfg[f"{split}_dataloader"].dataset):
            if str(step.get("type", "")).endswith("LoadAnnotations"):
                step["with_bbox"], step["with_mask"] = True, masks


def _fit_masks(cfg: Any, data: OwnData) -> bool:
    """Whether masks are learned; without them the model loses the heads that do."""
    model = cfg.model
    if not data.masks:
        roi = model.get("roi_head")
        for name in ("mask_head", "mask_roi_extractor", "mask_iou_head"):
            if isinstance(roi, dict):
                roi.pop(name, None)
        if makes_masks(model) and not isinstance(roi, dict):
            raise UserError(
                f"{model.get('type')} predicts masks, and the data has boxes only.",
                "Use a model for boxes, or annotate masks.",
            )
        preprocessor = model.get("data_preprocessor")
        if isinstance(preprocessor, dict) and "pad_mask" in preprocessor:
            preprocessor["pad_mask"] = False
    return data.masks and makes_masks(model)


def suit(cfg: Any, data: OwnData, most: int) -> tuple[tuple[int, int], list[Choice]]:
    """See :meth:`sparsevit.tasks.Task.suit`."""
    size, chosen = _image_size(data, most)
    choices = [Choice("image size", f"{size[0]}x{size[1]}", chosen)]
    anchors, ratios, why = _anchors(data, size)
    generator = cfg.model.rpn_head.anchor_generator
    generator["scales"], generator["ratios"] = [anchors], ratios
    sizes = " ".join(str(anchors * stride) for stride in generator.strides)
    shown = " ".join(f"{ratio:g}" for ratio in ratios)
    choices.append(Choice("anchors", f"{sizes} px, height/width {shown}", why))
    load = {"type": "LoadAnnotations", "with_bbox": True, "with_mask": data.masks}
    packed = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
    set_pipelines(cfg, size, load, "PackDetInputs", {"meta_keys": packed})
    objects = sum(data.splits["train"].amounts.values()) / len(data.splits["train"].names)
    detections = int(min(100, max(20, 3 * objects)))
    cfg.model.test_cfg.rcnn.max_per_img = max(detections, cfg.model.test_cfg.rcnn.max_per_img)
    proposals = cfg.model.test_cfg.rpn
    proposals.max_per_img = max(2 * detections, proposals.max_per_img)
    choices.append(
        Choice(
            "detections",
            f"{cfg.model.test_cfg.rcnn.max_per_img} an image",
            f"{objects:.1f} objects an image in training",
        )
    )
    return size, choices


def _image_size(data: OwnData, most: int) -> tuple[tuple[int, int], str]:
    if data.image_size is not None:
        return data.image_size, "as the YAML file says"
    width, height, several = usual_size(data.sizes)
    boxes = np.array(data.boxes)
    sides = np.sqrt(boxes[:, 0] * width * boxes[:, 1] * height)
    small = float(np.percentile(sides, 5))
    wanted = max(width, height) * _SMALL / max(small, 1e-6)
    least = min(_LEAST_SIDE, 2 * max(width, height))
    longest = min(max(-(-wanted // STRIDES[-1]) * STRIDES[-1], least), most, 2 * max(width, height))
    size = network_size(width, height, longest, several)
    scale = max(size) / max(width, height)
    why = f"1 of 20 boxes is below {small:.0f} px in {width}x{height}, {small * scale:.0f} px so"
    if wanted > most:
        why += f"; {most} px at the most here"
    return size, why + ("; images have several shapes" if several else "")


def _anchors(data: OwnData, size: tuple[int, int]) -> tuple[int, list[float], str]:
    """Scale of the anchors, and ratios of height to width, from the boxes in the network's size."""
    boxes = np.maximum(np.array(data.boxes) * size, 1)
    sides = np.sqrt(boxes.prod(1))
    low, high = np.percentile(sides, (5, 95))
    middle = np.sqrt(low * high) / np.sqrt(STRIDES[0] * STRIDES[-1])
    scale = min(_SCALES, key=lambda one: abs(np.log(one / middle)))
    low_ratio, ratio, high_ratio = np.percentile(boxes[:, 1] / boxes[:, 0], (10, 50, 90))
    ratios = [
        min(low_ratio, ratio / _LEAST_RATIO),
        ratio,
        max(high_ratio, ratio * _LEAST_RATIO),
    ]
    why = f"9 of 10 boxes are {low:.0f} to {high:.0f} px"
    return scale, [round(float(one), 2) for one in ratios], why
