"""mmdet's Swin by native code, part by part: inference in float32 on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from sparsevit.models.known_parts import (
    infers_on_cpu,
    is_plain,
    is_plain_linear,
    is_plain_norm,
    linears,
    of_known_parts,
)
from sparsevit.models.window_block import (
    embeds_whole_patches,
    merges_by_two,
    merging_by_token,
    product_dtype,
    relative_position_bias,
)
from sparsevit.ops.inference_ops import version
from sparsevit.ops.native import swin
from sparsevit.ops.windows import region_masks

if TYPE_CHECKING:
    from mmdet.models.backbones.swin import SwinBlock
    from mmdet.models.layers import PatchEmbed, PatchMerging

    from sparsevit.models.sparsevit import RunOnMap
    from sparsevit.models.window_block import Windows

Packed = TypeVar("Packed")

# module -> (its parameters and their versions, what was packed of them)
_packed: WeakKeyDictionary[nn.Module, tuple[Any, Any]] = WeakKeyDictionary()


def block_natively(block: SwinBlock, x_RC: Tensor) -> RunOnMap | None:
    """:func:`run_block_natively`, where it computes what this block does on this map (rows, C).

    It does in inference in float32 on the CPU, with mmdet's own parts, where there is a compiler
    for it (:func:`sparsevit.ops.native.swin.usable`).
    """
    computes = (
        _inference(block, x_RC)
        and isinstance(block.ffn.gamma2, nn.Identity)
        and of_known_parts(block, torch.float32)
        and swin.usable()
    )
    return run_block_natively if computes else None


def run_block_natively(
    block: SwinBlock, x_RC: Tensor, windows: Windows, pad_before_norm: bool
) -> Tensor:
    """The block on the windows listed, in place; they need no masks, but the kind of each.

    Args:
        block: for which :func:`block_natively` is this. Its parameters are packed at its first use,
            and again where PyTorch notes that they have changed.
        x_RC: (rows, C) map, contiguous; overwritten.
        windows: which rows.
        pad_before_norm: see :class:`~sparsevit.models.sparsevit.SparseViT`.

    Returns:
        ``x_RC``.
    """
    swin.run_block(
        _once(block, _block_parts(block), _pack_block),
        x_RC,
        windows.row_MN,
        windows.is_padding_MN1,
        windows.edge_kind_M,
        pad_before_norm,
    )
    return x_RC


def embed_natively(embedding: PatchEmbed, images: Tensor) -> tuple[Tensor, tuple[int, int]] | None:
    """What mmdet's patch embedding computes; None where it is not for native code."""
    projection, norm = embedding.projection, embedding.norm
    if not (
        _inference(embedding, images)
        and embeds_whole_patches(embedding)
        and is_plain(projection, torch.float32)
        and projection.groups == 1
        and (norm is None or is_plain_norm(norm, torch.float32))
        and swin.usable()
    ):
        return None
    parts = [projection] if norm is None else [projection, norm]
    packed = _once(embedding, parts, lambda _: swin.PackedEmbedding(projection, norm))
    return swin.embed(packed, images.contiguous())


def merge_patches_natively(
    merging: PatchMerging, x_BLC: Tensor, hw: tuple[int, int]
) -> tuple[Tensor, tuple[int, int]] | None:
    """What :func:`~sparsevit.models.window_block.merge_patches` computes; None where it is not for
    native code."""
    if not (
        _inference(merging, x_BLC)
        and merges_by_two(merging)
        and is_plain_norm(merging.norm, torch.float32)
        and is_plain_linear(merging.reduction, torch.float32)
        and swin.usable()
    ):
        return None
    parts = [merging.norm, merging.reduction]
    packed = _once(merging, parts, lambda _: swin.PackedMerging(*merging_by_token(merging)))
    out = swin.merge_patches(packed, x_BLC.contiguous().view(len(x_BLC), *hw, -1))
    return out.flatten(1, 2), (out.shape[1], out.shape[2])


def feature_map_natively(norm: nn.Module, x_BLC: Tensor, hw: tuple[int, int]) -> Tensor | None:
    """What :func:`~sparsevit.models.window_block.feature_map` computes; None where it is not for
    native code."""
    if not (_inference(norm, x_BLC) and is_plain_norm(norm, torch.float32) and swin.usable()):
        return None
    packed = _once(norm, [norm], swin.PackedNorm)
    return swin.feature_map(packed, x_BLC.contiguous()).unflatten(-1, hw)


def _inference(module: nn.Module, x: Tensor) -> bool:
    return (
        infers_on_cpu(module, x) and x.dtype == torch.float32 and product_dtype(x) == torch.float32
    )


def _once(module: Any, parts: list[Any], pack: Callable[[Any], Packed]) -> Packed:
    """What ``pack`` makes of a module, made anew where a parameter of one of its parts is another
    or has changed. (``module.parameters()`` would take longer than a small block.)"""
    state = [
        (p.data_ptr(), version(p))
        for part in parts
        for p in part._parameters.values()
        if p is not None
    ]
    known, packed = _packed.get(module, (None, None))
    if known != state:
        packed = pack(module)
        _packed[module] = (state, packed)
    return packed


def _block_parts(block: SwinBlock) -> list[Any]:
    return [block.attn.w_msa, block.norm1, block.norm2, *linears(block)]


def _pack_block(block: SwinBlock) -> swin.PackedBlock:
    attn, norm1, norm2, qkv, proj, grow, shrink = _block_parts(block)
    window, shift = block.attn.window_size, block.attn.shift_size
    return swin.PackedBlock(
        (norm1, norm2),
        (qkv, proj, grow, shrink),
        attn.num_heads,
        attn.scale,
        relative_position_bias(attn),
        region_masks(window, shift, torch.device("cpu")) if shift else None,
    )
