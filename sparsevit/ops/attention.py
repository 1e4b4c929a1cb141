"""Attention inside windows, for any list of windows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sparsevit.ops.tracing import exporting


def heads_apart(x_MNC: Tensor, heads: int) -> Tensor:
    """(M, N, heads * d) -> (M, heads, N, d), without a copy."""
    return x_MNC.unflatten(-1, (heads, -1)).transpose(1, 2)


def window_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    position: Tensor | None,
    scale: float | None = None,
    edge_masks_ENN: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Multi-head self-attention within each of M windows of N tokens.

    Args:
        q, k, v: (M, heads, N, d) queries, keys and values.
        position: (heads, N, N) added to the logits of every window, or (M, heads, N, N), or None.
        scale: factor on the products of queries and keys; ``d ** -0.5`` where None.
        edge_masks_ENN: (E, N, N) masks added to the logits of the **last** E windows. The others
            share ``position`` as it is, so no mask is spelled out for a window without one.
        dropout: probability of dropping an attention weight.

    Returns:
        (M, N, heads * d).
    """
    mask = None if position is None else position.to(q.dtype)
    if mask is not None and mask.ndim == 3:
        mask = mask.unsqueeze(0)
    if edge_masks_ENN is None:
        return _merge(_attend(q, k, v, mask, scale, dropout))
    inner = len(q) - len(edge_masks_ENN)
    at_edges = edge_masks_ENN.to(q.dtype).unsqueeze(1)
    rest_mask = mask
    if mask is not None:
        own = len(mask) > 1
        at_edges = at_edges + (mask[inner:] if own else mask)
        rest_mask = mask[:inner] if own else mask
    edges = _merge(_attend(q[inner:], k[inner:], v[inner:], at_edges, scale, dropout))
    if inner == 0:
        return edges
    rest = _merge(_attend(q[:inner], k[:inner], v[:inner], rest_mask, scale, dropout))
    return torch.cat([rest, edges])


def _attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None, dropout: float
) -> Tensor:
    if mask is not None:
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
