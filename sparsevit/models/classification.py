"""SparseViT for mmpretrain's classifiers: importing this module registers it there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from sparsevit.errors import UserError
from sparsevit.methods.windows.block import WindowBlock
from sparsevit.methods.windows.forward import RankOver
from sparsevit.models.ratios import Ratios
from sparsevit.models.sparsevit import SparseSwin
from sparsevit.ops.mmpretrain_import import import_mmpretrain
from sparsevit.ops.windows import Pair

import_mmpretrain()

from mmpretrain.models.backbones.swin_transformer import SwinTransformer  # noqa: E402
from mmpretrain.registry import MODELS  # noqa: E402

from sparsevit.methods.windows.adapters.mmpretrain import view  # noqa: E402


@MODELS.register_module()
class SparseViT(SparseSwin, SwinTransformer):
    """Swin Transformer backbone that runs each block on its most active windows.

    In place of mmpretrain's ``SwinTransformer`` in any config: same arguments, same
    ``state_dict`` keys, same outputs while every ratio is 0.

    Args:
        pruning_ratios, sparsity_choices, rank_over: see
            :class:`sparsevit.models.sparsevit.SparseViT`.
        **swin: arguments of mmpretrain's ``SwinTransformer``; ``out_after_downsample`` stays False.

    Raises:
        ConfigurationError: a ratio is out of range, or the lists do not fit the depths.
        UserError: ``rank_over`` is none of these, or maps are asked for after patches are merged.
    """

    def __init__(
        self,
        *args: Any,
        pruning_ratios: Ratios = 0.0,
        sparsity_choices: Sequence[float] | None = None,
        rank_over: RankOver = "image",
        **swin: Any,
    ) -> None:
        super().__init__(*args, **swin)
        if self.out_after_downsample:
            raise UserError(
                "A SparseViT gives its maps before patches are merged.",
                "Leave out_after_downsample of the backbone out.",
            )
        grid: Any = self.patch_resolution
        self.make_sparse((grid[0], grid[1]), pruning_ratios, sparsity_choices, rank_over)

    def window_blocks(self, i: int, hw: Pair) -> list[WindowBlock]:
        return [view(block, hw) for block in self.stages[i].blocks]

    def train(self, mode: bool = True) -> SparseViT:
        """Switch to training or evaluation; frozen stages stay in evaluation."""
        super().train(mode)
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) images -> feature maps (B, C, H', W') of the stages in ``out_indices``."""
        return tuple(self.feature_maps(x))
