"""Small Swin backbones with lively weights, so that no term of the forward hides behind a zero."""

from __future__ import annotations

import torch
from mmdet.registry import MODELS
from mmengine.registry import DefaultScope

import sparsevit.models  # noqa: F401


def small_swin(kind, *, depths=(2, 2, 2, 2), **kwargs):
    described = {
        "type": kind,
        "embed_dims": 16,
        "depths": list(depths),
        "num_heads": [1, 2, 4, 8],
        **kwargs,
    }
    # a training elsewhere in this process may have left another scope behind
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = MODELS.build(described)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name and name.endswith("weight"):
                p.uniform_(0.5, 1.5)
            elif p.ndim == 1 or "bias_table" in name:
                p.normal_(0, 0.3)
            else:
                p.normal_(0, p[0].numel() ** -0.5)
    model.eval()
    return model


def make_pair(**kwargs):
    """The same weights in SparseViT and in mmdet's SwinTransformer."""
    torch.manual_seed(0)
    swin = small_swin("SwinTransformer", **kwargs)
    sparse = small_swin("SparseViT", **kwargs)
    sparse.load_state_dict(swin.state_dict(), strict=True)
    return sparse, swin
