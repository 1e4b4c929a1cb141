"""The graph of a whole two-stage detector at one sparsity, image size and batch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sparsevit.latency.backends.graph import INPUT, Graph, export_program
from sparsevit.methods import exported_form
from sparsevit.sparsity.handle import sparse_parts
from sparsevit.tasks.detection import plain_ops, runtime_ops
from sparsevit.tasks.detection.detections import Detections
from sparsevit.tasks.detection.static_two_stage import (
    DetectorOps,
    RoiAlignSettings,
    StaticTwoStage,
)
from sparsevit.tasks.detection.two_stage import output_shapes

SIZES = "sizes"
"""Name of the second input: (B, 2) float, height and width of each image without padding."""


def level_by_level(
    maps: Sequence[Tensor], rois: Tensor, level: Tensor, settings: RoiAlignSettings
) -> tuple[Tensor, Tensor]:
    """RoIAlign of each level on the RoIs that belong to it; see :class:`DetectorOps`."""
    pooled, order = [], []
    for number, (map, scale) in enumerate(zip(maps, settings.scales, strict=True)):
        index = (level == number).nonzero()[:, 0]
        order.append(index)
        pooled.append(
            runtime_ops.roi_align(
                *(map, rois[index], scale, settings.height, settings.width),
                *(settings.sampling_ratio, settings.aligned),
            )
        )
    return torch.cat(pooled), torch.cat(order)


RUNTIME_OPS = DetectorOps(runtime_ops.greedy_nms, level_by_level)
"""NMS and RoIAlign as operations of the runtime, which knows them by their names in ONNX."""


def all_levels_at_once(
    maps: Sequence[Tensor], rois: Tensor, level: Tensor, settings: RoiAlignSettings
) -> tuple[Tensor, Tensor]:
    """RoIAlign of all levels as one table; see :class:`DetectorOps`."""
    return plain_ops.roi_align(
        *(maps, rois, level, settings.scales, (settings.height, settings.width)),
        *(settings.sampling_ratio, settings.aligned),
    )


PLAIN_OPS = DetectorOps(plain_ops.greedy_nms, all_levels_at_once, lists=False)
"""NMS and RoIAlign in PyTorch's own operations, so that a pt2 package needs nothing else.

Without lists: convolutions of AOTInductor (PyTorch 2.13) give wrong numbers on a batch whose length
depends on the image.
"""


def detector_graph(model: nn.Module, images: Tensor, ops: DetectorOps = RUNTIME_OPS) -> Graph:
    """A detector in evaluation mode as a graph from images and sizes to detections.

    Args:
        model: Faster R-CNN or Mask R-CNN of mmdet, at the sparsity to export, on the CPU.
        images: (B, 3, H, W) of the size to export.
        ops: NMS and RoIAlign.

    Returns:
        See :class:`StaticTwoStage` for what its outputs are.

    Raises:
        UserError: the detector is of another kind.
    """
    # a dictionary of submodules of its own, so that the detector is left as it is
    twin = copy.copy(model)
    backbone = exported_form(model.get_submodule("backbone"))
    twin._modules = {**model._modules, "backbone": backbone}
    program = export_program(StaticTwoStage(twin, images, ops).eval(), images, full_sizes(images))
    return Graph(
        program,
        (INPUT, SIZES),
        tuple(output_shapes(model, len(images))),
        sparse=bool(sparse_parts(model)),
        translations=runtime_ops.onnx_translations() if ops is RUNTIME_OPS else {},
    )


class DetectorRun(Protocol):
    """Runs a whole detector on a batch."""

    def __call__(self, images: Tensor, sizes: Tensor | None = None) -> list[Detections]:
        """What is found in each image.

        Args:
            images: (B, 3, H, W), normalised; of the shape that it was prepared for.
            sizes: (B, 2) float, height and width of each image without its padding at the bottom
                and at the right, to which boxes are clipped; H and W where None.
        """


def full_sizes(images: Tensor) -> Tensor:
    """(B, 2) float sizes of images without padding."""
    height, width = images.shape[-2:]
    return torch.tensor([[height, width]] * len(images), dtype=torch.float32)


def running(call: Callable[..., Sequence[Any]]) -> DetectorRun:
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
