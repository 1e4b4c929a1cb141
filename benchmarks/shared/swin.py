"""The backbones that are timed, and the ratios they are timed at. Imports no mmdet by itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

SWIN_T: dict[str, Any] = {"embed_dims": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24]}
CONFIGURATIONS: dict[str, list[list[float]]] = {
    "dense": [[0.0] * 2, [0.0] * 2, [0.0] * 6, [0.0] * 2],
    "cfg1": [[0.3, 0.3], [0.0, 0.0], [0.1, 0.1, 0.2, 0.2, 0.2, 0.2], [0.0, 0.0]],
    "cfg2": [[0.6, 0.6], [0.0, 0.0], [0.2, 0.2, 0.4, 0.4, 0.5, 0.5], [0.0, 0.0]],
    "cfg3": [[0.7, 0.7], [0.0, 0.0], [0.2, 0.2, 0.4, 0.4, 0.5, 0.5], [0.0, 0.0]],
    "60%": [[0.6] * 2, [0.6] * 2, [0.6] * 6, [0.6] * 2],
}
"""The paper's three configurations (SparseViT, table 6), dense, and 60% everywhere."""


def backbones(**changes: Any) -> tuple[nn.Module, Any]:
    """mmdet's Swin-T and ours with the same weights, in evaluation mode.

    Args:
        **changes: arguments of both in place of Swin-T's.
    """
    from mmdet.registry import MODELS
    from mmengine.registry import DefaultScope

    import sparsevit.models  # noqa: F401

    with DefaultScope.overwrite_default_scope("mmdet"):
        swin = MODELS.build({"type": "SwinTransformer", **SWIN_T, **changes})
        sparse = MODELS.build({"type": "SparseViT", **SWIN_T, **changes})
    swin.init_weights()
    sparse.load_state_dict(swin.state_dict())
    swin.eval()
    sparse.eval()
    return swin, sparse


def random_images(batch_size: int, img_size: int, seed: int = 0) -> torch.Tensor:
    """(B, 3, H, W) of normal noise: zeros would score all windows alike, and run too fast."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch_size, 3, img_size, img_size, generator=generator)


def kept_share(ratios: list[list[float]]) -> float:
    """Mean over blocks of the share of windows that they keep.

    A block of Swin costs the same in every stage but for its attention, as channels double where
    tokens fall to a quarter: so this is the share of the blocks' work as well.
    """
    kept = [1 - ratio for stage in ratios for ratio in stage]
    return sum(kept) / len(kept)
