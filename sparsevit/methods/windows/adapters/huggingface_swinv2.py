"""Swin V2 of Hugging Face transformers."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from transformers.models.swinv2.modeling_swinv2 import Swinv2Layer

from sparsevit.methods.windows.adapters.huggingface import refuse_attentions
from sparsevit.methods.windows.block import ContinuousPosition, WindowBlock
from sparsevit.methods.windows.sparsify import SparseBlock
from sparsevit.ops.windows import Pair


class SparseSwinv2Layer(SparseBlock, Swinv2Layer):
    """A ``Swinv2Layer`` on the windows that matter."""

    library_block = Swinv2Layer

    def view(self, hw: Pair) -> WindowBlock:
        attention, output = self.attention.self, self.attention.output
        return WindowBlock(
            module=self,
            norm1=self.layernorm_before,
            norm2=self.layernorm_after,
            qkv=(attention.query, attention.key, attention.value),
            out=(output.dense, output.dropout),
            ffn=(
                self.intermediate.dense,
                self.intermediate.intermediate_act_fn,
                self.output.dense,
                self.output.dropout,
            ),
            drop_path1=self.drop_path,
            drop_path2=self.drop_path,
            heads=attention.num_attention_heads,
            scale=1.0,
            cosine=attention.logit_scale.clamp(max=math.log(1.0 / 0.01)).exp(),
            position=ContinuousPosition(
                attention.continuous_position_bias_mlp,
                attention.relative_coords_table,
                attention.relative_position_index,
            ),
            window=(self.window_size, self.window_size),
            shift=(self.shift_size, self.shift_size),
            norm_first=False,
            attention_dropout=attention.dropout.p if attention.training else 0.0,
        )

    def forward(
        self,
        hidden_states: Tensor,
        input_dimensions: Pair,
        output_attentions: bool | None = False,
    ) -> Any:
        """(B, H * W, C) -> (B, H * W, C)."""
        refuse_attentions(output_attentions)
        return (self.run(hidden_states, input_dimensions),)
