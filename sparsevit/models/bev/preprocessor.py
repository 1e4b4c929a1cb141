"""From a data loader's list of samples to one batch of normalised images and their cameras."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


@MODELS.register_module()
class BEVDataPreprocessor(BaseDataPreprocessor):
    """Stacks samples and normalises their images.

    Args:
        mean, std: of the channels (RGB, 0 to 255).
        non_blocking: whether copying to the device may overlap with other work.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        non_blocking: bool = False,
    ) -> None:
        super().__init__(non_blocking)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, data: Mapping[str, Any], training: bool = False) -> dict[str, Any]:
        """A batch as the model takes it.

        Args:
            data: ``inputs``: by sample, ``imgs`` (N, 3, H, W) from 0 to 255, and what else there is
                of its cameras; or all of it stacked. ``data_samples``: by sample, or none.
            training: makes no difference.

        Returns:
            ``inputs``: all stacked, on the device, float32, images normalised; ``data_samples``.
        """
        inputs = data["inputs"]
        if not isinstance(inputs, Mapping):
            inputs = {name: torch.stack([one[name] for one in inputs]) for name in inputs[0]}
        batch = self.cast_data({"inputs": inputs, "data_samples": data.get("data_samples")})
        inputs = {name: values.float() for name, values in batch["inputs"].items()}
        inputs["imgs"] = (inputs["imgs"] - self.mean) / self.std
        return {"inputs": inputs, "data_samples": batch["data_samples"]}
