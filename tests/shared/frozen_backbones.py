"""A small backbone, and its twin compiled with frozen weights. (Graphs are run eagerly here.)"""

from __future__ import annotations

import torch
from mmdet_backbones import small_swin

from sparsevit.models.compiled import compiled, compiled_pieces


def frozen(backbone):
    return compiled(backbone, compiled_pieces(frozen=True, backend="eager"))


def two_stages(**kwargs):
    torch.manual_seed(0)
    return small_swin(
        "SparseViT", depths=[2, 2], num_heads=[1, 2], strides=[4, 2], out_indices=[0, 1], **kwargs
    )
