"""SparseViT: a Swin Transformer whose blocks work on the windows that matter (arXiv 2303.17605).

The parts and their parameters are those of mmdet's ``SwinTransformer``; only the forward is ours.
From small to whole: a block on a list of windows, the choice of the windows, a stage, the backbone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from mmdet.models.backbones.swin import SwinBlock, SwinTransformer
from mmdet.registry import MODELS
from torch import Tensor

from sparsevit.methods.windows import Windows as WindowSparsity
from sparsevit.models.kernel_block import run_block_by_kernels, window_block_kernels_usable
from sparsevit.models.ratios import Ratios, nested_ratios
from sparsevit.models.swin_weights import initialise
from sparsevit.models.window_block import (
    Windows,
    all_windows,
    embed_patches,
    feature_map,
    in_parts,
    listed,
    locate,
    merge_patches,
    placed,
    run_block,
)
from sparsevit.ops.windows import WindowLayout, window_layout
from sparsevit.sparsity.configuration import Configuration
from sparsevit.sparsity.scores import token_magnitudes, window_scores
from sparsevit.sparsity.selection import num_kept, rank_windows
from sparsevit.sparsity.space import Space

RunOnMap = Callable[[SwinBlock, Tensor, Windows, bool], Tensor]


@dataclass(frozen=True, eq=False)
class Selection:
    """What one block kept, for whoever looks on (see :meth:`SparseViT.record_selections`).

    Attributes:
        stage, block: which block.
        shift: its cyclic shift in tokens.
        grid: windows down and across.
        kept_BK: (B, K) int64 indices of the kept windows, best first, or None where all are.
        layout: the partition they are windows of.
        windows: where their tokens are, or None where no window is kept.
    """

    stage: int
    block: int
    shift: int
    grid: tuple[int, int]
    kept_BK: Tensor | None
    layout: WindowLayout
    windows: Windows | None


def put_in_place(x_RC: Tensor, rows: Tensor, t_RC: Tensor) -> Tensor:
    """Write tokens into rows of the map, which is overwritten: a gather saves no values for
    backward, so nothing that is overwritten is still needed."""
    return x_RC.index_copy_(0, rows, t_RC)


def kernels_on_map(block: SwinBlock, x_RC: Tensor) -> RunOnMap | None:
    """Our Triton kernels, where they compute what this block does on this map."""
    return run_block_by_kernels if window_block_kernels_usable(block, x_RC) else None


@dataclass(frozen=True)
class Pieces:
    """The functions a forward is made of, so that each can be compiled on its own.

    Attributes:
        embed: :func:`embed_patches`.
        magnitudes: :func:`token_magnitudes`.
        on_map: (block, map) -> a function that runs the block on the map itself, (block, map,
            windows, pad_before_norm) -> the map; or None, and ``block`` runs on gathered windows.
        block: :func:`run_block`.
        split: :func:`in_parts`.
        put: (map, rows, tokens) -> the map with the tokens in these rows.
        feature_map: :func:`feature_map`.
        downsample: :func:`merge_patches`.
    """

    embed: Callable[..., Any] = embed_patches
    magnitudes: Callable[[Tensor], Tensor] = token_magnitudes
    on_map: Callable[[SwinBlock, Tensor], RunOnMap | None] = kernels_on_map
    block: Callable[..., Tensor] = run_block
    split: Callable[[Windows, SwinBlock], list[Windows]] = in_parts
    put: Callable[[Tensor, Tensor, Tensor], Tensor] = put_in_place
    feature_map: Callable[..., Tensor] = feature_map
    downsample: Callable[..., Any] = merge_patches


@dataclass(frozen=True, eq=False)
class StageTokens:
    """The tokens of a stage: a map's rows, in the order in which a block left them.

    A block on all windows writes a new list, which is read by index from then on; only a block on
    some of them writes into the rows it has read.

    Attributes:
        batch: B.
        layout: any partition of the map.
        x_RC: tokens; some are padding.
        place_R: (B * rows an image,) where the token of each row of the map is in ``x_RC``; None
            where they lie as in the map.
    """

    batch: int
    layout: WindowLayout
    x_RC: Tensor
    place_R: Tensor | None = None

    @classmethod
    def of(cls, x_BLC: Tensor, layout: WindowLayout) -> StageTokens:
        """A map (B, L, C) as it comes into a stage."""
        if layout.padded:
            # one more row an image, where the padding of its windows reads and writes
            x_BLC = F.pad(x_BLC, (0, 0, 0, 1))
        return cls(x_BLC.shape[0], layout, x_BLC.reshape(-1, x_BLC.shape[-1]).contiguous())

    def where(self, rows: Tensor) -> Tensor:
        """Rows of the map -> rows of ``x_RC``."""
        return rows if self.place_R is None else self.place_R[rows]

    def by_image(self, values_R: Tensor) -> Tensor:
        """Values of each token, (rows of ``x_RC``, ...) -> (B, L, ...) in the order of the map."""
        if self.place_R is not None:
            values_R = values_R.index_select(0, self.place_R)
        values = values_R.unflatten(0, (self.batch, self.layout.rows))
        return values[:, : self.layout.height * self.layout.width]

    def rows(self) -> Tensor:
        """The tokens in the order of the map, (B * rows an image, C)."""
        return self.x_RC if self.place_R is None else self.x_RC.index_select(0, self.place_R)


class WindowChooser:
    """Scores the windows of a stage once, and gives each block its share of them.

    Scores come from the map that :meth:`score` is shown, which is the input of the first block
    with a ratio above 0 (SparseViT, section 3.1, and its code): for the plain and for the shifted
    partition each. A later block keeps a prefix of the same ranking.

    Args:
        layouts: by block of the stage, the partition it uses.
        ratios: by block of the stage, the share of windows it skips.
        magnitudes: :func:`token_magnitudes`, or what computes the same.
    """

    def __init__(
        self,
        layouts: Sequence[WindowLayout],
        ratios: Sequence[float],
        magnitudes: Callable[[Tensor], Tensor] = token_magnitudes,
    ) -> None:
        self.layouts = layouts
        self._magnitudes = magnitudes
        self.ratios = ratios
        self.counts = [
            num_kept(layout.num_windows, ratio)
            for layout, ratio in zip(layouts, ratios, strict=True)
        ]
        self._magnitudes_BL: Tensor | None = None
        self._rankings: dict[int, Tensor] = {}
        self._windows: dict[tuple[int, int, bool], Windows] = {}

    @torch.no_grad()
    def score(self, tokens: StageTokens) -> None:
        """Take the magnitudes of a map, unless this stage has been scored."""
        if self._magnitudes_BL is None:
            self._magnitudes_BL = tokens.by_image(self._magnitudes(tokens.x_RC))

    @torch.no_grad()
    def kept(self, block: int) -> Tensor | None:
        """(B, K) kept windows of this block, best first; None where it keeps all of them."""
        layout, count = self.layouts[block], self.counts[block]
        if count == layout.num_windows or self._magnitudes_BL is None:
            return None
        if id(layout) not in self._rankings:
            most = max(
                count
                for other, count in zip(self.layouts, self.counts, strict=True)
                if other is layout
            )
            scores_BW = window_scores(self._magnitudes_BL, layout.token_index_WN)
            self._rankings[id(layout)] = rank_windows(scores_BW, most)
        return self._rankings[id(layout)][:, :count]

    def windows(self, block: int, kept_BK: Tensor, masks: bool) -> Windows:
        """Where the tokens of this block's windows are; blocks that keep the same share them.

        Args:
            block: which of the stage.
            kept_BK: :meth:`kept` of it.
            masks: whether masks are spelled out, and the windows that need one come last.
        """
        layout = self.layouts[block]
        key = (id(layout), self.counts[block], masks)
        if key not in self._windows:
            self._windows[key] = (
                locate(layout, kept_BK) if masks else placed(layout, len(kept_BK), *listed(kept_BK))
            )
        return self._windows[key]


@MODELS.register_module()
class SparseViT(SwinTransformer):
    """Swin Transformer backbone that runs each block on its most active windows.

    In place of mmdet's ``SwinTransformer`` in any config: same arguments, same ``state_dict`` keys,
    same outputs while every ratio is 0.

    Args:
        pretrain_img_size: image size in pixels that the absolute position embedding, if any, is
            for; at another size it is resized.
        pruning_ratios: the share of windows that a block skips, in [0, 1). A number for all blocks,
            a list by stage, or a list by stage of lists by block.
        pad_before_norm: where the map is no multiple of the window, mmdet normalises and then pads
            with zeros; the paper's code pads and then normalises, so that padding takes part in
            attention. True is for checkpoints that were trained with the paper's code.
        sparsity_choices: ratios that a search may give a knob; 0 to 0.8 by 0.1 where None.
        **swin: arguments of mmdet's ``SwinTransformer``.

    Raises:
        ConfigurationError: a ratio is out of range, or the lists do not fit ``depths``.
    """

    sparsity_method = WindowSparsity

    def __init__(
        self,
        pretrain_img_size: int | Sequence[int] = 224,
        *args: Any,
        pruning_ratios: Ratios = 0.0,
        pad_before_norm: bool = False,
        sparsity_choices: Sequence[float] | None = None,
        **swin: Any,
    ) -> None:
        height, width = _pair(pretrain_img_size)
        super().__init__((height, width), *args, **swin)
        patch = self.patch_embed.projection.kernel_size
        self.pretrain_grid = (height // patch[0], width // patch[1])
        self.pad_before_norm = pad_before_norm
        self.depths = [len(stage.blocks) for stage in self.stages]
        self._space = Space.staged(self.depths, choices=sparsity_choices)
        self._recorder: list[Selection] | None = None
        self.pieces = Pieces()
        self.pruning_ratios = pruning_ratios

    @property
    def pruning_ratios(self) -> list[list[float]]:
        """Share of skipped windows, by stage and block."""
        return [list(stage) for stage in self._ratios]

    @pruning_ratios.setter
    def pruning_ratios(self, ratios: Ratios) -> None:
        self._ratios = nested_ratios(ratios, self.depths)

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

    def init_weights(self) -> None:
        """Initialise, or load the checkpoint that ``init_cfg`` names."""
        initialise(self)

    def train(self, mode: bool = True) -> SparseViT:
        """Switch to training or evaluation; frozen stages stay in evaluation."""
        super().train(mode)
        return self

    def forward(self, x: Tensor) -> list[Tensor]:
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

    def _forward_stage(self, stage: int, x_BLC: Tensor, hw: tuple[int, int]) -> Tensor:
        """The blocks of one stage on the map (B, H * W, C), which they may overwrite."""
        blocks, ratios = self.stages[stage].blocks, self._ratios[stage]
        layouts = [
            window_layout(*hw, b.attn.window_size, b.attn.shift_size, x_BLC.device) for b in blocks
        ]
        chooser = WindowChooser(layouts, ratios, self.pieces.magnitudes)
        B = x_BLC.shape[0]
        tokens = StageTokens.of(x_BLC, layouts[0])

        for i, (block, layout) in enumerate(zip(blocks, layouts, strict=True)):
            if ratios[i] > 0:
                chooser.score(tokens)
            if chooser.counts[i] == 0:
                self._record(stage, i, layout, torch.empty(B, 0, dtype=torch.long), None)
                continue
            kept_BK = chooser.kept(i)
            on_map = self.pieces.on_map(block, tokens.x_RC)
            if kept_BK is None:
                windows = all_windows(layout, B)
            else:
                windows = chooser.windows(i, kept_BK, masks=on_map is None)
            self._record(stage, i, layout, kept_BK, windows)
            if on_map:
                x_RC = on_map(block, tokens.rows(), windows, self.pad_before_norm)
                tokens = replace(tokens, x_RC=x_RC, place_R=None)
            else:
                tokens = self._forward_block(block, tokens, windows, B)
        return tokens.by_image(tokens.x_RC)

    def _forward_block(
        self, block: SwinBlock, tokens: StageTokens, windows: Windows, B: int
    ) -> StageTokens:
        for part in self.pieces.split(windows, block):
            rows = tokens.where(part.row_MN.flatten())
            t_MNC = tokens.x_RC.index_select(0, rows).view(*part.row_MN.shape, -1)
            if block.with_cp and t_MNC.requires_grad:
                t_MNC = torch.utils.checkpoint.checkpoint(
                    self.pieces.block,
                    *(block, t_MNC, part, B, self.pad_before_norm),
                    use_reentrant=False,
                )
            else:
                t_MNC = self.pieces.block(block, t_MNC, part, B, self.pad_before_norm)
            t_RC = t_MNC.flatten(0, 1).to(tokens.x_RC.dtype)
            if part.place_R is not None:
                # every token is new: the list is the map now, in another order
                return replace(tokens, x_RC=t_RC, place_R=part.place_R)
            tokens = replace(tokens, x_RC=self.pieces.put(tokens.x_RC, rows, t_RC))
        return tokens

    def _position_embedding(self, hw: tuple[int, int]) -> Tensor:
        embedding_1LC = self.absolute_pos_embed
        if tuple(hw) == self.pretrain_grid:
            return embedding_1LC
        grid = embedding_1LC.view(1, *self.pretrain_grid, -1).permute(0, 3, 1, 2)
        resized = F.interpolate(grid, size=tuple(hw), mode="bicubic", align_corners=False)
        return resized.flatten(2).transpose(1, 2)

    def _record(
        self,
        stage: int,
        block: int,
        layout: WindowLayout,
        kept_BK: Tensor | None,
        windows: Windows | None,
    ) -> None:
        if self._recorder is None:
            return
        shift = self.stages[stage].blocks[block].attn.shift_size
        self._recorder.append(Selection(stage, block, shift, layout.grid, kept_BK, layout, windows))


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    return size[0], size[-1]
