"""Drawn pictures to compare models on: noise has nothing in it to be found."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsevit.data.scene import layout, paint
from sparsevit.data.spec import DatasetSpec


def pictures(model: Any, shape: tuple[int, ...], seed: int) -> Tensor:
    """Pictures with objects in them, normalised as the model has it.

    Args:
        model: with a ``data_preprocessor`` of OpenMMLab.
        shape: (B, 3, H, W).
        seed: others for each.
    """
    count, _, height, width = shape
    spec = DatasetSpec(train=1, val=max(1, count), width=width, height=height, seed=seed)
    drawn = [paint(spec, "val", index, layout(spec, "val", index)) for index in range(count)]
    pixels = torch.stack([torch.from_numpy(one) for one in drawn]).permute(0, 3, 1, 2).float()
    given = model.data_preprocessor
    if getattr(given, "_channel_conversion", False) or getattr(given, "to_rgb", False):
        pixels = pixels.flip(1)
    if not getattr(given, "_enable_normalize", False):
        return pixels
    return (pixels - given.mean.cpu()) / given.std.cpu()
