"""A block of a window transformer as every route sees it, whatever library it comes from.

An adapter (:mod:`sparsevit.methods.windows.adapters`) looks at one library's block and says where
its parts are; nothing is copied, and parameters stay the library's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsevit.ops.windows import Pair

Modules = tuple[Callable[[Tensor], Tensor], ...]
"""Applied one after the other."""


PLAIN_LAYERS: set[type[nn.Module]] = {nn.Linear, nn.Conv2d}
"""Layers that compute what PyTorch's own do, to which an adapter adds its library's."""


@dataclass(frozen=True, eq=False)
class PositionTable:
    """Relative position bias from a table of learned numbers (Swin, section 3.2).

    Attributes:
        table: (offsets, heads).
        index: (N, N) or (N * N,) int64, the offset of each pair of tokens.
    """

    table: Tensor
    index: Tensor

    def __call__(self, q_MHNd: Tensor | None = None) -> Tensor:
        """(heads, N, N)."""
        N = int(self.index.numel() ** 0.5)
        bias = self.table[self.index.view(-1)]
        return bias.view(N, N, -1).permute(2, 0, 1).contiguous()


@dataclass(frozen=True, eq=False)
class ContinuousPosition:
    """Relative position bias that a small network computes (Swin V2, section 3.3).

    Attributes:
        network: from log-spaced offsets (..., 2) to (..., heads).
        offsets: (1, 2 * h - 1, 2 * w - 1, 2).
        index: as in :class:`PositionTable`.
    """

    network: nn.Module
    offsets: Tensor
    index: Tensor

    def __call__(self, q_MHNd: Tensor | None = None) -> Tensor:
        """(heads, N, N)."""
        table = self.network(self.offsets).flatten(0, -2)
        return 16 * PositionTable(table, self.index)().sigmoid()


@dataclass(frozen=True, eq=False)
class DecomposedPosition:
    """Relative positions by row and column, multiplied with the queries (MViTv2, as in ViTDet).

    Attributes:
        rows: (2 * h - 1, d), for offsets from -(h - 1) on.
        columns: (2 * w - 1, d).
        window: (h, w).
    """

    rows: Tensor
    columns: Tensor
    window: Pair

    def __call__(self, q_MHNd: Tensor | None = None) -> Tensor:
        """(M, heads, N, N) of unscaled queries (M, heads, N, d)."""
        assert q_MHNd is not None
        h, w = self.window
        q_MHhwd = q_MHNd.unflatten(2, (h, w))
        by_row = torch.einsum("mnhwd,hkd->mnhwk", q_MHhwd, _between(self.rows, h))
        by_column = torch.einsum("mnhwd,wkd->mnhwk", q_MHhwd, _between(self.columns, w))
        return (by_row.unsqueeze(-1) + by_column.unsqueeze(-2)).flatten(4).flatten(2, 3)


def _between(offsets: Tensor, size: int) -> Tensor:
    """(2 * size - 1, d) by offset -> (size, size, d) by query and key."""
    at = torch.arange(size, device=offsets.device)
    return offsets[at[:, None] - at[None, :] + size - 1]


Position = PositionTable | ContinuousPosition | DecomposedPosition


@dataclass(frozen=True, eq=False)
class WindowBlock:
    """The parts of a block: attention within windows, then an FFN, each with its residual.

    Attributes:
        module: the library's block; what is kept for a block is kept by it.
        norm1, norm2: of the attention and of the FFN.
        qkv: one layer from C to 3 * C, or three from C to C.
        out: from the attention's result to its residual: projection, dropout, layer scale.
        ffn: layer, activation, layer, and what else there is.
        drop_path1, drop_path2: stochastic depth of the residuals.
        heads: of the attention.
        scale: factor on the products of queries and keys.
        position: what to add to the logits; None for nothing.
        window, shift: (h, w) in tokens.
        cosine: (heads, 1, 1), in place of ``scale`` where queries and keys are normalised (Swin V2,
            section 3.2); None where they are not.
        norm_first: whether norms stand before attention and FFN, as in Swin, or after, as in V2.
        qkv_bias: bias to use in place of that of a joined ``qkv``.
        attention_dropout: share of attention weights to drop now; 0 outside of training.
        pad_before_norm: whether padding is normalised too, and then takes part in attention.
        roll_first: see :func:`~sparsevit.ops.windows.window_layout`.
        checkpointed: whether activations are computed again in backward, not kept.
    """

    module: nn.Module
    norm1: nn.Module
    norm2: nn.Module
    qkv: nn.Linear | tuple[nn.Linear, nn.Linear, nn.Linear]
    out: Modules
    ffn: Modules
    drop_path1: nn.Module
    drop_path2: nn.Module
    heads: int
    scale: float
    position: Position | None
    window: Pair
    shift: Pair
    cosine: Tensor | None = None
    norm_first: bool = True
    qkv_bias: Tensor | None = None
    attention_dropout: float = 0.0
    pad_before_norm: bool = False
    roll_first: bool = False
    checkpointed: bool = False


def projected(block: WindowBlock, y: Tensor) -> Tensor:
    """Queries, keys and values side by side: (..., C) -> (..., 3 * C).

    Three plain layers are one product of their weights, joined: they are smaller than what they
    are multiplied with.
    """
    qkv = block.qkv
    if not isinstance(qkv, tuple):
        return qkv(y) if block.qkv_bias is None else F.linear(y, qkv.weight, block.qkv_bias)
    if any(type(layer) is not nn.Linear or layer._forward_hooks for layer in qkv):
        return torch.cat([layer(y) for layer in qkv], dim=-1)
    weights = torch.cat([layer.weight for layer in qkv])
    if all(layer.bias is None for layer in qkv):
        return F.linear(y, weights)
    none = qkv[0].weight.new_zeros(qkv[0].out_features)
    biases: list[Tensor] = [none if layer.bias is None else layer.bias for layer in qkv]
    return F.linear(y, weights, torch.cat(biases))


def in_turn(modules: Modules, y: Tensor) -> Tensor:
    """Modules applied one after the other."""
    for module in modules:
        y = module(y)
    return y


def in_sequence(modules: Sequence[Any]) -> Modules:
    """Modules applied one after the other, without nesting and without those that do nothing."""
    flat: list[Any] = []
    for module in modules:
        if isinstance(module, nn.Sequential):
            flat += in_sequence(list(module))
        elif not isinstance(module, nn.Identity):
            flat.append(module)
    return tuple(flat)
