"""What executes a whole two-stage detector: images in, boxes, scores, labels and masks out.

>>> run = prepare_detector("onnxruntime", model, images)  # at the sparsity it has now
>>> found = run(images)  # Detections of each image
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sparsevit.errors import UserError
from sparsevit.latency.backends.base import DTYPES, autocast
from sparsevit.models.detections import Detections, to_instances
from sparsevit.models.two_stage import DetectorPieces, detect, plain_pieces, require_two_stage
from sparsevit.sparsity.handle import SparseModule


class DetectorRun(Protocol):
    """Runs a detector on a batch."""

    def __call__(self, images: Tensor, sizes: Tensor | None = None) -> list[Detections]:
        """What is found in each image.

        Args:
            images: (B, 3, H, W), normalised; of the shape that it was prepared for.
            sizes: (B, 2) float, height and width of each image without its padding at the bottom
                and at the right, to which boxes are clipped; H and W where None.
        """


PrepareDetector = Callable[[nn.Module, Tensor, str, torch.device], DetectorRun]


def prepare_detector_eager(
    model: nn.Module, images: Tensor, precision: str, device: torch.device
) -> DetectorRun:
    """mmdet's inference as it is, at the sparsity that the model has now."""
    return _run_by_mmdet(model, plain_pieces(model), model.get_submodule("backbone"), precision)


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


def full_sizes(images: Tensor) -> Tensor:
    """(B, 2) float sizes of images without padding."""
    height, width = images.shape[-2:]
    return torch.tensor([[height, width]] * len(images), dtype=torch.float32)


DETECTOR_BACKENDS: dict[str, PrepareDetector] = {"eager": prepare_detector_eager}
"""name -> (detector in evaluation mode, example images, precision, device) -> what runs it."""


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
    if name not in DETECTOR_BACKENDS:
        names = ", ".join(DETECTOR_BACKENDS)
        raise UserError(f"There is no backend {name!r} for detectors.", f"Take one of {names}.")
    if precision not in DTYPES:
        names = ", ".join(DTYPES)
        raise UserError(f"There is no precision {precision!r}.", f"Take one of {names}.")
    require_two_stage(model)
    model.eval()
    return DETECTOR_BACKENDS[name](model, images, precision, device or images.device)


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
