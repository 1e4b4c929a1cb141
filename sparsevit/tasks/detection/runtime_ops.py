"""NMS and RoIAlign as single operations of a graph, for runtimes that have them of their own.

In PyTorch they are what ``mmcv_ext`` does; an exporter puts the runtime's operation in their place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sparsevit.ops.mmcv_ext.nms import nms
from sparsevit.ops.mmcv_ext.roi_align import POOL_AVERAGE, roi_align_forward

INT64 = 7
"""ONNX's number of the type."""


@torch.library.custom_op("sparsevit::greedy_nms", mutates_args=())
def greedy_nms(boxes: Tensor, scores: Tensor, iou_threshold: float, count: int) -> Tensor:
    """The boxes that greedy NMS keeps, of those that score 0 or more.

    Args:
        boxes: (N, 4) x1, y1, x2, y2. scores: (N,).
        iou_threshold: a box goes where its IoU with a kept one is above this.
        count: how many to give out.

    Returns:
        (count,) int64 indices, best first; -1 where fewer are kept.
    """
    index = (scores >= 0).nonzero()[:, 0]
    kept = index[nms(boxes[index], scores[index], iou_threshold, 0)][:count]
    filled = kept.new_full((count,), -1)
    filled[: len(kept)] = kept
    return filled


@greedy_nms.register_fake
def _(boxes: Tensor, scores: Tensor, iou_threshold: float, count: int) -> Tensor:
    return boxes.new_empty(count, dtype=torch.int64)


@torch.library.custom_op("sparsevit::roi_align", mutates_args=())
def roi_align(
    map: Tensor,
    rois: Tensor,
    scale: float,
    height: int,
    width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """RoIAlign's average, of one level.

    Args:
        map: (B, C, H, W).
        rois: (R, 5): image, x1, y1, x2, y2 in pixels of the image.
        scale: pixels of the map per pixel of the image.
        height, width: bins.
        sampling_ratio: samples of a bin along an axis; 0 takes ceil(bin size).
        aligned: shift by half a pixel.

    Returns:
        (R, C, height, width).
    """
    pooled = map.new_empty(len(rois), map.shape[1], height, width)
    no_argmax = map.new_empty(0)
    roi_align_forward(
        map,
        rois,
        pooled,
        no_argmax,
        no_argmax,
        height,
        width,
        scale,
        sampling_ratio,
        POOL_AVERAGE,
        aligned,
    )
    return pooled


@roi_align.register_fake
def _(
    map: Tensor,
    rois: Tensor,
    scale: float,
    height: int,
    width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    return map.new_empty(rois.shape[0], map.shape[1], height, width)


def onnx_translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Both operations as ONNX's own ``NonMaxSuppression`` and ``RoiAlign``, for an exporter.

    Boxes that score below 0 are never kept.
    """
    from onnxscript import opset18

    op: Any = opset18  # its annotations know tensors only, not what may stand for one

    def ints(*values: int) -> Any:
        return op.Constant(value_ints=list(values))

    def non_max_suppression(boxes: Any, scores: Any, iou_threshold: float, count: int) -> Any:
        chosen = op.NonMaxSuppression(
            op.Unsqueeze(boxes, ints(0)),
            op.Unsqueeze(scores, ints(0, 1)),
            ints(count),
            op.Constant(value_floats=[iou_threshold]),
            op.Constant(value_floats=[-0.5]),
        )
        # of image, class and box
        index = op.Gather(chosen, op.Constant(value_int=2), axis=1)
        return op.Slice(op.Concat(index, ints(*[-1] * count), axis=0), ints(0), ints(count))

    def align(
        map: Any,
        rois: Any,
        scale: float,
        height: int,
        width: int,
        sampling_ratio: int,
        aligned: bool,
    ) -> Any:
        image = op.Cast(op.Gather(rois, op.Constant(value_int=0), axis=1), to=INT64)
        return op.RoiAlign(
            map,
            op.Slice(rois, ints(1), ints(5), ints(1)),
            image,
            coordinate_transformation_mode="half_pixel" if aligned else "output_half_pixel",
            mode="avg",
            output_height=height,
            output_width=width,
            sampling_ratio=sampling_ratio,
            spatial_scale=scale,
        )

    return {
        torch.ops.sparsevit.greedy_nms.default: non_max_suppression,
        torch.ops.sparsevit.roi_align.default: align,
    }
