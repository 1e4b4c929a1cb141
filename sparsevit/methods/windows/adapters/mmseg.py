"""mmsegmentation's Swin: mmdetection's parts under another name."""

from __future__ import annotations

from mmseg.models.backbones.swin import SwinBlock
from torch import Tensor

from sparsevit.methods.windows.adapters.mmdet import view
from sparsevit.methods.windows.block import WindowBlock
from sparsevit.methods.windows.sparsify import SparseBlock
from sparsevit.ops.windows import Pair


class SparseSwinBlock(SparseBlock, SwinBlock):
    """A ``SwinBlock`` on the windows that matter."""

    library_block = SwinBlock

    def view(self, hw: Pair) -> WindowBlock:
        return view(self)

    def forward(self, x: Tensor, hw_shape: Pair) -> Tensor:
        """(B, H * W, C) -> (B, H * W, C)."""
        return self.run(x, (hw_shape[0], hw_shape[1]))
