"""mmpretrain's Swin: mmdetection's parts, but for a map that is one window high or wide."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mmpretrain.models.backbones.swin_transformer import SwinBlock
from torch import Tensor

from sparsevit.errors import UserError
from sparsevit.methods.windows.adapters.mmdet import view as mmdet_view
from sparsevit.methods.windows.block import WindowBlock
from sparsevit.methods.windows.sparsify import SparseBlock
from sparsevit.ops.windows import Pair


def view(block: Any, hw: Pair) -> WindowBlock:
    """A ``SwinBlock`` on a map of (height, width) tokens.

    Unless ``pad_small_map``, nothing is shifted where a side of the map is one window long.

    Raises:
        UserError: a side is shorter than a window, which is refused without ``pad_small_map``.
    """
    viewed, side = mmdet_view(block), block.attn.window_size
    if block.attn.pad_small_map or min(hw) > side:
        return viewed
    if min(hw) < side:
        raise UserError(
            f"A map of {hw[1]}x{hw[0]} tokens is smaller than a window of {side}x{side}.",
            "Give larger images, or set pad_small_map=True or a smaller window_size in the "
            "backbone's config.",
        )
    return replace(viewed, shift=(0, 0))


class SparseSwinBlock(SparseBlock, SwinBlock):
    """A ``SwinBlock`` on the windows that matter."""

    library_block = SwinBlock

    @classmethod
    def has_windows(cls, block: Any) -> bool:
        """Whether its attention is that of the first Swin."""
        from mmpretrain.models.utils import WindowMSA

        return type(block.attn.w_msa) is WindowMSA

    def view(self, hw: Pair) -> WindowBlock:
        return view(self, hw)

    def forward(self, x: Tensor, hw_shape: Pair) -> Tensor:
        """(B, H * W, C) -> (B, H * W, C)."""
        return self.run(x, (hw_shape[0], hw_shape[1]))
