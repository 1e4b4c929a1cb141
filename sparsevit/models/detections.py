"""What a two-stage detector found in an image, and its masks at the size of the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
