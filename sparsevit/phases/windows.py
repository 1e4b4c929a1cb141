"""Which windows a model keeps on an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from torch import nn

from sparsevit.engine.evaluation import Evaluation
from sparsevit.models import SparseViT
from sparsevit.report.windows import draw_kept_windows


def picture_of_kept_windows(cfg: Config, model: Any, out: Path, index: int = 0) -> Path:
    """Draw the windows that the plain blocks of a detector keep on a validation image.

    Args:
        cfg: whose validation set is used.
        model: detector with a :class:`SparseViT` backbone, set to the sparsity to show.
        out: the PNG to write.
        index: which image of the validation set.
    """
    dataset = Evaluation(cfg).loader.dataset
    pixels = dataset[index]["inputs"]
    device = next(model.parameters()).device
    with torch.no_grad():
        prepared = model.data_preprocessor({"inputs": [pixels], "data_samples": None})
        kept = kept_windows(model.get_submodule("backbone"), prepared["inputs"].to(device))
    image = np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()[..., ::-1])
    grids = {name: grid for name, (grid, _) in kept.items()}
    return draw_kept_windows(image, grids, {name: px for name, (_, px) in kept.items()}, out)


def kept_windows(backbone: nn.Module, images: torch.Tensor) -> dict[str, tuple[np.ndarray, int]]:
    """What each knob keeps of the first image, in the plain partition.

    Args:
        backbone: a :class:`SparseViT`.
        images: (B, 3, H, W), normalised.

    Returns:
        knob name -> ((nH, nW) bool, True where kept; side of a window in pixels).
    """
    assert isinstance(backbone, SparseViT)
    with backbone.record_selections() as selections:
        backbone(images)
    names = iter(backbone.sparsity_space().names)
    found = {}
    for chosen in selections:
        if chosen.shift:
            continue
        rows, cols = chosen.grid
        kept = np.full(rows * cols, chosen.kept_BK is None)
        if chosen.kept_BK is not None:
            kept[chosen.kept_BK[0].cpu().numpy()] = True
        block = backbone.stages[chosen.stage].blocks[chosen.block]
        stride = backbone.patch_embed.projection.stride[0] * 2**chosen.stage
        found[f"backbone.{next(names)}"] = (
            kept.reshape(rows, cols),
            block.attn.window_size * stride,
        )
    return found
