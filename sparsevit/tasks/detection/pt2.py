"""Whole detectors as pt2 packages: AOTInductor's native code, with NMS and RoIAlign in it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparsevit.latency.backends.aot_inductor import check_pt2, of_inductor
from sparsevit.latency.backends.base import DetectorRun, require_cpu, require_precision
from sparsevit.latency.backends.detector_graph import export_detector_graph, running
from sparsevit.latency.backends.graph import quiet_exporters
from sparsevit.models.static_two_stage import DetectorOps, RoiAlignSettings
from sparsevit.ops import plain_detector_ops


def _roi_align(
    maps: Sequence[Tensor], rois: Tensor, level: Tensor, settings: RoiAlignSettings
) -> tuple[Tensor, Tensor]:
    return plain_detector_ops.roi_align(
        *(maps, rois, level, settings.scales, (settings.height, settings.width)),
        *(settings.sampling_ratio, settings.aligned),
    )


PT2_OPS = DetectorOps(plain_detector_ops.greedy_nms, _roi_align, lists=False)
"""NMS and RoIAlign in PyTorch's own operations, so that a package needs nothing else.

Without lists: convolutions of AOTInductor (PyTorch 2.13) give wrong numbers on a batch whose length
depends on the image.
"""


def write_detector_pt2(model: nn.Module, images: Tensor, path: Path) -> Path:
    """Write a detector at its sparsity as a pt2 package for the CPU of this machine.

    Args:
        model, images: see
            :func:`sparsevit.latency.backends.detector_graph.export_detector_graph`.
        path: file to write, ``*.pt2``.

    Raises:
        UserError: there is no C++ compiler, PyTorch is too old, or the detector is of another kind.
    """
    check_pt2()
    program, _ = export_detector_graph(model, images, PT2_OPS)
    with torch.no_grad(), quiet_exporters():
        of_inductor("aoti_compile_and_package")(program, package_path=os.fspath(path))
    return path


def load_detector_pt2(path: Path, precision: str, device: torch.device) -> DetectorRun:
    """A package of :func:`write_detector_pt2`.

    Raises:
        UserError: PyTorch is too old, or another device or precision than the package's is asked.
    """
    require_cpu("pt2", device)
    require_precision("pt2", precision, ("fp32",))
    package = of_inductor("aoti_load_package")(os.fspath(path))

    def call(images: Tensor, sizes: Tensor) -> Sequence[Any]:
        with torch.no_grad():
            outputs: Sequence[Any] = package(images, sizes)
            return outputs

    return running(call)
