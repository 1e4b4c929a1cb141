"""mmdetection's Swin."""

from __future__ import annotations

from typing import Any

from mmcv.cnn.bricks.wrappers import Conv2d, Linear
from mmdet.models.backbones.swin import SwinBlock
from torch import Tensor

from sparsevit.methods.windows.block import (
    PLAIN_LAYERS,
    PositionTable,
    WindowBlock,
    in_sequence,
)
from sparsevit.methods.windows.sparsify import SparseBlock
from sparsevit.ops.windows import Pair, pair

# they differ from PyTorch's for empty inputs alone
PLAIN_LAYERS.update((Linear, Conv2d))


def view(block: Any) -> WindowBlock:
    """A ``SwinBlock``."""
    shifted, ffn = block.attn, block.ffn
    attn = shifted.w_msa
    return WindowBlock(
        module=block,
        norm1=block.norm1,
        norm2=block.norm2,
        qkv=attn.qkv,
        out=in_sequence((attn.proj, attn.proj_drop)),
        ffn=in_sequence((ffn.layers, ffn.gamma2)),
        drop_path1=shifted.drop,
        drop_path2=ffn.dropout_layer,
        heads=attn.num_heads,
        scale=attn.scale,
        position=PositionTable(attn.relative_position_bias_table, attn.relative_position_index),
        window=pair(shifted.window_size),
        shift=pair(shifted.shift_size),
        attention_dropout=attn.attn_drop.p if attn.training else 0.0,
        checkpointed=block.with_cp,
    )


class SparseSwinBlock(SparseBlock, SwinBlock):
    """A ``SwinBlock`` on the windows that matter."""

    library_block = SwinBlock

    def view(self, hw: Pair) -> WindowBlock:
        return view(self)

    def forward(self, x: Tensor, hw_shape: Pair) -> Tensor:
        """(B, H * W, C) -> (B, H * W, C)."""
        return self.run(x, (hw_shape[0], hw_shape[1]))
