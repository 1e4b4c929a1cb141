"""SAM's image encoder, of Hugging Face transformers: its blocks with windows."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers.models.sam.modeling_sam import SamVisionLayer, SamVisionSdpaAttention

from sparsevit.methods.windows.adapters.huggingface import checkpoints_itself
from sparsevit.methods.windows.block import DecomposedPosition, WindowBlock
from sparsevit.methods.windows.sparsify import SparseBlock
from sparsevit.ops.windows import Pair


@checkpoints_itself
class SparseSamVisionLayer(SparseBlock, SamVisionLayer):
    """A ``SamVisionLayer`` on the windows that matter."""

    library_block = SamVisionLayer

    @classmethod
    def has_windows(cls, block: Any) -> bool:
        return bool(block.window_size > 0)

    def view(self, hw: Pair) -> WindowBlock:
        attention, mlp, window = self.attn, self.mlp, (self.window_size, self.window_size)
        position = None
        if attention.use_rel_pos:
            position = DecomposedPosition(attention.rel_pos_h, attention.rel_pos_w, window)
        # the fused variant has no dropout
        drops = attention.training and not isinstance(attention, SamVisionSdpaAttention)
        return WindowBlock(
            module=self,
            norm1=self.layer_norm1,
            norm2=self.layer_norm2,
            qkv=attention.qkv,
            out=(attention.proj,),
            ffn=(mlp.lin1, mlp.act, mlp.lin2),
            drop_path1=nn.Identity(),
            drop_path2=nn.Identity(),
            heads=attention.num_attention_heads,
            scale=attention.scale,
            position=position,
            window=window,
            shift=(0, 0),
            attention_dropout=attention.dropout if drops else 0.0,
            checkpointed=self.gradient_checkpointing and self.training,
        )

    def forward(self, hidden_states: Tensor) -> Any:
        """(B, H, W, C) -> (B, H, W, C)."""
        return self.run(hidden_states, (hidden_states.shape[1], hidden_states.shape[2]))
