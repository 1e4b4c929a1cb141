"""Swin of Hugging Face transformers."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers.models.swin.modeling_swin import SwinLayer

from sparsevit.methods.windows.adapters.huggingface import checkpoints_itself
from sparsevit.methods.windows.block import PositionTable, WindowBlock
from sparsevit.methods.windows.sparsify import SparseBlock
from sparsevit.ops.windows import Pair


@checkpoints_itself
class SparseSwinLayer(SparseBlock, SwinLayer):
    """A ``SwinLayer`` on the windows that matter."""

    library_block = SwinLayer

    def view(self, hw: Pair) -> WindowBlock:
        attention, mlp = self.attention, self.mlp
        bias = attention.relative_position_bias
        return WindowBlock(
            module=self,
            norm1=self.layernorm_before,
            norm2=self.layernorm_after,
            qkv=(attention.q_proj, attention.k_proj, attention.v_proj),
            out=(attention.o_proj, self.dropout),
            ffn=(mlp.fc1, mlp.activation_fn, mlp.fc2, self.dropout),
            drop_path1=self.drop_path,
            drop_path2=nn.Identity(),
            heads=attention.num_attention_heads,
            scale=attention.scaling,
            position=PositionTable(bias.relative_position_bias_table, bias.relative_position_index),
            window=(self.window_size, self.window_size),
            shift=(self.shift_size, self.shift_size),
            attention_dropout=attention.attention_dropout if attention.training else 0.0,
            checkpointed=self.gradient_checkpointing and self.training,
        )

    def forward(
        self,
        hidden_states: Tensor,
        input_dimensions: Pair,
        always_partition: bool = False,
        **kwargs: Any,
    ) -> Any:
        """(B, H * W, C) -> (B, H * W, C), and no attention weights."""
        if not always_partition:
            for block in self.group.blocks:
                block.set_shift_and_window_size(input_dimensions)
        return self.run(hidden_states, input_dimensions), None
