"""Blocks in the form that graph runtimes execute best; they compute the same.

Where PyTorch takes one product for queries, keys and values and looks at parts of its result, a
runtime copies each part. So here they are three products, the weights of the one cut in three and
the scale of the logits among them, which a runtime folds into constants. And a runtime writes rows
of a map by their index, where PyTorch's ``index_copy`` becomes an index for every number.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsevit.methods.windows.block import DecomposedPosition, WindowBlock
from sparsevit.methods.windows.forward import Route, attend, run_block
from sparsevit.ops.windows import Windows


def exported_route() -> Route:
    """For inference alone: all windows at once, as a runtime has its own ways with memory."""
    return Route(
        magnitudes=token_norms, block=partial(run_block, attention=attend_apart), put=put_rows
    )


def token_norms(x: Tensor) -> Tensor:
    """:func:`~sparsevit.methods.windows.forward.token_magnitudes` as one pass in other runtimes;
    PyTorch's own takes eight times as long on a CPU."""
    wide = torch.float32 if x.element_size() < 4 else x.dtype
    return torch.linalg.vector_norm(x, ord=1, dim=-1, dtype=wide) / x.shape[-1]


def put_rows(x_RC: Tensor, rows: Tensor, t_RC: Tensor) -> Tensor:
    """The map with the tokens in these rows; the map itself is left as it is."""
    return x_RC.index_put((rows,), t_RC)


def attend_apart(block: WindowBlock, y_MNC: Tensor, windows: Windows) -> Tensor:
    """What :func:`~sparsevit.methods.windows.forward.attend` computes, of three products."""
    qkv, position, scale = block.qkv, block.position, block.scale
    if position is None or isinstance(position, DecomposedPosition) or block.cosine is not None:
        return attend(block, y_MNC, windows)
    if isinstance(qkv, tuple) or block.qkv_bias is not None:
        return attend(block, y_MNC, windows)
    C = qkv.out_features // 3
    q = _project(y_MNC, qkv, slice(0, C), scale)
    k = _project(y_MNC, qkv, slice(C, 2 * C))
    v = _project(y_MNC, qkv, slice(2 * C, 3 * C))
    bias_1HNN = position().unsqueeze(0)
    if windows.edge_masks_ENN is None:
        return attention_of_products(q, k, v, bias_1HNN, block.heads)
    masks_EHNN = bias_1HNN + windows.edge_masks_ENN.unsqueeze(1)
    inner = len(q) - len(masks_EHNN)
    edges = attention_of_products(q[inner:], k[inner:], v[inner:], masks_EHNN, block.heads)
    if inner == 0:
        return edges
    rest = attention_of_products(q[:inner], k[:inner], v[:inner], bias_1HNN, block.heads)
    return torch.cat([rest, edges])


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
