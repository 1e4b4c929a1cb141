"""What stands between the blocks of OpenMMLab's Swin: patch embedding, patch merging, output maps.

They compute what the modules of mmdet, and of mmcv, do, in parts that stay in a core's cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from sparsevit.ops.parts import by_rows, goes_in_parts
from sparsevit.ops.tracing import exporting
from sparsevit.ops.windows import pair

if TYPE_CHECKING:
    from mmdet.models.layers import PatchEmbed, PatchMerging

CACHED_BYTES = 2**20
"""A part of which what is made is still in a core's cache when it is read again at once."""


def embed_patches(embedding: PatchEmbed, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """What mmdet's patch embedding computes: (B, 3, H, W) -> (B, patches, C), and their grid.

    In inference on the CPU in parts of whole rows of patches, so that the map is all that it takes
    in memory: convolved, turned and normalised at once it would be there three times.
    """
    if not goes_in_parts(images) or not embeds_whole_patches(embedding):
        return embedding(images)
    projection, norm = embedding.projection, embedding.norm
    side = projection.kernel_size[0]
    height, width = images.shape[-2:]
    if height % side or width % side:
        images = F.pad(images, (0, -width % side, 0, -height % side))

    def embedded(rows: Tensor) -> Tensor:
        tokens = projection(rows).flatten(2).transpose(1, 2)
        return tokens if norm is None else norm(tokens)

    rows = images.unflatten(2, (-1, side)).transpose(1, 2).flatten(0, 1)
    x_BLC = by_rows(embedded, rows, CACHED_BYTES)
    down, over = len(rows) // len(images), x_BLC.shape[1]
    return x_BLC.view(len(images), down * over, -1), (down, over)


def embeds_whole_patches(embedding: PatchEmbed) -> bool:
    """Whether patches are squares side by side, padded at the end, and normalised one by one."""
    projection, norm = embedding.projection, embedding.norm
    side = projection.kernel_size[0]
    return (
        isinstance(projection, nn.Conv2d)
        and {projection.kernel_size, projection.stride} == {(side, side)}
        and (projection.padding, projection.dilation) == ((0, 0), (1, 1))
        and _pads_at_the_end(embedding)
        and (norm is None or isinstance(norm, nn.LayerNorm))
    )


def merge_patches(
    merging: PatchMerging, x_BLC: Tensor, hw: tuple[int, int]
) -> tuple[Tensor, tuple[int, int]]:
    """What mmdet's patch merging computes, (B, H * W, C) -> (B, H * W / 4, 2 * C).

    mmdet's gathers the four tokens of a patch channel by channel (``nn.Unfold``). Here they are
    laid side by side whole, and the parameters are reordered instead: they are smaller.
    """
    if not merges_by_two(merging):
        return merging(x_BLC, hw)
    B, _, C = x_BLC.shape
    H, W = hw[0] + hw[0] % 2, hw[1] + hw[1] % 2
    if tuple(hw) != (H, W):
        x_BLC = F.pad(x_BLC.view(B, *hw, C), (0, 0, 0, W - hw[1], 0, H - hw[0]))
    norm_weight, norm_bias, epsilon, weight, bias = merging_by_token(merging)

    def merged(pairs: Tensor) -> Tensor:
        patches = pairs.transpose(1, 2).flatten(2)
        patches = F.layer_norm(patches, (4 * C,), norm_weight, norm_bias, epsilon)
        return F.linear(patches, weight, bias)

    out = by_rows(merged, x_BLC.reshape(B * H // 2, 2, W // 2, 2 * C), CACHED_BYTES)
    return out.view(B, H * W // 4, -1), (H // 2, W // 2)


def merges_by_two(merging: PatchMerging) -> bool:
    """Whether a patch is two by two tokens, padded at the end, and normalised: as in Swin."""
    sampler = merging.sampler
    halves = {pair(sampler.kernel_size), pair(sampler.stride)} == {(2, 2)}
    return halves and _pads_at_the_end(merging) and merging.norm is not None


def _pads_at_the_end(module: nn.Module) -> bool:
    """Whether a map is padded below and to the right; mmcv and mmdet name that part differently."""
    found = getattr(module, "adap_padding", None) or getattr(module, "adaptive_padding", None)
    return getattr(found, "padding", None) == "corner"


def merging_by_token(merging: PatchMerging) -> tuple[Tensor, Tensor, float, Tensor, Tensor | None]:
    """Parameters of a merging for patches whose tokens lie side by side.

    Returns:
        Weight, bias and epsilon of the norm, weight and bias of the reduction.
    """
    norm, reduction = merging.norm, merging.reduction
    C = norm.weight.shape[0] // 4
    return (
        _by_token(norm.weight, C),
        _by_token(norm.bias, C),
        norm.eps,
        _by_token(reduction.weight, C),
        reduction.bias,
    )


def _by_token(parameter: Tensor, C: int) -> Tensor:
    """(..., C * 4) by channel and then token of the patch -> (..., 4 * C), by token first."""
    return parameter.unflatten(-1, (C, 4)).transpose(-1, -2).flatten(-2)


def feature_map(norm: nn.Module, x_BLC: Tensor, hw: tuple[int, int]) -> Tensor:
    """What a stage gives out, (B, H * W, C) -> (B, C, H, W)."""
    B, _, C = x_BLC.shape
    if x_BLC.device.type != "cpu" or exporting():
        return norm(x_BLC).view(B, *hw, C).permute(0, 3, 1, 2).contiguous()
    # a row at a time, which stays in the cache, and then whole rows: PyTorch's copy in one step
    # jumps through the map at each number and takes up to five times as long
    x_BHWC = x_BLC.reshape(B, *hw, C)
    if not goes_in_parts(x_BLC):
        return norm(x_BHWC).transpose(2, 3).contiguous().transpose(1, 2).contiguous()
    # and some rows after the other, so that the map is in memory once
    out = x_BLC.new_empty(B, C, *hw)
    most = max(1, CACHED_BYTES // (hw[1] * C * x_BLC.itemsize))
    for image_HWC, out_CHW in zip(x_BHWC, out, strict=True):
        for part, to in zip(image_HWC.split(most), out_CHW.split(most, dim=1), strict=True):
            to.copy_(norm(part).transpose(1, 2).contiguous().transpose(0, 1))
    return out
