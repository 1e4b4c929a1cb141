"""Attention inside windows, for any list of windows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sparsevit.ops.tracing import exporting


def window_attention(
    qkv_MNC: Tensor,
    bias_HNN: Tensor,
    num_heads: int,
    scale: float | None = None,
    edge_masks_ENN: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Multi-head self-attention within each of M windows of N tokens.

    Args:
        qkv_MNC: (M, N, 3 * C) queries, keys and values side by side.
        bias_HNN: (heads, N, N) relative position bias, the same for every window.
        num_heads: number of heads, dividing C.
        scale: factor on the logits; ``(C / heads) ** -0.5`` where None.
        edge_masks_ENN: (E, N, N) masks added to the logits of the **last** E windows. The others
            share ``bias_HNN`` as it is, so no mask is ever spelled out for a window without one.
        dropout: probability of dropping an attention weight.

    Returns:
        (M, N, C).
    """
    M, N, C3 = qkv_MNC.shape
    head_dim = C3 // 3 // num_heads
    q, k, v = qkv_MNC.view(M, N, 3, num_heads, head_dim).permute(2, 0, 3, 1, 4).unbind(0)
    bias_1HNN = bias_HNN.to(q.dtype).unsqueeze(0)
    if edge_masks_ENN is None:
        return _merge(_attend(q, k, v, bias_1HNN, scale, dropout))
    E = edge_masks_ENN.shape[0]
    inner = M - E
    masks_EHNN = bias_1HNN + edge_masks_ENN.to(q.dtype).unsqueeze(1)
    edges = _merge(_attend(q[inner:], k[inner:], v[inner:], masks_EHNN, scale, dropout))
    if inner == 0:
        return edges
    rest = _merge(_attend(q[:inner], k[:inner], v[:inner], bias_1HNN, scale, dropout))
    return torch.cat([rest, edges])


def _attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float | None, dropout: float
) -> Tensor:
    # expanded rather than broadcast: the fused CPU kernel reads a stride of 0, but copies a
    # mask whose batch it has to widen itself
    mask = mask.expand(q.shape[0], -1, -1, -1)
    return F.scaled_dot_product_attention(q, k, v, mask, dropout_p=dropout, scale=scale)


def _merge(x_MHNd: Tensor) -> Tensor:
    x_MNHd = x_MHNd.transpose(1, 2)
    if exporting():
        # a graph keeps the strides it was recorded with, and those of the fused attention are not
        # those of the products that other runtimes make of it
        x_MNHd = x_MNHd.clone(memory_format=torch.contiguous_format)
    return x_MNHd.flatten(2)
