"""A SparseViT in the form that graph runtimes execute best; it computes the same.

Where PyTorch takes one product for queries, keys and values and looks at parts of its result, a
runtime copies each part. So here they are three products, the weights of the one cut in three and
the scale of the logits among them, which a runtime folds into constants. And a runtime writes rows
of a map by their index, where PyTorch's ``index_copy`` becomes an index for every number.
"""

from __future__ import annotations

import copy
from functools import partial

import torch
import torch.nn.functional as F
from mmdet.models.backbones.swin import SwinBlock, WindowMSA
from torch import Tensor, nn

from sparsevit.models.sparsevit import Pieces, SparseViT
from sparsevit.models.window_block import Windows, relative_position_bias, run_block


def exported(backbone: SparseViT) -> SparseViT:
    """The backbone in the form to export, for inference alone.

    Args:
        backbone: is left as it is; parameters and submodules are shared, ratios are not.
    """
    twin = copy.copy(backbone)
    twin.pieces = Pieces(
        on_map=gathered, block=partial(run_block, attention=attend_apart), split=whole, put=put_rows
    )
    return twin


def gathered(block: SwinBlock, x_RC: Tensor) -> None:
    """No block runs on the map itself."""


def whole(windows: Windows, block: SwinBlock) -> list[Windows]:
    """All windows at once: a runtime has its own ways with memory."""
    return [windows]


def put_rows(x_RC: Tensor, rows: Tensor, t_RC: Tensor) -> Tensor:
    """The map with the tokens in these rows; the map itself is left as it is."""
    return x_RC.index_put((rows,), t_RC)


def attend_apart(attn: WindowMSA, y_MNC: Tensor, windows: Windows) -> Tensor:
    """What :func:`sparsevit.models.window_block.attend` computes, of three products."""
    heads, C = attn.num_heads, y_MNC.shape[-1]
    q = _project(y_MNC, attn.qkv, slice(0, C), attn.scale)
    k = _project(y_MNC, attn.qkv, slice(C, 2 * C))
    v = _project(y_MNC, attn.qkv, slice(2 * C, 3 * C))
    bias_1HNN = relative_position_bias(attn).unsqueeze(0)
    if windows.edge_masks_ENN is None:
        return attn.proj(attention_of_products(q, k, v, bias_1HNN, heads))
    masks_EHNN = bias_1HNN + windows.edge_masks_ENN.unsqueeze(1)
    inner = len(q) - len(masks_EHNN)
    edges = attention_of_products(q[inner:], k[inner:], v[inner:], masks_EHNN, heads)
    if inner == 0:
        return attn.proj(edges)
    rest = attention_of_products(q[:inner], k[:inner], v[:inner], bias_1HNN, heads)
    return attn.proj(torch.cat([rest, edges]))


def _project(y_MNC: Tensor, linear: nn.Linear, outputs: slice, scale: float = 1.0) -> Tensor:
    bias = linear.bias
    return F.linear(
        y_MNC, linear.weight[outputs] * scale, None if bias is None else bias[outputs] * scale
    )


def attention_of_products(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, heads: int) -> Tensor:
    """Attention spelled out, which OpenVINO recognises and fuses.

    The logits are products of lists of matrices: with windows and heads as two dimensions, runtimes
    turn the keys in a pass of its own.

    Args:
        q, k, v: (M, N, C) queries, already scaled, keys and values.
        mask: (1 or M, heads, N, N) what to add to the logits.
        heads: their number.

    Returns:
        (M, N, C).
    """
    q, k, v = (one.unflatten(-1, (heads, -1)).transpose(1, 2) for one in (q, k, v))
    logits = q.flatten(0, 1) @ k.flatten(0, 1).transpose(-1, -2)
    weights = (logits.unflatten(0, (-1, heads)) + mask).softmax(-1)
    return (weights @ v).transpose(1, 2).flatten(2)
