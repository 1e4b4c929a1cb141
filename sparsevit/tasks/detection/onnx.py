"""Whole detectors as ONNX files, run by ONNX Runtime or converted for OpenVINO.

NMS and RoIAlign are ONNX's own ``NonMaxSuppression`` and ``RoiAlign``. OpenVINO is given the ONNX
file: its converter of PyTorch graphs does not know them, that of ONNX does.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparsevit.latency.backends.base import DetectorRun, require
from sparsevit.latency.backends.detector_graph import (
    INPUTS,
    RUNTIME_OPS,
    export_detector_graph,
    running,
)
from sparsevit.latency.backends.graph import quiet_exporters
from sparsevit.latency.backends.onnx_runtime import EXTRA, open_session
from sparsevit.latency.backends.open_vino import EXTRA as OPENVINO_EXTRA
from sparsevit.latency.backends.open_vino import open_request
from sparsevit.models.static_two_stage import NO_BOX

INT64 = 7
"""ONNX's number of the type."""


def check_detector_openvino() -> None:
    """Refuse where OpenVINO cannot be given a detector.

    Raises:
        UserError: openvino, or onnx or onnxscript, by which it is converted, is not installed.
    """
    require("openvino", OPENVINO_EXTRA)
    for package in ("onnx", "onnxscript"):
        require(package, EXTRA)


def write_detector_onnx(model: nn.Module, images: Tensor, path: Path) -> Path:
    """Write a detector at its sparsity as ONNX, weights included.

    Args:
        model, images: see
            :func:`sparsevit.latency.backends.detector_graph.export_detector_graph`.
        path: file to write.

    Raises:
        UserError: onnx or onnxscript is not installed, or the detector is of another kind.
    """
    for package in ("onnx", "onnxscript"):
        require(package, EXTRA)
    program, names = export_detector_graph(model, images, RUNTIME_OPS)
    with quiet_exporters():
        exported = torch.onnx.export(
            program,
            (),
            dynamo=True,
            input_names=list(INPUTS),
            output_names=names,
            custom_translation_table=_translations(),
            verbose=False,
        )
        assert exported is not None
        exported.save(path)
    return path


def load_detector_onnx(path: Path, precision: str, device: torch.device) -> DetectorRun:
    """A file of :func:`write_detector_onnx` in ONNX Runtime.

    Raises:
        UserError: see :func:`sparsevit.latency.backends.onnx_runtime.open_session`.
    """
    session = open_session(path, precision, device)

    def call(images: Tensor, sizes: Tensor) -> Sequence[Any]:
        given = (images.cpu().numpy(), sizes.cpu().numpy())
        outputs: list[Any] = session.run(None, dict(zip(INPUTS, given, strict=True)))
        return outputs

    return running(call)


def prepare_detector_onnxruntime(
    model: nn.Module, images: Tensor, precision: str, device: torch.device
) -> DetectorRun:
    """Exported to ONNX at its sparsity, and loaded into ONNX Runtime."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_detector_onnx(model, images, Path(folder, "detector.onnx"))
        return load_detector_onnx(path, precision, device)


def convert_detector(model: nn.Module, images: Tensor) -> Any:
    """A detector at its sparsity as an ``openvino.Model``.

    Raises:
        UserError: see :func:`check_detector_openvino`, or the detector is of another kind.
    """
    check_detector_openvino()
    openvino = require("openvino", OPENVINO_EXTRA)
    with tempfile.TemporaryDirectory() as folder:
        path = write_detector_onnx(model, images, Path(folder, "detector.onnx"))
        # weights are read while it is converted, so the file may go
        return openvino.convert_model(os.fspath(path))


def write_detector_openvino(model: nn.Module, images: Tensor, path: Path) -> Path:
    """Write OpenVINO's ``path`` (``.xml``) and, beside it, the weights (``.bin``), in fp32.

    Raises:
        UserError: see :func:`convert_detector`.
    """
    converted = convert_detector(model, images)
    openvino = require("openvino", OPENVINO_EXTRA)
    openvino.save_model(converted, os.fspath(path), compress_to_fp16=False)
    return path


def load_detector_openvino(model: Any, precision: str, device: torch.device) -> DetectorRun:
    """A detector in OpenVINO, on the CPU.

    Args:
        model: path of an ``.xml`` file, or an ``openvino.Model``.
        precision, device: see :func:`sparsevit.latency.backends.open_vino.open_request`.

    Raises:
        UserError: see :func:`sparsevit.latency.backends.open_vino.open_request`.
    """
    request = open_request(model, precision, device)

    def call(images: Tensor, sizes: Tensor) -> Sequence[Any]:
        # results are copied: the request would overwrite them at its next call
        results = request.infer({0: images.numpy(), 1: sizes.numpy()}, share_inputs=True)
        return [results[index] for index in range(len(results))]

    return running(call)


def prepare_detector_openvino(
    model: nn.Module, images: Tensor, precision: str, device: torch.device
) -> DetectorRun:
    """Converted at its sparsity, and compiled for the CPU."""
    return load_detector_openvino(convert_detector(model, images), precision, device)


# --- our operations as ONNX's ---------------------------------------------------------------------


def _translations() -> dict[Callable[..., Any], Callable[..., Any]]:
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
            op.Constant(value_floats=[NO_BOX / 2]),
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
