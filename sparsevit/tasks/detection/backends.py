"""What executes a whole two-stage detector: images in, boxes, scores, labels and masks out.

>>> run = prepare_detector("onnxruntime", model, images)  # at the sparsity it has now
>>> found = run(images)  # Detections of each image
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sparsevit.errors import UserError
from sparsevit.latency.backends.base import (
    DetectorRun,
    autocast,
    full_sizes,
    require_precision,
)
from sparsevit.latency.backends.detector_onnx import (
    check_detector_openvino,
    prepare_detector_onnxruntime,
    prepare_detector_openvino,
)
from sparsevit.latency.backends.registry import BACKENDS, require_backend
from sparsevit.models.detections import Detections, to_instances
from sparsevit.models.two_stage import DetectorPieces, detect, plain_pieces, require_two_stage
from sparsevit.sparsity.handle import SparseModule

PrepareDetector = Callable[[nn.Module, Tensor, str, torch.device], DetectorRun]


def prepare_detector_eager(
    model: nn.Module, images: Tensor, precision: str, device: torch.device
) -> DetectorRun:
    """mmdet's inference as it is, at the sparsity that the model has now."""
    return _run_by_mmdet(model, plain_pieces(model), model.get_submodule("backbone"), precision)


def prepare_detector_compile(
    model: nn.Module, images: Tensor, precision: str, device: torch.device
) -> DetectorRun:
    """Compiled by :func:`torch.compile` in pieces: a SparseViT as
    :mod:`sparsevit.models.compiled` does, the neck and the heads each as a whole. What lies between
    them (top-k, NMS, RoIAlign) is mmdet's and eager.
    """
    from sparsevit.models import SparseViT
    from sparsevit.models.compiled import compiled

    backbone = model.get_submodule("backbone")
    if isinstance(backbone, SparseViT):
        backbone = compiled(backbone, frozen=True)
        features: Callable[[Tensor], Any] = backbone
    else:
        features = torch.compile(backbone, dynamic=False)
    return _run_by_mmdet(model, _compiled_pieces(model, features), backbone, precision)


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
    sparsity = backbone.get_sparsity() if isinstance(backbone, SparseModule) else None

    # ratios are read at every call; they may have been set anew since
    def run(images: Tensor, sizes: Tensor | None = None) -> list[Detections]:
        if isinstance(backbone, SparseModule) and sparsity is not None:
            backbone.set_sparsity(sparsity)
        with torch.no_grad(), autocast(precision, images.device):
            return detect(model, pieces, images, full_sizes(images) if sizes is None else sizes)

    return run


DETECTOR_BACKENDS: dict[str, PrepareDetector] = {
    "eager": prepare_detector_eager,
    "compile": prepare_detector_compile,
    "onnxruntime": prepare_detector_onnxruntime,
    "openvino": prepare_detector_openvino,
}
"""name -> (detector in evaluation mode, example images, precision, device) -> what runs it."""


def require_detector_backend(name: str, precision: str, device: torch.device) -> None:
    """Refuse a backend that cannot be had for a whole detector, before any work is put into it.

    Raises:
        UserError: see :func:`sparsevit.latency.backends.require_backend`; or OpenVINO is asked for
            another precision than fp32, in which it would round the pixels of boxes too.
    """
    if name in BACKENDS and name not in DETECTOR_BACKENDS:
        raise UserError(
            f"The backend {name} takes a backbone, not a whole detector.",
            f"Take --scope backbone, or one of {', '.join(DETECTOR_BACKENDS)}.",
        )
    require_backend(name, precision, device)
    if name == "openvino":
        check_detector_openvino()
        require_precision("openvino", precision, ("fp32",))


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
        name: one of ``DETECTOR_BACKENDS``.
        model: Faster R-CNN or Mask R-CNN of mmdet, on ``device``; dense ones too.
        images: (B, 3, H, W), normalised; their shape is the only one that exported graphs take.
        precision: one of :data:`sparsevit.latency.backends.PRECISIONS`.
        device: that of the images where None.

    Raises:
        UserError: the backend or precision is unknown, cannot be had here or is not installed, or
            the detector is of another kind.
    """
    where = device or images.device
    require_detector_backend(name, precision, where)
    require_two_stage(model)
    model.eval()
    return DETECTOR_BACKENDS[name](model, images, precision, where)


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
