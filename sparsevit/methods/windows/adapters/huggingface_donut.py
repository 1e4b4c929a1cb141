"""Donut's own copy of Swin, of Hugging Face transformers."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.models.donut.modeling_donut_swin import DonutSwinLayer

from sparsevit.methods.windows.adapters.huggingface import refuse_attentions, swin_view
from sparsevit.methods.windows.block import WindowBlock
from sparsevit.methods.windows.sparsify import SparseBlock
from sparsevit.ops.windows import Pair


class SparseDonutSwinLayer(SparseBlock, DonutSwinLayer):
    """A ``DonutSwinLayer`` on the windows that matter."""

    library_block = DonutSwinLayer

    def view(self, hw: Pair) -> WindowBlock:
        return swin_view(self)

    def forward(
        self,
        hidden_states: Tensor,
        input_dimensions: Pair,
        output_attentions: bool | None = False,
        always_partition: bool | None = False,
    ) -> Any:
        """(B, H * W, C) -> (B, H * W, C)."""
        refuse_attentions(output_attentions)
        if not always_partition:
            for block in self.group.blocks:
                block.set_shift_and_window_size(input_dimensions)
        return (self.run(hidden_states, input_dimensions),)
