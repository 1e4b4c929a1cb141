"""SparseViT: a Swin Transformer of OpenMMLab whose blocks work on the windows that matter.

The parts and their parameters are those of the library's ``SwinTransformer``; only the forward is
ours, and of that only what stands between the stages: see
:mod:`sparsevit.methods.windows.forward`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from mmdet.models.backbones.swin import SwinTransformer
from mmdet.registry import MODELS
from torch import Tensor, nn

from sparsevit.methods.windows.adapters.mmdet import view
from sparsevit.methods.windows.block import WindowBlock
from sparsevit.methods.windows.forward import (
    RankOver,
    Route,
    Stage,
    StageTokens,
    check_rank_over,
)
from sparsevit.methods.windows.method import Windows as WindowSparsity
from sparsevit.methods.windows.routes import eager
from sparsevit.methods.windows.selection import Selection, record
from sparsevit.models.patches import embed_patches, feature_map, merge_patches
from sparsevit.models.ratios import Ratios, nested_ratios
from sparsevit.models.swin_weights import initialise
from sparsevit.ops.windows import Pair, pair
from sparsevit.sparsity.configuration import Configuration
from sparsevit.sparsity.space import Space


@dataclass(frozen=True)
class Pieces:
    """The functions a forward is made of, so that each can be replaced by a faster one.

    Attributes:
        route: through the blocks of a stage.
        embed: :func:`embed_patches`.
        feature_map: :func:`feature_map`.
        downsample: :func:`merge_patches`.
    """

    route: Route = field(default_factory=eager)
    embed: Callable[..., Any] = embed_patches
    feature_map: Callable[..., Any] = feature_map
    downsample: Callable[..., Any] = merge_patches


class SparseSwin(nn.Module):
    """What makes a Swin of OpenMMLab sparse: knobs, and a forward of its parts.

    A mixin that stands before the library's ``SwinTransformer``, after whose own ``__init__``
    :meth:`make_sparse` is called.

    Attributes:
        depths: blocks of each stage.
        pieces: the functions that a forward is made of.
        pretrain_grid: (rows, columns) of patches that an absolute position embedding is for.
    """

    sparsity_method = WindowSparsity

    if TYPE_CHECKING:
        # of the library's class
        stages: Any
        patch_embed: Any
        use_abs_pos_embed: bool
        absolute_pos_embed: Tensor
        drop_after_pos: Any
        out_indices: Sequence[int]

    def make_sparse(
        self,
        pretrain_grid: Pair,
        pruning_ratios: Ratios,
        sparsity_choices: Sequence[float] | None,
        rank_over: RankOver,
    ) -> None:
        """Add knobs to a Swin that is built; see :class:`SparseViT`."""
        self.pretrain_grid = pretrain_grid
        self.rank_over = rank_over
        self.depths = [len(stage.blocks) for stage in self.stages]
        self._space = Space.staged(self.depths, choices=sparsity_choices)
        self._recorder: list[Selection] | None = None
        self.pieces = Pieces()
        self.pruning_ratios = pruning_ratios

    def window_blocks(self, i: int, hw: Pair) -> list[WindowBlock]:
        """The blocks of a stage on a map of (height, width) tokens."""
        raise NotImplementedError

    @property
    def pruning_ratios(self) -> list[list[float]]:
        """Share of skipped windows, by stage and block."""
        return [list(stage) for stage in self._ratios]

    @pruning_ratios.setter
    def pruning_ratios(self, ratios: Ratios) -> None:
        self._ratios = nested_ratios(ratios, self.depths)

    @property
    def rank_over(self) -> RankOver:
        """Which windows are ranked together."""
        return self._rank_over

    @rank_over.setter
    def rank_over(self, rank_over: RankOver) -> None:
        self._rank_over = check_rank_over(rank_over)

    def sparsity_space(self) -> Space:
        """The knobs of this backbone: one for each pair of a plain and a shifted block."""
        return self._space

    def get_sparsity(self) -> Configuration:
        """The ratio of every knob as set now."""
        return self._space.from_nested(self._ratios)

    def set_sparsity(self, configuration: Configuration) -> None:
        """Set every knob."""
        self._ratios = self._space.to_nested(self._space.validate(configuration))

    @contextmanager
    def record_selections(self) -> Iterator[list[Selection]]:
        """Within this context, every block that runs appends what it kept to the list."""
        self._recorder = []
        try:
            yield self._recorder
        finally:
            self._recorder = None

    def feature_maps(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) images -> feature maps (B, C, H', W') of the stages in ``out_indices``."""
        x_BLC, hw = self.pieces.embed(self.patch_embed, x)
        if self.use_abs_pos_embed:
            x_BLC = x_BLC + self._position_embedding(hw)
        x_BLC = self.drop_after_pos(x_BLC)

        outs = []
        for i, stage in enumerate(self.stages):
            x_BLC = self._forward_stage(i, x_BLC, hw)
            if i in self.out_indices:
                outs.append(self.pieces.feature_map(getattr(self, f"norm{i}"), x_BLC, hw))
            if stage.downsample:
                x_BLC, hw = self.pieces.downsample(stage.downsample, x_BLC, hw)
        return outs

    def _forward_stage(self, i: int, x_BLC: Tensor, hw: tuple[int, int]) -> Tensor:
        """The blocks of one stage on the map (B, H * W, C), which they may overwrite."""
        blocks = self.window_blocks(i, hw)
        watch = None if self._recorder is None else partial(record, self._recorder, i)
        ratios, route = self._ratios[i], self.pieces.route
        stage = Stage(blocks, ratios, hw, x_BLC.device, route, watch, self.rank_over)
        tokens = StageTokens.of(x_BLC, stage.layouts[0])
        for block in range(len(blocks)):
            tokens = stage.run(block, tokens)
        return tokens.by_image(tokens.x_RC)

    def _position_embedding(self, hw: tuple[int, int]) -> Tensor:
        embedding_1LC = self.absolute_pos_embed
        if tuple(hw) == self.pretrain_grid:
            return embedding_1LC
        grid = embedding_1LC.view(1, *self.pretrain_grid, -1).permute(0, 3, 1, 2)
        resized = F.interpolate(grid, size=tuple(hw), mode="bicubic", align_corners=False)
        return resized.flatten(2).transpose(1, 2)


# in mmdet's registry by its full name, and in the one above it, where mmseg's finds it too
@MODELS.parent.register_module()
@MODELS.register_module()
class SparseViT(SparseSwin, SwinTransformer):
    """Swin Transformer backbone that runs each block on its most active windows.

    In place of mmdet's or mmseg's ``SwinTransformer`` in any config: same arguments, same
    ``state_dict`` keys, same outputs while every ratio is 0.

    Args:
        pretrain_img_size: image size in pixels that the absolute position embedding, if any, is
            for; at another size it is resized.
        pruning_ratios: the share of windows that a block skips, in [0, 1). A number for all blocks,
            a list by stage, or a list by stage of lists by block.
        pad_before_norm: where the map is no multiple of the window, mmdet normalises and then pads
            with zeros; the paper's code pads and then normalises, so that padding takes part in
            attention. True is for checkpoints that were trained with the paper's code.
        sparsity_choices: ratios that a search may give a knob; 0 to 0.8 by 0.1 where None.
        rank_over: which windows are ranked together: those of an ``"image"``, of the whole
            ``"batch"``, or of so many images that follow one another, such as those of a scene's
            cameras. As many are kept in each case.
        **swin: arguments of mmdet's ``SwinTransformer``.

    Raises:
        ConfigurationError: a ratio is out of range, or the lists do not fit ``depths``.
        UserError: ``rank_over`` is none of these.
    """

    def __init__(
        self,
        pretrain_img_size: int | Sequence[int] = 224,
        *args: Any,
        pruning_ratios: Ratios = 0.0,
        pad_before_norm: bool = False,
        sparsity_choices: Sequence[float] | None = None,
        rank_over: RankOver = "image",
        **swin: Any,
    ) -> None:
        height, width = pair(pretrain_img_size)
        super().__init__((height, width), *args, **swin)
        patch = self.patch_embed.projection.kernel_size
        self.pad_before_norm = pad_before_norm
        grid = (height // patch[0], width // patch[1])
        self.make_sparse(grid, pruning_ratios, sparsity_choices, rank_over)

    def window_blocks(self, i: int, hw: Pair) -> list[WindowBlock]:
        return [
            replace(view(block), pad_before_norm=self.pad_before_norm)
            for block in self.stages[i].blocks
        ]

    def init_weights(self) -> None:
        """Initialise, or load the checkpoint that ``init_cfg`` names."""
        initialise(self)

    def train(self, mode: bool = True) -> SparseViT:
        """Switch to training or evaluation; frozen stages stay in evaluation."""
        super().train(mode)
        return self

    def forward(self, x: Tensor) -> list[Tensor]:
        """See :meth:`feature_maps`."""
        return self.feature_maps(x)
