"""One Swin block on a list of windows, and the patch merging between two stages.

The parameters are those of mmdet's modules.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from mmdet.models.backbones.swin import SwinBlock, WindowMSA
from torch import Tensor, nn

from sparsevit.ops.attention import window_attention
from sparsevit.ops.parts import by_rows, goes_in_parts
from sparsevit.ops.tracing import exporting, own_tensors
from sparsevit.ops.windows import WindowLayout

if TYPE_CHECKING:
    from mmdet.models.layers import PatchEmbed, PatchMerging

PART_BYTES = 16 * 2**20
"""See :func:`in_parts`. glibc maps anything above 32 MiB anew each time it is asked for."""
CACHED_BYTES = 2**20
"""A part of which what is made is still in a core's cache when it is read again at once: in
embedding and merging patches, and in giving out maps."""


@dataclass(frozen=True, eq=False)
class Windows:
    """A list of M windows of N tokens, as positions in the flattened map of a batch.

    Attributes:
        row_MN: (M, N) int64, the row of each token in the (B * rows-an-image, C) map.
        image_M: (M,) int64, the image each window lies in.
        is_padding_MN1: (M, N, 1) bool, or None where no window has padding.
        edge_masks_ENN: (E, N, N) masks of the last E windows, or None in the plain partition, and
            for kernels, which need none.
        edge_kind_M: (M,) int64, which mask each window needs (see :class:`WindowLayout`), or None
            in the plain partition.
        place_R: (R,) int64, for each row of the map the place of its token in the list, where
            these are all windows of a map; None for a choice of them.
    """

    row_MN: Tensor
    image_M: Tensor
    is_padding_MN1: Tensor | None
    edge_masks_ENN: Tensor | None
    edge_kind_M: Tensor | None = None
    place_R: Tensor | None = None


@lru_cache(maxsize=64)
def all_windows(layout: WindowLayout, batch: int) -> Windows:
    """Every window of each of ``batch`` images, as :func:`locate` gives them; kept for reuse."""
    with own_tensors():
        device = layout.token_index_WN.device
        windows = locate(layout, torch.arange(layout.num_windows, device=device).repeat(batch, 1))
        rows = windows.row_MN.flatten()
        place_R = rows.new_zeros(batch * layout.rows)
        # padding shares one row: any place of it will do, as no padding is ever read as a token
        place_R[rows] = torch.arange(len(rows), device=device)
        return replace(windows, place_R=place_R)


def locate(layout: WindowLayout, kept_BK: Tensor) -> Windows:
    """Where the tokens of the kept windows are, those windows last that may need a mask.

    Args:
        layout: the partition.
        kept_BK: (B, K) int64 kept windows of each image.
    """
    B, K = kept_BK.shape
    window_M, image_M = listed(kept_BK)
    if layout.edge_kind_W is None or layout.region_masks_KNN is None:
        return placed(layout, B, window_M, image_M)
    # no more of the kept windows than this can be edge windows, so where to split is known
    # without asking the device how many are
    E = min(B * K, B * layout.num_edges)
    kind_M = _edge_kinds(layout.edge_kind_W, window_M)
    if B * K > 1:
        order = _edges_last(kind_M)
        window_M, image_M, kind_M = window_M[order], image_M[order], kind_M[order]
    masks_ENN = layout.region_masks_KNN[kind_M[-E:]]
    return placed(layout, B, window_M, image_M, kind_M, masks_ENN)


def _edges_last(kind_M: Tensor) -> Tensor:
    """The order that puts windows that need a mask last and else leaves them as they are."""
    at_edge_M = kind_M.gt(0)
    if not exporting():
        return at_edge_M.byte().sort(stable=True).indices
    # keys that all differ: a stable order from any sort, as exported graphs have no stable one
    M = len(kind_M)
    return (torch.arange(M, device=kind_M.device) + M * at_edge_M).argsort()


def listed(kept_BK: Tensor) -> tuple[Tensor, Tensor]:
    """(B, K) kept windows of each image -> (M,) windows and (M,) the image of each."""
    B, K = kept_BK.shape
    if B == 1:
        return kept_BK.flatten(), kept_BK.new_zeros(K)
    return kept_BK.flatten(), torch.arange(B, device=kept_BK.device).repeat_interleave(K)


def placed(
    layout: WindowLayout,
    batch: int,
    window_M: Tensor,
    image_M: Tensor,
    kind_M: Tensor | None = None,
    masks_ENN: Tensor | None = None,
) -> Windows:
    """Where the tokens of these windows of these images are; kernels need no order among them."""
    padding_MN1 = None
    if kind_M is None and layout.edge_kind_W is not None:
        kind_M = _edge_kinds(layout.edge_kind_W, window_M)
    if layout.is_padding_WN is not None:
        padding_MN1 = layout.is_padding_WN[window_M].unsqueeze(-1)
    row_MN = layout.token_index_WN[window_M]
    if batch > 1:
        row_MN = row_MN + image_M.unsqueeze(-1) * layout.rows
    return Windows(row_MN, image_M, padding_MN1, masks_ENN, kind_M)


def _edge_kinds(edge_kind_W: Tensor, window_M: Tensor) -> Tensor:
    if len(window_M) == 1:
        # PyTorch 2.13 traces a constant of one element out of a constant table to memory that
        # nobody wrote (FakeTensor's new_empty of a constant), so two of them are looked up
        return edge_kind_W[window_M.expand(2)][:1]
    return edge_kind_W[window_M]


def in_parts(windows: Windows, block: SwinBlock) -> list[Windows]:
    """The list in parts that a block works on one after the other, where that is for the better.

    In inference on the CPU a part is so long that what the FFN makes of it stays within
    ``PART_BYTES``: larger memory is taken from the system and given back at every call, and each of
    its pages costs. Windows that may need a mask come in parts of their own. On other devices, and
    where gradients are wanted, everything is one part.
    """
    rows = windows.row_MN
    if torch.is_grad_enabled() or block.training or rows.device.type != "cpu":
        return [windows]
    M, N = rows.shape
    dtype = product_dtype(block.norm2.weight)
    hidden = block.ffn.layers[0][0].out_features * N * dtype.itemsize
    most = max(1, PART_BYTES // hidden)
    if most >= M:
        return [windows]
    edges = 0 if windows.edge_masks_ENN is None else len(windows.edge_masks_ENN)
    return [
        _part(windows, start, stop)
        for first, last in ((0, M - edges), (M - edges, M))
        for start, stop in _even_cuts(first, last, most)
    ]


def product_dtype(x: Tensor) -> torch.dtype:
    """What a product of this tensor is computed in: autocast's dtype, or its own."""
    device = x.device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return x.dtype


def _even_cuts(first: int, last: int, most: int) -> list[tuple[int, int]]:
    count = math.ceil((last - first) / most)
    cuts = [first + (last - first) * i // max(count, 1) for i in range(count + 1)]
    return list(itertools.pairwise(cuts))


def _part(windows: Windows, start: int, stop: int) -> Windows:
    masks_ENN, padding_MN1 = windows.edge_masks_ENN, windows.is_padding_MN1
    if masks_ENN is not None:
        inner = len(windows.row_MN) - len(masks_ENN)
        masks_ENN = None if start < inner else masks_ENN[start - inner : stop - inner]
    return Windows(
        row_MN=windows.row_MN[start:stop],
        image_M=windows.image_M[start:stop],
        is_padding_MN1=None if padding_MN1 is None else padding_MN1[start:stop],
        edge_masks_ENN=masks_ENN,
    )


def attend(attn: WindowMSA, y_MNC: Tensor, windows: Windows) -> Tensor:
    """Attention within each window, projections included: (M, N, C) -> (M, N, C)."""
    y_MNC = window_attention(
        attn.qkv(y_MNC),
        relative_position_bias(attn),
        attn.num_heads,
        attn.scale,
        windows.edge_masks_ENN,
        attn.attn_drop.p if attn.training else 0.0,
    )
    return attn.proj_drop(attn.proj(y_MNC))


def run_block(
    block: SwinBlock,
    t_MNC: Tensor,
    windows: Windows,
    batch: int,
    pad_before_norm: bool,
    attention: Callable[[WindowMSA, Tensor, Windows], Tensor] = attend,
) -> Tensor:
    """One Swin block on gathered windows: attention, then the FFN, each with its residual.

    Args:
        block: mmdet's block, whose parameters are used.
        t_MNC: (M, N, C) tokens of the windows.
        windows: where they come from.
        batch: images in the batch; stochastic depth drops a block for an image, not a window.
        pad_before_norm: see :class:`SparseViT`.
        attention: :func:`attend`, or another way to compute the same.

    Returns:
        (M, N, C), the new tokens of the same windows.
    """
    t_MNC, y_MNC = normalised(block, t_MNC, windows, pad_before_norm)
    y_MNC = attention(block.attn.w_msa, y_MNC, windows)
    t_MNC = t_MNC + drop_path(block.attn.drop, y_MNC, windows.image_M, batch)
    y_MNC = block.ffn.gamma2(block.ffn.layers(block.norm2(t_MNC)))
    return t_MNC + drop_path(block.ffn.dropout_layer, y_MNC, windows.image_M, batch)


def normalised(
    block: SwinBlock, t_MNC: Tensor, windows: Windows, pad_before_norm: bool
) -> tuple[Tensor, Tensor]:
    """The tokens, padding among them set to 0, and what the block's attention sees of them."""
    if windows.is_padding_MN1 is None:
        return t_MNC, block.norm1(t_MNC)
    t_MNC = t_MNC.masked_fill(windows.is_padding_MN1, 0)
    y_MNC = block.norm1(t_MNC)
    if not pad_before_norm:
        y_MNC = y_MNC.masked_fill(windows.is_padding_MN1, 0)
    return t_MNC, y_MNC


def relative_position_bias(attn: WindowMSA) -> Tensor:
    """(heads, N, N) bias of mmdet's ``WindowMSA``, looked up in its table."""
    N = attn.window_size[0] * attn.window_size[1]
    bias = attn.relative_position_bias_table[attn.relative_position_index.view(-1)]
    return bias.view(N, N, -1).permute(2, 0, 1).contiguous()


def drop_path(drop: nn.Module, y_MNC: Tensor, image_M: Tensor, batch: int) -> Tensor:
    """Stochastic depth by image on a list of windows: mmdet's own layer decides, on one number an
    image, so that it draws the same random numbers as in the dense model."""
    if not drop.training or getattr(drop, "drop_prob", 0.0) == 0.0:
        return y_MNC
    factor_B11 = drop(y_MNC.new_ones(batch, 1, 1))
    return y_MNC * factor_B11[image_M]


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
        and getattr(embedding.adap_padding, "padding", None) == "corner"
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
    halves = {_pair(sampler.kernel_size), _pair(sampler.stride)} == {(2, 2)}
    at_the_end = getattr(merging.adap_padding, "padding", None) == "corner"
    return halves and at_the_end and merging.norm is not None


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


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[-1])
