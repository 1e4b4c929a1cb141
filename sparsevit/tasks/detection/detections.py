"""What a two-stage detector found in an image, and its masks at the size of the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Detections:
    """Objects in one image, best first.

    Attributes:
        boxes: (n, 4) float: x1, y1, x2, y2 in pixels of the image that went in.
        scores: (n,) float in [0, 1].
        labels: (n,) int64, counted from 0.
        masks: (n, h, w) float: how probable it is that a point of the box belongs to the object, on
            the grid of the mask head (28x28 in Mask R-CNN); None where the detector has no masks.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor | None

    def __len__(self) -> int:
        return len(self.scores)


def paste_masks(
    masks: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float = 0.5
) -> Tensor:
    """Masks of boxes as masks of the image, by mmdet's own interpolation.

    Args:
        masks: (n, h, w) probabilities within the boxes.
        boxes: (n, 4) x1, y1, x2, y2 in pixels of the image to paste into.
        size: (height, width) of that image.
        threshold: a pixel of at least this belongs to the object; mmdet's ``mask_thr_binary``.
            Where negative, probabilities are given out in place of a decision.

    Returns:
        (n, height, width) bool; uint8, 0 to 255, where the threshold is negative.
    """
    from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask

    dtype = torch.bool if threshold >= 0 else torch.uint8
    pasted = torch.zeros(len(masks), *size, dtype=dtype, device=masks.device)
    for index in range(len(masks)):
        one = slice(index, index + 1)
        part, where = _do_paste_mask(masks[one, None], boxes[one], *size, skip_empty=True)
        part = part >= threshold if threshold >= 0 else part * 255
        pasted[(one, *where)] = part.to(dtype)
    return pasted


def to_instances(found: Detections, info: dict[str, Any], mask_threshold: float) -> Any:
    """Detections as mmdet gives them out: in pixels of the image as it was before it was resized.

    Args:
        found: in pixels of the resized image.
        info: mmdet's meta information of the image: ``ori_shape`` and ``scale_factor`` (w, h).
        mask_threshold: see :func:`paste_masks`.

    Returns:
        An ``InstanceData`` with bboxes, scores, labels and, where the detector has masks, masks.
    """
    from mmengine.structures import InstanceData

    scale = found.boxes.new_tensor(info["scale_factor"]).repeat(2)
    boxes = found.boxes / scale
    instances = InstanceData(bboxes=boxes, scores=found.scores, labels=found.labels)
    if found.masks is not None:
        height, width = info["ori_shape"][:2]
        instances.masks = paste_masks(found.masks, boxes, (height, width), mask_threshold)
    return instances


@dataclass(frozen=True)
class Agreement:
    """How far two lists of detections of the same images are apart.

    Attributes:
        compared: detections that have a match.
        unmatched: those of either list that have none.
        boxes, scores, masks: the largest differences of those that have one: in pixels, and in
            probability; masks is None where there are none.
    """

    compared: int
    unmatched: int
    boxes: float
    scores: float
    masks: float | None

    def differences(self) -> dict[str, float]:
        """The largest difference of each kind."""
        kinds = {"boxes": self.boxes, "scores": self.scores, "masks": self.masks}
        return {name: value for name, value in kinds.items() if value is not None}


SAME_BOX = 2.0
"""Boxes of a class that lie this close, in pixels, are taken for the same one."""


def agreement(found: list[Detections], expected: list[Detections]) -> Agreement:
    """Compare what was found in the same images, each detection with the nearest of its class.

    Args:
        found, expected: of each image.
    """
    compared = unmatched = 0
    gaps: dict[str, float] = {"boxes": 0.0, "scores": 0.0, "masks": 0.0}
    with_masks = False
    for mine, theirs in zip(found, expected, strict=True):
        pairs = _pairs(mine, theirs)
        compared += len(pairs)
        unmatched += len(mine) + len(theirs) - 2 * len(pairs)
        if mine.masks is None or theirs.masks is None:
            kinds = [("boxes", mine.boxes, theirs.boxes), ("scores", mine.scores, theirs.scores)]
        else:
            with_masks = True
            kinds = [
                ("boxes", mine.boxes, theirs.boxes),
                ("scores", mine.scores, theirs.scores),
                ("masks", mine.masks, theirs.masks),
            ]
        for kind, ours, others in kinds:
            for i, j in pairs:
                gap = float((ours[i] - others[j]).abs().max())
                # a NaN is no agreement, and max() would lose it
                gaps[kind] = max(gaps[kind], gap) if gap == gap else float("inf")
    masks = gaps["masks"] if with_masks else None
    return Agreement(compared, unmatched, gaps["boxes"], gaps["scores"], masks)


def _pairs(found: Detections, expected: Detections) -> list[tuple[int, int]]:
    if not len(found) or not len(expected):
        return []
    far = (found.boxes[:, None] - expected.boxes).abs().amax(dim=2)
    far = far + (found.scores[:, None] - expected.scores).abs()
    far[found.labels[:, None] != expected.labels] = float("inf")
    pairs = []
    for i in range(len(found)):
        j = int(far[i].argmin())
        if far[i, j] < SAME_BOX:
            pairs.append((i, j))
            far[:, j] = float("inf")
    return pairs


def coco_results(sample: Any) -> list[dict[str, Any]]:
    """What a detector found in an image in the form of COCO's result files.

    Args:
        sample: mmdet's data sample with ``pred_instances``.

    Returns:
        Of each object ``image_id``, ``bbox`` (x, y, width, height in pixels), ``score``, ``label``
        (of the model, counted from 0; COCO's own numbers of categories are the dataset's) and,
        where there are masks, ``segmentation`` as run lengths.
    """
    found = sample.pred_instances.cpu()
    results = []
    for index, (box, score, label) in enumerate(
        zip(found.bboxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
    ):
        left, top, right, bottom = box
        one: dict[str, Any] = {
            "image_id": sample.metainfo.get("img_id"),
            "bbox": [left, top, right - left, bottom - top],
            "score": score,
            "label": label,
        }
        if "masks" in found:
            one["segmentation"] = _run_lengths(found.masks[index])
        results.append(one)
    return results


def _run_lengths(mask: Tensor) -> dict[str, Any]:
    from pycocotools import mask as masks

    encoded = masks.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode("ascii")}
