"""torchvision's Swin and Swin V2."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.swin_transformer import SwinTransformerBlock, SwinTransformerBlockV2

from sparsevit.methods.windows.block import (
    ContinuousPosition,
    Position,
    PositionTable,
    WindowBlock,
    in_sequence,
)
from sparsevit.methods.windows.sparsify import SparseBlock
from sparsevit.ops.windows import Pair, pair


def view(block: Any, hw: Pair, position: Position) -> WindowBlock:
    """A block of either version on a map of this size, with the positions of its attention.

    Along a side that one window covers, the map is not shifted.
    """
    attn = block.attn
    window = pair(attn.window_size)
    shift = tuple(
        by if side > size else 0
        for by, side, size in zip(pair(attn.shift_size), hw, window, strict=True)
    )
    return WindowBlock(
        module=block,
        norm1=block.norm1,
        norm2=block.norm2,
        qkv=attn.qkv,
        out=in_sequence((attn.proj, nn.Dropout(attn.dropout).train(attn.training))),
        ffn=in_sequence((block.mlp,)),
        drop_path1=block.stochastic_depth,
        drop_path2=block.stochastic_depth,
        heads=attn.num_heads,
        scale=(attn.proj.in_features // attn.num_heads) ** -0.5,
        position=position,
        window=window,
        shift=pair(shift),
        attention_dropout=attn.attention_dropout if attn.training else 0.0,
    )


class SparseSwinTransformerBlock(SparseBlock, SwinTransformerBlock):
    """A ``SwinTransformerBlock`` on the windows that matter."""

    library_block = SwinTransformerBlock

    def view(self, hw: Pair) -> WindowBlock:
        attn: Any = self.attn
        position = PositionTable(attn.relative_position_bias_table, attn.relative_position_index)
        return view(self, hw, position)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        return self.run(x, (x.shape[1], x.shape[2]))


class SparseSwinTransformerBlockV2(SparseBlock, SwinTransformerBlockV2):
    """A ``SwinTransformerBlockV2`` on the windows that matter."""

    library_block = SwinTransformerBlockV2

    def view(self, hw: Pair) -> WindowBlock:
        attn: Any = self.attn
        position = ContinuousPosition(
            attn.cpb_mlp, attn.relative_coords_table, attn.relative_position_index
        )
        bias = attn.qkv.bias
        if bias is not None:
            # the bias of the keys is there, but not used
            q, k, v = bias.chunk(3)
            bias = torch.cat((q, torch.zeros_like(k), v))
        return replace(
            view(self, hw, position),
            cosine=attn.logit_scale.clamp(max=math.log(100)).exp(),
            norm_first=False,
            qkv_bias=bias,
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        return self.run(x, (x.shape[1], x.shape[2]))
