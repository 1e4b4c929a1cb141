"""ViTDet of Hugging Face transformers: its blocks with windows, not those on the whole map."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.models.vitdet.modeling_vitdet import VitDetLayer

from sparsevit.methods.windows.adapters.huggingface import checkpoints_itself, refuse_attentions
from sparsevit.methods.windows.block import DecomposedPosition, WindowBlock
from sparsevit.methods.windows.sparsify import SparseBlock
from sparsevit.ops.windows import Pair


@checkpoints_itself
class SparseVitDetLayer(SparseBlock, VitDetLayer):
    """A ``VitDetLayer`` on the windows that matter; its residual convolutions see the whole map."""

    library_block = VitDetLayer

    @classmethod
    def has_windows(cls, block: Any) -> bool:
        return bool(block.window_size > 0)

    def view(self, hw: Pair) -> WindowBlock:
        attention, mlp, window = self.attention, self.mlp, (self.window_size, self.window_size)
        position = None
        if attention.use_relative_position_embeddings:
            position = DecomposedPosition(attention.rel_pos_h, attention.rel_pos_w, window)
        return WindowBlock(
            module=self,
            norm1=self.norm1,
            norm2=self.norm2,
            qkv=attention.qkv,
            out=(attention.proj,),
            ffn=(mlp.fc1, mlp.act, mlp.drop, mlp.fc2, mlp.drop),
            drop_path1=self.drop_path,
            drop_path2=self.drop_path,
            heads=attention.num_heads,
            scale=attention.scale,
            position=position,
            window=window,
            shift=(0, 0),
            checkpointed=self.gradient_checkpointing and self.training,
        )

    def forward(self, hidden_states: Tensor, output_attentions: bool = False) -> tuple[Tensor]:
        """(B, C, H, W) -> (B, C, H, W)."""
        refuse_attentions(output_attentions)
        x_BHWC = hidden_states.permute(0, 2, 3, 1)
        x_BCHW = self.run(x_BHWC, (x_BHWC.shape[1], x_BHWC.shape[2])).permute(0, 3, 1, 2)
        return (self.residual(x_BCHW) if self.use_residual_block else x_BCHW,)
