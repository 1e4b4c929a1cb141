"""One Swin block on the map itself, by Triton kernels: what ``run_block`` does on a gathered list.

Nothing is gathered: the norms' inputs are read by index inside the products that follow them, and
both residuals are added to the map's rows. A map of 16 bits with few channels takes five launches,
any other seven.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sparsevit.methods.windows.block import PositionTable, WindowBlock
from sparsevit.methods.windows.forward import RunOnMap
from sparsevit.methods.windows.routes.known_parts import ffn_scale, linears, norms, of_known_parts
from sparsevit.ops import window_kernels
from sparsevit.ops.windows import Windows

# Up to here a window's attention, projection and residual are one program; with more channels, a
# program for each head and a product of its own fill a GPU better.
FUSED_CHANNELS = 128


def kernels_on_map(block: WindowBlock, x_RC: Tensor) -> RunOnMap | None:
    """:func:`run_block_by_kernels`, where it computes what this block does on this map (rows, C).

    It does in inference on CUDA (see :func:`sparsevit.ops.window_kernels.usable`), with LayerNorm
    and GELU, heads of 16, 32 or 64 channels, square windows of at most 8 x 8, and parameters of the
    map's dtype. Anything else is PyTorch's.
    """
    usable = window_kernels.usable(x_RC) and not block.module.training and fits(block, x_RC.dtype)
    return run_block_by_kernels if usable else None


def fits(block: WindowBlock, dtype: torch.dtype) -> bool:
    """Whether a block consists of what the kernels know."""
    if not of_known_parts(block, dtype):
        return False
    C = linears(block)[0].in_features
    (h, w), (down, across) = block.window, block.shift
    return (
        C % 16 == 0
        and C // block.heads in window_kernels.HEAD_DIMS
        and h == w
        and down == across
        and h * w <= window_kernels.MAX_TOKENS
    )


def projection_is_fused(C: int, dtype: torch.dtype) -> bool:
    """Whether attention goes on to the map itself: in float32 it would need more registers than
    there are."""
    return C <= FUSED_CHANNELS and dtype != torch.float32


@torch.no_grad()
def run_block_by_kernels(block: WindowBlock, x_RC: Tensor, windows: Windows) -> Tensor:
    """The block on the windows listed, in place.

    Args:
        block: in evaluation, for which :func:`fits` holds.
        x_RC: (rows, C) map, contiguous; overwritten.
        windows: which rows.

    Returns:
        ``x_RC``.
    """
    from sparsevit.ops.window_kernels import launch

    assert isinstance(block.position, PositionTable)
    rows, padding = windows.row_MN, windows.is_padding_MN1
    (norm1, norm2), (qkv, proj, grow, shrink) = norms(block), linears(block)
    qkv_MNC = launch.gather_norm_linear(
        x_RC, rows, norm1, qkv, padding, pad_before_norm=block.pad_before_norm
    )
    table, window, shift = block.position.table, block.window[0], block.shift[0]
    how = (table, block.scale, window, shift, windows.edge_kind_M)
    if projection_is_fused(x_RC.shape[1], x_RC.dtype):
        launch.window_attention_to_map(x_RC, rows, qkv_MNC, proj, *how, padding)
    else:
        y_MNC = F.linear(launch.window_attention(qkv_MNC, *how), proj.weight, proj.bias)
        launch.add_rows(x_RC, rows, y_MNC, padding)

    y_MNC = launch.gather_norm_linear(x_RC, rows, norm2, grow, padding, gelu=True)
    y_MNC = F.linear(y_MNC, shrink.weight, shrink.bias)
    scale = ffn_scale(block)
    return launch.add_rows(x_RC, rows, y_MNC if scale is None else scale(y_MNC), padding)
