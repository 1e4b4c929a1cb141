"""What executes a whole segmentor: images in, a score for each class and pixel out.

>>> run = prepare_segmentor("onnxruntime", model, images)  # at the sparsity it has now
>>> logits = run(images)  # (B, K, H, W)
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sparsevit.errors import UserError
from sparsevit.latency.backends.graph import Graph
from sparsevit.latency.backends.registry import require_whole_backend
from sparsevit.methods import compiled_form, exported_form
from sparsevit.tasks.logits import LogitsRun, backends_of, formats_of, in_pytorch, logits_graph
from sparsevit.tasks.segmentation.static_mask2former import with_plain_sizes


class Network(nn.Module):
    """A segmentor's ``encode_decode``: all that is computed of one image or one crop of it.

    Args:
        model: an ``EncoderDecoder`` of mmseg.
        backbone: in place of the model's own.
        head: in place of the model's own.
    """

    def __init__(self, model: Any, backbone: Any = None, head: Any = None) -> None:
        super().__init__()
        self.backbone = model.backbone if backbone is None else backbone
        self.neck = model.neck if model.with_neck else None
        self.decode_head = model.decode_head if head is None else head
        self.test_cfg = model.test_cfg

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, K, H, W)."""
        maps = tuple(self.backbone(images))
        return self.decode(maps if self.neck is None else self.neck(maps), images.shape[-2:])

    def decode(self, maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """Feature maps -> (B, K, H, W) at the size (H, W) of the images."""
        shape = tuple(int(side) for side in size)
        metas = [{"img_shape": shape, "pad_shape": shape, "ori_shape": shape}] * len(maps[0])
        logits: Tensor = self.decode_head.predict(maps, metas, self.test_cfg)
        return logits


def segmentor_graph(model: nn.Module, images: Tensor) -> Graph:
    """A segmentor in evaluation mode as a graph from images to logits.

    Args:
        model: at the sparsity to export, on the CPU.
        images: (B, 3, H, W) of the size to export.
    """
    head = with_plain_sizes(model.get_submodule("decode_head"))
    network = Network(model, exported_form(model.get_submodule("backbone")), head)
    return logits_graph(model, network, images)


def prepare_segmentor_eager(
    model: nn.Module, images: Tensor, precision: str, device: torch.device
) -> LogitsRun:
    """mmseg's own modules, at the sparsity that the model has now."""
    return in_pytorch(Network(model), model.get_submodule("backbone"), precision)


def prepare_segmentor_compile(
    model: nn.Module, images: Tensor, precision: str, device: torch.device
) -> LogitsRun:
    """Compiled by :func:`torch.compile` in two pieces: a sparse backbone in the form that its
    method gives it, and what comes after it."""
    dense = model.get_submodule("backbone")
    sparse = compiled_form(dense, frozen=True)
    backbone = torch.compile(dense, dynamic=False) if sparse is None else sparse
    network: Any = Network(model, backbone, with_plain_sizes(model.get_submodule("decode_head")))
    network.decode = torch.compile(network.decode, dynamic=False)
    return in_pytorch(network, dense if sparse is None else sparse, precision)


BACKENDS = backends_of(prepare_segmentor_eager, prepare_segmentor_compile, segmentor_graph)
"""Of a whole segmentor."""

FORMATS = formats_of(segmentor_graph)
"""Of a whole segmentor: images in, logits out."""


def prepare_segmentor(
    name: str,
    model: Any,
    images: Tensor,
    precision: str = "fp32",
    device: torch.device | None = None,
) -> LogitsRun:
    """Make a segmentor ready to run in a backend, at the sparsity that it is set to now.

    What is returned stays at that sparsity, whatever the model is set to later. Where the model
    slides over its images, it takes crops.

    Args:
        name: one of ``BACKENDS``.
        model: an ``EncoderDecoder`` of mmseg, on ``device``; dense ones too.
        images: (B, 3, H, W), normalised; exported graphs take that size only, or that of a crop.
        precision: one of :data:`sparsevit.latency.backends.PRECISIONS`.
        device: that of the images where None.

    Raises:
        UserError: the backend or precision is unknown, cannot be had here or is not installed, or
            the segmentor is of another kind.
    """
    where = device or images.device
    require_whole_backend("segmentor", BACKENDS, name, precision, where)
    require_encoder_decoder(model)
    model.eval()
    height, width = crop_size(model, images.shape[-2:])
    return BACKENDS[name].prepare(model, images[..., :height, :width], precision, where)


def as_test_step(model: Any, run: LogitsRun) -> Callable[[dict[str, Any]], list[Any]]:
    """In place of ``model.test_step`` or ``model.val_step``: the same results, run by a backend.

    Args:
        model: the segmentor; its ``data_preprocessor`` makes the batch ready, and its own inference
            slides over large images and brings logits back to the size of the original.
        run: of :func:`prepare_segmentor`; a batch must become images of the shape that it takes.

    Returns:
        batch of mmseg's data loader -> its data samples, with ``seg_logits`` and ``pred_sem_seg``.
    """
    twin = copy.copy(model)
    twin.encode_decode = lambda images, metas: run(images)

    def step(batch: dict[str, Any]) -> list[Any]:
        data = model.data_preprocessor(batch, False)
        with torch.no_grad():
            samples: list[Any] = twin.predict(data["inputs"], data["data_samples"])
        return samples

    return step


def require_encoder_decoder(model: nn.Module) -> None:
    """Refuse segmentors that compute something else than a backbone, a neck and one head.

    Raises:
        UserError: it is another kind.
    """
    from mmseg.models import EncoderDecoder

    if type(model) is not EncoderDecoder:
        raise UserError(
            f"A {type(model).__name__} cannot be executed as a whole outside eager PyTorch.",
            "Use --scope backbone, or an EncoderDecoder of mmseg.",
        )


def crop_size(model: Any, size: Sequence[int]) -> tuple[int, int]:
    """Height and width of what the network is given of an image: a crop, where it slides."""
    height, width = size
    if model.test_cfg.get("mode", "whole") != "slide":
        return int(height), int(width)
    crop_height, crop_width = model.test_cfg.crop_size
    return min(crop_height, int(height)), min(crop_width, int(width))
