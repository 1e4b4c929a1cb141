"""MaskFormer's own copy of Swin, of Hugging Face transformers."""

from __future__ import annotations

from torch import Tensor
from transformers.models.maskformer.modeling_maskformer_swin import MaskFormerSwinLayer

from sparsevit.methods.windows.adapters.huggingface import refuse_attentions, swin_view
from sparsevit.methods.windows.block import WindowBlock
from sparsevit.methods.windows.sparsify import SparseBlock
from sparsevit.ops.windows import Pair


class SparseMaskFormerSwinLayer(SparseBlock, MaskFormerSwinLayer):
    """A ``MaskFormerSwinLayer`` on the windows that matter."""

    library_block = MaskFormerSwinLayer

    def view(self, hw: Pair) -> WindowBlock:
        return swin_view(self)

    def forward(
        self, hidden_states: Tensor, input_dimensions: Pair, output_attentions: bool = False
    ) -> tuple[Tensor]:
        """(B, H * W, C) -> (B, H * W, C)."""
        refuse_attentions(output_attentions)
        return (self.run(hidden_states, input_dimensions),)
