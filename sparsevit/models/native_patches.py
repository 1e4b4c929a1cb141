"""mmdet's patch embedding, patch merging and output maps by native code: inference in float32 on a
CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sparsevit.methods.windows.routes.known_parts import is_plain, is_plain_linear, is_plain_norm
from sparsevit.methods.windows.routes.native import infers_natively, packed_once
from sparsevit.models.patches import embeds_whole_patches, merges_by_two, merging_by_token
from sparsevit.ops.native import swin

if TYPE_CHECKING:
    from mmdet.models.layers import PatchEmbed, PatchMerging


def embed_natively(embedding: PatchEmbed, images: Tensor) -> tuple[Tensor, tuple[int, int]] | None:
    """What mmdet's patch embedding computes; None where it is not for native code."""
    projection, norm = embedding.projection, embedding.norm
    if not (
        infers_natively(embedding, images)
        and embeds_whole_patches(embedding)
        and is_plain(projection, torch.float32)
        and projection.groups == 1
        and (norm is None or is_plain_norm(norm, torch.float32))
        and swin.usable()
    ):
        return None
    parts = [projection] if norm is None else [projection, norm]
    packed = packed_once(embedding, parts, lambda: swin.PackedEmbedding(projection, norm))
    return swin.embed(packed, images.contiguous())


def merge_patches_natively(
    merging: PatchMerging, x_BLC: Tensor, hw: tuple[int, int]
) -> tuple[Tensor, tuple[int, int]] | None:
    """What :func:`~sparsevit.models.patches.merge_patches` computes; None where it is not for
    native code."""
    if not (
        infers_natively(merging, x_BLC)
        and merges_by_two(merging)
        and is_plain_norm(merging.norm, torch.float32)
        and is_plain_linear(merging.reduction, torch.float32)
        and swin.usable()
    ):
        return None
    parts = [merging.norm, merging.reduction]
    packed = packed_once(merging, parts, lambda: swin.PackedMerging(*merging_by_token(merging)))
    out = swin.merge_patches(packed, x_BLC.contiguous().view(len(x_BLC), *hw, -1))
    return out.flatten(1, 2), (out.shape[1], out.shape[2])


def feature_map_natively(norm: Any, x_BLC: Tensor, hw: tuple[int, int]) -> Tensor | None:
    """What :func:`~sparsevit.models.patches.feature_map` computes; None where it is not for
    native code."""
    if not (infers_natively(norm, x_BLC) and is_plain_norm(norm, torch.float32) and swin.usable()):
        return None
    packed = packed_once(norm, [norm], lambda: swin.PackedNorm(norm))
    return swin.feature_map(packed, x_BLC.contiguous()).unflatten(-1, hw)
