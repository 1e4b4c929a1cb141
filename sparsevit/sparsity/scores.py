"""How much a window matters: the L2 norm of its activation magnitudes (SparseViT, section 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsevit.ops.parts import by_rows
from sparsevit.ops.tracing import exporting

PART_BYTES = 2**20


def token_magnitudes(x_BLC: Tensor) -> Tensor:
    """Mean absolute activation of each token, (..., C) -> (...).

    Of a map of 16 bits it is in float32: rounded to 16 bits, windows would tie that do not.
    """
    wide = torch.float32 if x_BLC.element_size() < 4 else x_BLC.dtype
    if exporting():
        # one pass in other runtimes; PyTorch's own takes eight times as long on a CPU
        return torch.linalg.vector_norm(x_BLC, ord=1, dim=-1, dtype=wide) / x_BLC.shape[-1]
    # in parts, so that absolute values take no memory that the system has to provide anew
    tokens = x_BLC.flatten(0, -2)
    magnitudes = by_rows(lambda part: part.abs().mean(-1, dtype=wide), tokens, PART_BYTES)
    return magnitudes.view(x_BLC.shape[:-1])


def window_scores(magnitudes_BL: Tensor, token_index_WN: Tensor) -> Tensor:
    """L2 norm of the token magnitudes of each window.

    Args:
        magnitudes_BL: (B, L) magnitude of each token.
        token_index_WN: (W, N) tokens of each window; an index of L stands for padding, which
            weighs nothing.

    Returns:
        (B, W) scores.
    """
    padded = torch.nn.functional.pad(magnitudes_BL, (0, 1))
    tokens_BWN = padded.index_select(1, token_index_WN.flatten()).unflatten(1, token_index_WN.shape)
    return torch.linalg.vector_norm(tokens_BWN, dim=-1)
