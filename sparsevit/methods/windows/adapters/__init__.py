"""Which blocks of which libraries are supported, and where their adapters are.

An adapter is a subclass of a library's block that is also a
:class:`~sparsevit.methods.windows.sparsify.SparseBlock`; a block is made sparse by becoming one. It
is imported when a model has such a block, and so its library is there.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from sparsevit.methods.windows.sparsify import SparseBlock

FAMILIES = {
    "mmdet.models.backbones.swin.SwinBlock": "mmdet.SparseSwinBlock",
    "mmseg.models.backbones.swin.SwinBlock": "mmseg.SparseSwinBlock",
    "mmpretrain.models.backbones.swin_transformer.SwinBlock": "mmpretrain.SparseSwinBlock",
    "timm.models.swin_transformer.SwinTransformerBlock": "timm.SparseSwinTransformerBlock",
    "timm.models.swin_transformer_v2.SwinTransformerV2Block": "timm.SparseSwinTransformerV2Block",
    "torchvision.models.swin_transformer.SwinTransformerBlock": (
        "torchvision.SparseSwinTransformerBlock"
    ),
    "torchvision.models.swin_transformer.SwinTransformerBlockV2": (
        "torchvision.SparseSwinTransformerBlockV2"
    ),
    "transformers.models.swin.modeling_swin.SwinLayer": "huggingface_swin.SparseSwinLayer",
    "transformers.models.swinv2.modeling_swinv2.Swinv2Layer": (
        "huggingface_swinv2.SparseSwinv2Layer"
    ),
    "transformers.models.maskformer.modeling_maskformer_swin.MaskFormerSwinLayer": (
        "huggingface_maskformer.SparseMaskFormerSwinLayer"
    ),
    "transformers.models.donut.modeling_donut_swin.DonutSwinLayer": (
        "huggingface_donut.SparseDonutSwinLayer"
    ),
    "transformers.models.vitdet.modeling_vitdet.VitDetLayer": (
        "huggingface_vitdet.SparseVitDetLayer"
    ),
    "transformers.models.sam.modeling_sam.SamVisionLayer": "huggingface_sam.SparseSamVisionLayer",
}
"""Class of a library's block -> its adapter, from this folder."""

LIBRARIES = {
    "mmdet": "Swin of mmdetection",
    "mmseg": "Swin of mmsegmentation",
    "mmpretrain": "Swin of mmpretrain",
    "timm": "swin_* and swinv2_* of timm, but not swinv2_cr_*",
    "torchvision": "swin_* and swin_v2_* of torchvision",
    "transformers": (
        "Swin, Swin V2, MaskFormer, Mask2Former, OneFormer, UPerNet, Grounding DINO, Donut, ViTDet "
        "and SAM of Hugging Face transformers"
    ),
}
"""Where such blocks are found, for people."""


def adapter_of(module: nn.Module) -> type[SparseBlock] | None:
    """The adapter of a block with window attention; None of any other module.

    A subclass of a known block is not known: it may compute something else.
    """
    kind = type(module)
    path = FAMILIES.get(f"{kind.__module__}.{kind.__qualname__}")
    if path is None:
        return None
    file, _, name = path.partition(".")
    adapter: type[SparseBlock] = getattr(importlib.import_module(f"{__name__}.{file}"), name)
    return adapter if adapter.has_windows(module) else None
