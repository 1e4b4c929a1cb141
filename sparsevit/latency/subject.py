"""What is timed: the backbone or the whole detector, at an image size, batch and precision."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sparsevit.errors import UserError

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
SCOPES = ("backbone", "detector")
PAPER_BATCH = 4
PAPER_IMG_SIZE = (672, 672)


class Subject:
    """A model and an input for it, ready to be called again and again.

    Args:
        model: a detector (with a ``backbone``) in evaluation mode.
        scope: ``backbone``, as the paper times, or ``detector``: images in, boxes and masks out.
        batch_size: images a call; 4 in the paper.
        img_size: (height, width) in pixels.
        device: where to run; the model is moved there.
        precision: ``fp32``, or ``fp16`` or ``bf16`` under autocast.

    Raises:
        UserError: the scope, precision or size cannot be had.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        scope: str = "backbone",
        batch_size: int = PAPER_BATCH,
        img_size: tuple[int, int] = PAPER_IMG_SIZE,
        device: torch.device,
        precision: str = "fp32",
    ) -> None:
        if scope not in SCOPES:
            raise UserError(f"There is no scope {scope!r}.", f"Take one of {', '.join(SCOPES)}.")
        if precision not in PRECISIONS:
            names = ", ".join(PRECISIONS)
            raise UserError(f"There is no precision {precision!r}.", f"Take one of {names}.")
        if batch_size < 1 or min(img_size) < 32:
            raise UserError(
                f"A batch of {batch_size} images of {img_size[0]}x{img_size[1]} cannot be timed.",
                "Take at least one image of at least 32x32 pixels.",
            )
        self.model = model.to(device).eval()
        self.device = device
        self.dtype = PRECISIONS[precision]
        generator = torch.Generator().manual_seed(0)
        # random rather than zeros: with zeros every window scores the same, and hardware that
        # notices zeros runs faster than it does on images
        images = torch.randn(batch_size, 3, *img_size, generator=generator)
        self._call = self._backbone(images) if scope == "backbone" else self._detector(images)

    def __call__(self) -> Any:
        with torch.inference_mode(), self._autocast():
            return self._call()

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def _backbone(self, images: Tensor) -> Callable[[], Any]:
        backbone, images = self.model.get_submodule("backbone"), images.to(self.device)
        return lambda: backbone(images)

    def _detector(self, images: Tensor) -> Callable[[], Any]:
        from mmdet.structures import DetDataSample

        pixels = (images * 50 + 128).clamp(0, 255).to(torch.uint8)
        shape = tuple(images.shape[-2:])
        samples = []
        for index in range(len(images)):
            info = {"img_id": index, "img_shape": shape, "ori_shape": shape}
            samples.append(DetDataSample(metainfo={**info, "scale_factor": (1.0, 1.0)}))
        batch = {"inputs": list(pixels), "data_samples": samples}
        model: Any = self.model
        return lambda: model.test_step(batch)
