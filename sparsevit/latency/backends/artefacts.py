"""The formats in which a backbone or a detector is written, and what loads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from sparsevit.latency.backends.aot_inductor import check_pt2, load_pt2, write_pt2
from sparsevit.latency.backends.base import DetectorRun, Run
from sparsevit.latency.backends.detector_onnx import (
    check_detector_openvino,
    load_detector_onnx,
    load_detector_openvino,
    write_detector_onnx,
    write_detector_openvino,
)
from sparsevit.latency.backends.detector_pt2 import load_detector_pt2, write_detector_pt2
from sparsevit.latency.backends.onnx_runtime import check_onnx, load_onnx, write_onnx
from sparsevit.latency.backends.open_vino import check_openvino, load_openvino, write_openvino
from sparsevit.latency.backends.tensor_rt import check_tensorrt, load_tensorrt, write_tensorrt

Loaded = TypeVar("Loaded")


@dataclass(frozen=True)
class Format(Generic[Loaded]):
    """A format of files that a runtime loads.

    Attributes:
        name: as the command line has it.
        suffix: of its file; there may be others beside it, with the same stem.
        packages: distributions that made the file or run it, whose versions are worth knowing.
        check: raises a UserError where it cannot be written or run here.
        write: (model in evaluation mode on the CPU, images, path) -> path.
        load: (path, precision, device) -> what runs it.
        device: what it is compared on.
    """

    name: str
    suffix: str
    packages: tuple[str, ...]
    check: Callable[[], None]
    write: Callable[[nn.Module, Tensor, Path], Path]
    load: Callable[[Path, str, torch.device], Loaded]
    device: str = "cpu"


FORMATS: dict[str, Format[Run]] = {
    one.name: one
    for one in (
        Format(
            "onnx",
            ".onnx",
            ("onnx", "onnxscript", "onnxruntime"),
            check_onnx,
            write_onnx,
            load_onnx,
        ),
        Format("openvino", ".xml", ("openvino",), check_openvino, write_openvino, load_openvino),
        Format("pt2", ".pt2", (), check_pt2, write_pt2, load_pt2),
        Format(
            "tensorrt",
            ".engine",
            ("tensorrt", "onnx", "onnxscript"),
            check_tensorrt,
            write_tensorrt,
            load_tensorrt,
            device="cuda",
        ),
    )
}
"""Of a backbone: images in, feature maps out."""

DETECTOR_FORMATS: dict[str, Format[DetectorRun]] = {
    one.name: one
    for one in (
        Format(
            "onnx",
            ".onnx",
            ("onnx", "onnxscript", "onnxruntime"),
            check_onnx,
            write_detector_onnx,
            load_detector_onnx,
        ),
        Format(
            "openvino",
            ".xml",
            ("openvino", "onnx", "onnxscript"),
            check_detector_openvino,
            write_detector_openvino,
            load_detector_openvino,
        ),
        Format("pt2", ".pt2", (), check_pt2, write_detector_pt2, load_detector_pt2),
    )
}
"""Of a whole detector: images and sizes in, detections out."""
