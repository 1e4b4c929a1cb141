"""torchvision's compiled RoIAlign and NMS behind the signatures of ``mmcv._ext``.

They are used where they compute what mmcv's compute; the largest-sample RoIAlign and NMS with an
offset are not among that, and go to the PyTorch code.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsevit.ops.mmcv_ext import nms as pytorch_nms
from sparsevit.ops.mmcv_ext import roi_align as pytorch_roi_align
from sparsevit.ops.mmcv_ext.arithmetic import exact_arithmetic, working_dtype
from sparsevit.ops.mmcv_ext.roi_geometry import check_rois


def why_not() -> str:
    """Why torchvision's compiled ops cannot be used here; empty where they work.

    A torchvision built for another torch imports in part, or not at all, and not always with an
    ImportError: so they are tried on a box.
    """
    try:
        from torchvision.ops import nms, roi_align

        box = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
        kept = nms(box, torch.ones(1), 0.5)
        roi = torch.tensor([[0.0, 0.0, 0.0, 2.0, 2.0]])
        pooled = roi_align(torch.ones(1, 1, 2, 2), roi, (1, 1), 1.0, 0, True)
    except ModuleNotFoundError as error:
        return f"{error.name or 'torchvision'} is not installed"
    except Exception as error:
        return f"its ops do not work with torch {torch.__version__}: {_first_line(error)}"
    if kept.tolist() != [0] or not torch.allclose(pooled, torch.ones(1)):
        return f"its ops give wrong results with torch {torch.__version__}"
    return ""


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """As :func:`sparsevit.ops.mmcv_ext.nms.nms`."""
    if offset != 0 or boxes.numel() == 0:
        return pytorch_nms.nms(boxes, scores, iou_threshold, offset)
    from torchvision.ops import nms as torchvision_nms

    with exact_arithmetic(boxes):
        dtype = working_dtype(boxes)
        # torchvision compares in double; mmcv's threshold is a float, and 0.3 as one is above 0.3.
        threshold = torch.tensor(iou_threshold, dtype=dtype).item()
        return torchvision_nms(boxes.to(dtype), scores.to(dtype), threshold)


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """As :func:`sparsevit.ops.mmcv_ext.roi_align.roi_align_forward`."""
    size = (aligned_height, aligned_width)
    if pool_mode == pytorch_roi_align.POOL_MAX:
        pytorch_roi_align.roi_align_forward(
            input, rois, output, argmax_y, argmax_x, *size, spatial_scale, sampling_ratio,
            pool_mode, aligned,
        )  # fmt: skip
        return
    if rois.size(0) == 0:
        return
    from torchvision.ops import roi_align

    with exact_arithmetic(input):
        dtype = working_dtype(input)
        rois = rois.to(dtype)
        check_rois(rois, input.size(0), aligned)
        pooled = roi_align(input.to(dtype), rois, size, spatial_scale, sampling_ratio, aligned)
        output.copy_(pooled)


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """As :func:`sparsevit.ops.mmcv_ext.roi_align.roi_align_backward`."""
    size = (aligned_height, aligned_width)
    backward = compiled_backward()
    # torchvision's adds in any order on CUDA; ours does not.
    free = not torch.are_deterministic_algorithms_enabled()
    if pool_mode == pytorch_roi_align.POOL_MAX or backward is None or not free:
        pytorch_roi_align.roi_align_backward(
            grad_output, rois, argmax_y, argmax_x, grad_input, *size, spatial_scale,
            sampling_ratio, pool_mode, aligned,
        )  # fmt: skip
        return
    with exact_arithmetic(grad_output):
        dtype = working_dtype(grad_output)
        gradient = backward(
            grad_output.to(dtype), rois.to(dtype), spatial_scale, *size, *grad_input.shape,
            sampling_ratio, aligned,
        )  # fmt: skip
        grad_input.add_(gradient.to(grad_input.dtype))


def compiled_backward() -> Any:
    """torchvision's gradient kernel, or None where this torchvision does not register it."""
    return getattr(torch.ops.torchvision, "_roi_align_backward", None)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
