"""The graph of a whole two-stage detector at one sparsity, image size and batch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sparsevit.latency.backends.base import DetectorRun, full_sizes
from sparsevit.latency.backends.graph import INPUT, quiet_exporters
from sparsevit.models.detections import Detections
from sparsevit.models.static_two_stage import DetectorOps, RoiAlignSettings, StaticTwoStage
from sparsevit.models.two_stage import output_shapes
from sparsevit.ops.runtime_ops import greedy_nms, roi_align

SIZES = "sizes"
"""Name of the second input: (B, 2) float, height and width of each image without padding."""

INPUTS = (INPUT, SIZES)


def level_by_level(
    maps: Sequence[Tensor], rois: Tensor, level: Tensor, settings: RoiAlignSettings
) -> tuple[Tensor, Tensor]:
    """RoIAlign of each level on the RoIs that belong to it; see :class:`DetectorOps`."""
    pooled, order = [], []
    for number, (map, scale) in enumerate(zip(maps, settings.scales, strict=True)):
        index = (level == number).nonzero()[:, 0]
        order.append(index)
        pooled.append(
            roi_align(
                *(map, rois[index], scale, settings.height, settings.width),
                *(settings.sampling_ratio, settings.aligned),
            )
        )
    return torch.cat(pooled), torch.cat(order)


RUNTIME_OPS = DetectorOps(greedy_nms, level_by_level)
"""NMS and RoIAlign as operations of the runtime."""


def export_detector_graph(
    model: nn.Module, images: Tensor, ops: DetectorOps
) -> tuple[torch.export.ExportedProgram, list[str]]:
    """A detector in evaluation mode as a graph from images and sizes to detections.

    Args:
        model: Faster R-CNN or Mask R-CNN of mmdet, at the sparsity to export, on the CPU.
        images: (B, 3, H, W) of the size to export.
        ops: NMS and RoIAlign.

    Returns:
        The graph, and the names of its outputs; see :class:`StaticTwoStage` for what they are.

    Raises:
        UserError: the detector is of another kind.
    """
    twin = StaticTwoStage(_to_export(model), images, ops).eval()
    sizes = full_sizes(images)
    with torch.no_grad(), quiet_exporters():
        # once eagerly, so that the tables that are kept for this size are there
        twin(images, sizes)
        program = torch.export.export(twin, (images, sizes), strict=False)
    return program, list(output_shapes(model, len(images)))


def _to_export(model: nn.Module) -> nn.Module:
    """The detector with its backbone, if it is a SparseViT, in the form that runtimes like best."""
    from sparsevit.models.exported import exported
    from sparsevit.models.sparsevit import SparseViT

    backbone = model.get_submodule("backbone")
    if not isinstance(backbone, SparseViT):
        return model
    # a dictionary of submodules of its own, so that the detector is left as it is
    twin = copy.copy(model)
    twin._modules = {**model._modules, "backbone": exported(backbone)}
    return twin


def running(call: Callable[[Tensor, Tensor], Sequence[Any]]) -> DetectorRun:
    """What runs an exported detector, from what runs its graph on images and sizes."""

    def run(images: Tensor, sizes: Tensor | None = None) -> list[Detections]:
        given = full_sizes(images) if sizes is None else sizes.to(torch.float32)
        boxes, scores, labels, *masks = (torch.as_tensor(one) for one in call(images, given))
        counts = (labels >= 0).sum(dim=1).tolist()
        return [
            Detections(
                boxes[image, :count],
                scores[image, :count],
                labels[image, :count].to(torch.int64),
                masks[0][image, :count] if masks else None,
            )
            for image, count in enumerate(counts)
        ]

    return run
