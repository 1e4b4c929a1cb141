"""One Swin block on the map itself, by Triton kernels: what ``run_block`` does on a gathered list.

Nothing is gathered: the norms' inputs are read by index inside the products that follow them, and
both residuals are added to the map's rows. A map of 16 bits with few channels takes five launches,
any other seven.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sparsevit.models.known_parts import of_known_parts
from sparsevit.ops import window_kernels

if TYPE_CHECKING:
    from sparsevit.models.window_block import Windows

# Up to here a window's attention, projection and residual are one program; with more channels, a
# program for each head and a product of its own fill a GPU better.
FUSED_CHANNELS = 128


def window_block_kernels_usable(block: Any, x_RC: Tensor) -> bool:
    """Whether the kernels compute what this block does on this map (rows, C).

    They do in inference on CUDA (see :func:`sparsevit.ops.window_kernels.usable`), with mmdet's
    LayerNorm and GELU, heads of 16, 32 or 64 channels, windows of at most 8 x 8, and parameters of
    the map's dtype. Anything else is PyTorch's.
    """
    return window_kernels.usable(x_RC) and not block.training and fits(block, x_RC.dtype)


def fits(block: Any, dtype: torch.dtype) -> bool:
    """Whether a block consists of what the kernels know."""
    attn = block.attn.w_msa
    C = attn.qkv.in_features
    return (
        C % 16 == 0
        and C // attn.num_heads in window_kernels.HEAD_DIMS
        and block.attn.window_size**2 <= window_kernels.MAX_TOKENS
        and of_known_parts(block, dtype)
    )


def projection_is_fused(C: int, dtype: torch.dtype) -> bool:
    """Whether attention goes on to the map itself: in float32 it would need more registers than
    there are."""
    return C <= FUSED_CHANNELS and dtype != torch.float32


@torch.no_grad()
def run_block_by_kernels(
    block: Any, x_RC: Tensor, windows: Windows, pad_before_norm: bool
) -> Tensor:
    """The block on the windows listed, in place.

    Args:
        block: mmdet's ``SwinBlock`` in evaluation, for which :func:`fits` holds.
        x_RC: (rows, C) map, contiguous; overwritten.
        windows: which rows.
        pad_before_norm: see :class:`~sparsevit.models.sparsevit.SparseViT`.

    Returns:
        ``x_RC``.
    """
    from sparsevit.ops.window_kernels import launch

    attn, ffn, rows, padding = block.attn.w_msa, block.ffn, windows.row_MN, windows.is_padding_MN1
    qkv_MNC = launch.gather_norm_linear(
        x_RC, rows, block.norm1, attn.qkv, padding, pad_before_norm=pad_before_norm
    )
    table, window, shift = (
        attn.relative_position_bias_table,
        block.attn.window_size,
        block.attn.shift_size,
    )
    how = (table, attn.scale, window, shift, windows.edge_kind_M)
    if projection_is_fused(x_RC.shape[1], x_RC.dtype):
        launch.window_attention_to_map(x_RC, rows, qkv_MNC, attn.proj, *how, padding)
    else:
        y_MNC = F.linear(launch.window_attention(qkv_MNC, *how), attn.proj.weight, attn.proj.bias)
        launch.add_rows(x_RC, rows, y_MNC, padding)

    grown, shrink = ffn.layers[0][0], ffn.layers[1]
    y_MNC = launch.gather_norm_linear(x_RC, rows, block.norm2, grown, padding, gelu=True)
    y_MNC = ffn.gamma2(F.linear(y_MNC, shrink.weight, shrink.bias))
    return launch.add_rows(x_RC, rows, y_MNC, padding)
