"""What executes a whole two-stage detector: images in, boxes, scores, labels and masks out.

>>> run = prepare_detector("onnxruntime", model, images)  # at the sparsity it has now
>>> found = run(images)  # Detections of each image
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sparsevit.latency.backends.artefacts import Format, file_format
from sparsevit.latency.backends.base import (
    autocast,
    require,
    require_cpu,
    require_precision,
    sparsity_now,
)
from sparsevit.latency.backends.onnx_runtime import EXTRA as ONNX_EXTRA
from sparsevit.latency.backends.onnx_runtime import prepare_onnxruntime, require_onnxruntime
from sparsevit.latency.backends.open_vino import (
    check_openvino,
    openvino_precisions,
    prepare_openvino,
)
from sparsevit.latency.backends.pytorch import require_compile, require_eager
from sparsevit.latency.backends.registry import Backend, by_graph, require_whole_backend
from sparsevit.methods import compiled_form
from sparsevit.tasks.detection.detections import Detections, to_instances
from sparsevit.tasks.detection.graph import (
    PLAIN_OPS,
    DetectorRun,
    detector_graph,
    full_sizes,
    running,
)
from sparsevit.tasks.detection.two_stage import (
    DetectorPieces,
    detect,
    plain_pieces,
    require_two_stage,
)


def prepare_detector_eager(
    model: nn.Module, images: Tensor, precision: str, device: torch.device
) -> DetectorRun:
    """mmdet's inference as it is, at the sparsity that the model has now."""
    return _run_by_mmdet(model, plain_pieces(model), model.get_submodule("backbone"), precision)


def prepare_detector_compile(
    model: nn.Module, images: Tensor, precision: str, device: torch.device
) -> DetectorRun:
    """Compiled by :func:`torch.compile` in pieces: a sparse backbone in the form that its method
    gives it, the neck and the heads each as a whole. What lies between them (top-k, NMS, RoIAlign)
    is mmdet's and eager.
    """
    dense = model.get_submodule("backbone")
    sparse = compiled_form(dense, frozen=True)
    features = torch.compile(dense, dynamic=False) if sparse is None else sparse
    pieces = _compiled_pieces(model, features)
    return _run_by_mmdet(model, pieces, dense if sparse is None else sparse, precision)


def _compiled_pieces(model: Any, backbone: Callable[[Tensor], Any]) -> DetectorPieces:
    plain = plain_pieces(model)
    neck = torch.compile(model.neck, dynamic=False) if model.with_neck else None

    def features(images: Tensor) -> Sequence[Tensor]:
        maps = tuple(backbone(images))
        return maps if neck is None else tuple(neck(maps))

    return DetectorPieces(
        features,
        torch.compile(plain.rpn, dynamic=False),
        _for_any_number(plain.boxes),
        _for_any_number(plain.masks) if plain.masks is not None else None,
    )


def _for_any_number(head: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    """A head compiled once for all numbers of RoIs but one."""
    call = torch.compile(head, dynamic=False)

    def run(features: Tensor) -> Any:
        torch._dynamo.maybe_mark_dynamic(features, 0)
        return call(features)

    return run


def _run_by_mmdet(
    model: nn.Module, pieces: DetectorPieces, backbone: nn.Module, precision: str
) -> DetectorRun:
    restore = sparsity_now(backbone)

    def run(images: Tensor, sizes: Tensor | None = None) -> list[Detections]:
        restore()
        with torch.no_grad(), autocast(precision, images.device):
            return detect(model, pieces, images, full_sizes(images) if sizes is None else sizes)

    return run


def require_detector_openvino(precision: str, device: torch.device) -> None:
    """Refuse what OpenVINO cannot do with a detector: in bf16 it would round the pixels of boxes.

    Raises:
        UserError: see :func:`check_detector_openvino`, or another precision than fp32 is asked for.
    """
    check_openvino()
    require_cpu("openvino", device)
    require_precision(
        "openvino",
        precision,
        ("fp32",),
        whole="detector",
        of_backbone=openvino_precisions(),
        why="it would round the pixels of boxes",
    )
    check_detector_openvino()


def check_detector_openvino() -> None:
    """Refuse where OpenVINO cannot be given a detector.

    Raises:
        UserError: openvino, or onnx or onnxscript, by which it is converted, is not installed.
    """
    check_openvino()
    for package in ("onnx", "onnxscript"):
        require(package, ONNX_EXTRA)


BACKENDS: dict[str, Backend[DetectorRun]] = {
    one.name: one
    for one in (
        Backend("eager", require_eager, prepare_detector_eager),
        Backend("compile", require_compile, prepare_detector_compile),
        Backend(
            "onnxruntime",
            require_onnxruntime,
            by_graph(prepare_onnxruntime, detector_graph, running),
        ),
        Backend(
            "openvino",
            require_detector_openvino,
            by_graph(prepare_openvino, detector_graph, running),
        ),
    )
}
"""Of a whole detector."""

FORMATS: dict[str, Format[DetectorRun]] = {
    "onnx": file_format("onnx", detector_graph, running),
    "openvino": replace(
        file_format("openvino", detector_graph, running),
        packages=("openvino", "onnx", "onnxscript"),
        check=check_detector_openvino,
    ),
    "pt2": file_format("pt2", partial(detector_graph, ops=PLAIN_OPS), running),
}
"""Of a whole detector: images and sizes in, detections out."""


def prepare_detector(
    name: str,
    model: nn.Module,
    images: Tensor,
    precision: str = "fp32",
    device: torch.device | None = None,
) -> DetectorRun:
    """Make a detector ready to run in a backend, at the sparsity that it is set to now.

    What is returned stays at that sparsity, whatever the model is set to later.

    Args:
        name: one of ``BACKENDS``.
        model: Faster R-CNN or Mask R-CNN of mmdet, on ``device``; dense ones too.
        images: (B, 3, H, W), normalised; their shape is the only one that exported graphs take.
        precision: one of :data:`sparsevit.latency.backends.PRECISIONS`.
        device: that of the images where None.

    Raises:
        UserError: the backend or precision is unknown, cannot be had here or is not installed, or
            the detector is of another kind.
    """
    where = device or images.device
    require_whole_backend("detector", BACKENDS, name, precision, where)
    require_two_stage(model)
    model.eval()
    return BACKENDS[name].prepare(model, images, precision, where)


def as_test_step(model: Any, run: DetectorRun) -> Callable[[dict[str, Any]], list[Any]]:
    """In place of ``model.test_step`` or ``model.val_step``: the same results, run by a backend.

    Args:
        model: the detector; its ``data_preprocessor`` makes the batch ready.
        run: of :func:`prepare_detector`; a batch must become images of the shape that it takes.

    Returns:
        batch of mmdet's data loader -> its data samples, with ``pred_instances`` in pixels of the
        original images.
    """
    roi_cfg = model.roi_head.test_cfg
    threshold = float(roi_cfg.get("mask_thr_binary", 0.5))

    def step(batch: dict[str, Any]) -> list[Any]:
        data = model.data_preprocessor(batch, False)
        samples: list[Any] = data["data_samples"]
        sizes = torch.tensor([one.metainfo["img_shape"][:2] for one in samples])
        found = run(data["inputs"], sizes.to(torch.float32))
        for sample, one in zip(samples, found, strict=True):
            sample.pred_instances = to_instances(one, sample.metainfo, threshold)
        return samples

    return step
