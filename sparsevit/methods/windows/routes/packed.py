"""One Swin block on gathered windows, its weights laid out beforehand: inference on the CPU.

GELU and the residuals are added while the products are written, where one dtype serves both.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparsevit.methods.windows.block import PositionTable, WindowBlock
from sparsevit.methods.windows.forward import attention_input
from sparsevit.methods.windows.routes.known_parts import (
    ffn_scale,
    infers_on_cpu,
    linears,
    of_known_parts,
)
from sparsevit.ops import inference_ops
from sparsevit.ops.windows import Windows


def packable(block: WindowBlock, t_MNC: Tensor, dtype: torch.dtype) -> bool:
    """Whether :func:`run_packed_block` computes what this block does with these tokens.

    It does in inference on the CPU, with Swin's own parts, float32 parameters, and products in
    bfloat16 where oneDNN has them here; in float32, native code of ours is faster.
    """
    return (
        infers_on_cpu(block.module, t_MNC)
        and dtype == torch.bfloat16
        and t_MNC.dtype in (torch.float32, dtype)
        and inference_ops.usable(dtype)
        and of_known_parts(block, torch.float32)
    )


def run_packed_block(
    block: WindowBlock, t_MNC: Tensor, windows: Windows, dtype: torch.dtype
) -> Tensor:
    """What :func:`~sparsevit.methods.windows.forward.run_block` computes, where :func:`packable`.

    Args:
        block: in evaluation.
        t_MNC: (M, N, C) tokens of the windows.
        windows: where they come from.
        dtype: of the products; tokens keep theirs.

    Returns:
        (M, N, C), the new tokens of the same windows.
    """
    assert isinstance(block.position, PositionTable)
    qkv, proj, grow, shrink = linears(block)
    t_MNC, y_MNC = attention_input(block, t_MNC, windows)
    y_MNC = inference_ops.whole_window_attention(
        _product(qkv, y_MNC.to(dtype)),
        block.position(),
        block.heads,
        block.scale,
        windows.edge_masks_ENN,
    )
    t_MNC = _added(proj, y_MNC, t_MNC)
    y_MNC = _product(grow, block.norm2(t_MNC).to(dtype), gelu=True)
    scale = ffn_scale(block)
    if scale is None:
        return _added(shrink, y_MNC, t_MNC)
    return t_MNC + scale(_product(shrink, y_MNC))


def _product(linear: nn.Linear, x: Tensor, gelu: bool = False) -> Tensor:
    return inference_ops.packed_linear(x, linear.weight, linear.bias, gelu)


def _added(linear: nn.Linear, x: Tensor, t: Tensor) -> Tensor:
    if x.dtype == t.dtype:
        return inference_ops.packed_linear_add(x, linear.weight, linear.bias, t)
    return t + _product(linear, x)
