"""timm's Swin and Swin V2."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.swin_transformer_v2 import SwinTransformerV2Block
from torch import Tensor

from sparsevit.methods.windows.block import (
    ContinuousPosition,
    Position,
    PositionTable,
    WindowBlock,
    in_sequence,
)
from sparsevit.methods.windows.sparsify import SparseBlock
from sparsevit.ops.windows import Pair, pair


def view(block: Any, scale: float, position: Position) -> WindowBlock:
    """A block of either version, with the scale and the positions of its attention.

    timm rolls the map before it pads it, and does not pad what the norm sees.
    """
    attn, mlp = block.attn, block.mlp
    return WindowBlock(
        module=block,
        norm1=block.norm1,
        norm2=block.norm2,
        qkv=attn.qkv,
        out=in_sequence((attn.proj, attn.proj_drop)),
        ffn=in_sequence((mlp.fc1, mlp.act, mlp.drop1, mlp.norm, mlp.fc2, mlp.drop2)),
        drop_path1=block.drop_path1,
        drop_path2=block.drop_path2,
        heads=attn.num_heads,
        scale=scale,
        position=position,
        window=pair(block.window_size),
        shift=pair(block.shift_size),
        attention_dropout=attn.attn_drop.p if attn.training else 0.0,
        roll_first=True,
    )


class SparseSwinTransformerBlock(SparseBlock, SwinTransformerBlock):
    """A ``SwinTransformerBlock`` on the windows that matter."""

    library_block = SwinTransformerBlock

    def view(self, hw: Pair) -> WindowBlock:
        attn: Any = self.attn
        position = PositionTable(attn.relative_position_bias_table, attn.relative_position_index)
        return view(self, attn.scale, position)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        return self.run(x, (x.shape[1], x.shape[2]))


class SparseSwinTransformerV2Block(SparseBlock, SwinTransformerV2Block):
    """A ``SwinTransformerV2Block`` on the windows that matter."""

    library_block = SwinTransformerV2Block

    def view(self, hw: Pair) -> WindowBlock:
        attn: Any = self.attn
        position = ContinuousPosition(
            attn.cpb_mlp, attn.relative_coords_table, attn.relative_position_index
        )
        bias = None
        if attn.q_bias is not None:
            bias = torch.cat((attn.q_bias, attn.k_bias, attn.v_bias))
        return replace(
            view(self, 1.0, position),
            cosine=attn.logit_scale.clamp(max=math.log(100)).exp(),
            norm_first=False,
            qkv_bias=bias,
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        return self.run(x, (x.shape[1], x.shape[2]))
