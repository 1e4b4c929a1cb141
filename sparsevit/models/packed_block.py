"""One Swin block on gathered windows, its weights laid out beforehand: inference on the CPU.

GELU and the residuals are added while the products are written, where one dtype serves both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sparsevit.models.known_parts import infers_on_cpu, of_known_parts
from sparsevit.models.window_block import normalised, relative_position_bias
from sparsevit.ops import inference_ops

if TYPE_CHECKING:
    from mmdet.models.backbones.swin import SwinBlock

    from sparsevit.models.window_block import Windows


def packable(block: SwinBlock, t_MNC: Tensor, dtype: torch.dtype) -> bool:
    """Whether :func:`run_packed_block` computes what this block does with these tokens.

    It does in inference on the CPU, with mmdet's own parts, float32 parameters, and products in a
    dtype that oneDNN has here.
    """
    return (
        infers_on_cpu(block, t_MNC)
        and t_MNC.dtype in (torch.float32, dtype)
        and inference_ops.usable(dtype)
        and of_known_parts(block, torch.float32)
    )


def run_packed_block(
    block: SwinBlock, t_MNC: Tensor, windows: Windows, pad_before_norm: bool, dtype: torch.dtype
) -> Tensor:
    """What :func:`~sparsevit.models.window_block.run_block` computes, where :func:`packable`.

    Args:
        block: mmdet's block, in evaluation.
        t_MNC: (M, N, C) tokens of the windows.
        windows: where they come from.
        pad_before_norm: see :class:`~sparsevit.models.sparsevit.SparseViT`.
        dtype: of the products; tokens keep theirs.

    Returns:
        (M, N, C), the new tokens of the same windows.
    """
    attn, ffn = block.attn.w_msa, block.ffn
    t_MNC, y_MNC = normalised(block, t_MNC, windows, pad_before_norm)
    y_MNC = inference_ops.whole_window_attention(
        _product(attn.qkv, y_MNC.to(dtype)),
        relative_position_bias(attn),
        attn.num_heads,
        attn.scale,
        windows.edge_masks_ENN,
    )
    t_MNC = _added(attn.proj, y_MNC, t_MNC)
    y_MNC = _product(ffn.layers[0][0], block.norm2(t_MNC).to(dtype), gelu=True)
    if isinstance(ffn.gamma2, nn.Identity):
        return _added(ffn.layers[1], y_MNC, t_MNC)
    return t_MNC + ffn.gamma2(_product(ffn.layers[1], y_MNC))


def _product(linear: nn.Linear, x: Tensor, gelu: bool = False) -> Tensor:
    return inference_ops.packed_linear(x, linear.weight, linear.bias, gelu)


def _added(linear: nn.Linear, x: Tensor, t: Tensor) -> Tensor:
    if x.dtype == t.dtype:
        return inference_ops.packed_linear_add(x, linear.weight, linear.bias, t)
    return t + _product(linear, x)
