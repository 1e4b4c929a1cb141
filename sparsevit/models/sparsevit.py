"""SparseViT: a Swin Transformer whose blocks work on the windows that matter (arXiv 2303.17605).

The parts and their parameters are those of mmdet's ``SwinTransformer``; only the forward is ours.
From small to whole: a block on a list of windows, the choice of the windows, a stage, the backbone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from mmdet.models.backbones.swin import SwinBlock, SwinTransformer, WindowMSA
from mmdet.registry import MODELS
from torch import Tensor, nn

from sparsevit.models.kernel_block import run_block_by_kernels, window_block_kernels_usable
from sparsevit.models.ratios import Ratios, nested_ratios
from sparsevit.models.swin_weights import initialise
from sparsevit.ops.attention import window_attention
from sparsevit.ops.tracing import own_tensors
from sparsevit.ops.windows import WindowLayout, window_layout
from sparsevit.sparsity.configuration import Configuration
from sparsevit.sparsity.scores import token_magnitudes, window_scores
from sparsevit.sparsity.selection import num_kept, rank_windows
from sparsevit.sparsity.space import Space


@dataclass(frozen=True, eq=False)
class Windows:
    """A list of M windows of N tokens, as positions in the flattened map of a batch.

    Attributes:
        row_MN: (M, N) int64, the row of each token in the (B * rows-an-image, C) map.
        image_M: (M,) int64, the image each window lies in.
        is_padding_MN1: (M, N, 1) bool, or None where no window has padding.
        edge_masks_ENN: (E, N, N) masks of the last E windows, or None in the plain partition, and
            for kernels, which need none.
        edge_kind_M: (M,) int64, which mask each window needs (see :class:`WindowLayout`), or None
            in the plain partition.
    """

    row_MN: Tensor
    image_M: Tensor
    is_padding_MN1: Tensor | None
    edge_masks_ENN: Tensor | None
    edge_kind_M: Tensor | None = None


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


def run_block(
    block: SwinBlock, t_MNC: Tensor, windows: Windows, batch: int, pad_before_norm: bool
) -> Tensor:
    """One Swin block on gathered windows: attention, then the FFN, each with its residual.

    Args:
        block: mmdet's block, whose parameters are used.
        t_MNC: (M, N, C) tokens of the windows.
        windows: where they come from.
        batch: images in the batch; stochastic depth drops a block for an image, not a window.
        pad_before_norm: see :class:`SparseViT`.

    Returns:
        (M, N, C), the new tokens of the same windows.
    """
    attn = block.attn.w_msa
    if windows.is_padding_MN1 is not None:
        t_MNC = t_MNC.masked_fill(windows.is_padding_MN1, 0)
    y_MNC = block.norm1(t_MNC)
    if windows.is_padding_MN1 is not None and not pad_before_norm:
        y_MNC = y_MNC.masked_fill(windows.is_padding_MN1, 0)
    y_MNC = window_attention(
        attn.qkv(y_MNC),
        relative_position_bias(attn),
        attn.num_heads,
        attn.scale,
        windows.edge_masks_ENN,
        attn.attn_drop.p if attn.training else 0.0,
    )
    y_MNC = attn.proj_drop(attn.proj(y_MNC))
    t_MNC = t_MNC + drop_path(block.attn.drop, y_MNC, windows.image_M, batch)
    y_MNC = block.ffn.gamma2(block.ffn.layers(block.norm2(t_MNC)))
    return t_MNC + drop_path(block.ffn.dropout_layer, y_MNC, windows.image_M, batch)


def relative_position_bias(attn: WindowMSA) -> Tensor:
    """(heads, N, N) bias of mmdet's ``WindowMSA``, looked up in its table."""
    N = attn.window_size[0] * attn.window_size[1]
    bias = attn.relative_position_bias_table[attn.relative_position_index.view(-1)]
    return bias.view(N, N, -1).permute(2, 0, 1).contiguous()


def drop_path(drop: nn.Module, y_MNC: Tensor, image_M: Tensor, batch: int) -> Tensor:
    """Stochastic depth by image on a list of windows: mmdet's own layer decides, on one number an
    image, so that it draws the same random numbers as in the dense model."""
    if not drop.training or getattr(drop, "drop_prob", 0.0) == 0.0:
        return y_MNC
    factor_B11 = drop(y_MNC.new_ones(batch, 1, 1))
    return y_MNC * factor_B11[image_M]


def feature_map(norm: nn.Module, x_BLC: Tensor, hw: tuple[int, int]) -> Tensor:
    """What a stage gives out, (B, H * W, C) -> (B, C, H, W)."""
    out_BHWC = norm(x_BLC).view(-1, *hw, x_BLC.shape[-1])
    return out_BHWC.permute(0, 3, 1, 2).contiguous()


def call(module: nn.Module, *inputs: Any) -> Any:
    """``module(*inputs)``: a piece that is one module."""
    return module(*inputs)


@dataclass(frozen=True)
class Pieces:
    """The functions a forward is made of, so that each can be compiled on its own.

    Attributes:
        embed: (patch embedding, images) -> (tokens, size of the map).
        block: :func:`run_block`.
        feature_map: :func:`feature_map`.
        downsample: (patch merging, tokens, size of the map) -> (tokens, size of the map).
    """

    embed: Callable[..., Any] = call
    block: Callable[..., Tensor] = run_block
    feature_map: Callable[..., Tensor] = feature_map
    downsample: Callable[..., Any] = call


@lru_cache(maxsize=64)
def all_windows(layout: WindowLayout, batch: int) -> Windows:
    """Every window of each of ``batch`` images, as :func:`locate` gives them; kept for reuse."""
    with own_tensors():
        device = layout.token_index_WN.device
        return locate(layout, torch.arange(layout.num_windows, device=device).repeat(batch, 1))


def locate(layout: WindowLayout, kept_BK: Tensor) -> Windows:
    """Where the tokens of the kept windows are, those windows last that may need a mask.

    Args:
        layout: the partition.
        kept_BK: (B, K) int64 kept windows of each image.
    """
    B, K = kept_BK.shape
    window_M, image_M = listed(kept_BK)
    masks_ENN = None
    if layout.edge_kind_W is not None and layout.region_masks_KNN is not None:
        # no more of the kept windows than this can be edge windows, so where to split is known
        # without asking the device how many are
        E = min(B * K, B * layout.num_edges)
        # keys that all differ: a stable order from any sort, as exported graphs have no stable one
        at_edge_M = layout.edge_kind_W[window_M].gt(0)
        order = (torch.arange(B * K, device=kept_BK.device) + B * K * at_edge_M).argsort()
        window_M, image_M = window_M[order], image_M[order]
        masks_ENN = layout.region_masks_KNN[layout.edge_kind_W[window_M[-E:]]]
    return placed(layout, window_M, image_M, masks_ENN)


def listed(kept_BK: Tensor) -> tuple[Tensor, Tensor]:
    """(B, K) kept windows of each image -> (M,) windows and (M,) the image of each."""
    B, K = kept_BK.shape
    return kept_BK.flatten(), torch.arange(B, device=kept_BK.device).repeat_interleave(K)


def placed(
    layout: WindowLayout, window_M: Tensor, image_M: Tensor, masks_ENN: Tensor | None = None
) -> Windows:
    """Where the tokens of these windows of these images are; kernels need no order among them."""
    padding_MN1 = kind_M = None
    if layout.edge_kind_W is not None:
        kind_M = layout.edge_kind_W[window_M]
    if layout.is_padding_WN is not None:
        padding_MN1 = layout.is_padding_WN[window_M].unsqueeze(-1)
    rows_an_image = layout.height * layout.width + int(layout.padded)
    row_MN = layout.token_index_WN[window_M] + image_M.unsqueeze(-1) * rows_an_image
    return Windows(row_MN, image_M, padding_MN1, masks_ENN, kind_M)


class WindowChooser:
    """Scores the windows of a stage once, and gives each block its share of them.

    Scores come from the map that :meth:`score` is shown, which is the input of the first block
    with a ratio above 0 (SparseViT, section 3.1, and its code): for the plain and for the shifted
    partition each. A later block keeps a prefix of the same ranking.

    Args:
        layouts: by block of the stage, the partition it uses.
        ratios: by block of the stage, the share of windows it skips.
    """

    def __init__(self, layouts: Sequence[WindowLayout], ratios: Sequence[float]) -> None:
        self.layouts = layouts
        self.ratios = ratios
        self.counts = [
            num_kept(layout.num_windows, ratio)
            for layout, ratio in zip(layouts, ratios, strict=True)
        ]
        self._magnitudes_BL: Tensor | None = None
        self._rankings: dict[int, Tensor] = {}

    @torch.no_grad()
    def score(self, x_BLC: Tensor) -> None:
        """Take the magnitudes of a map, unless this stage has been scored."""
        if self._magnitudes_BL is None:
            self._magnitudes_BL = token_magnitudes(x_BLC)

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
        """The blocks of one stage on the map (B, H * W, C), which they overwrite in place."""
        blocks, ratios = self.stages[stage].blocks, self._ratios[stage]
        layouts = [
            window_layout(*hw, b.attn.window_size, b.attn.shift_size, x_BLC.device) for b in blocks
        ]
        chooser = WindowChooser(layouts, ratios)
        B, L, C = x_BLC.shape
        if layouts[0].padded:
            # one more row an image, where the padding of its windows reads and writes
            x_BLC = F.pad(x_BLC, (0, 0, 0, 1))
        x_RC = x_BLC.reshape(-1, C).contiguous()

        for i, (block, layout) in enumerate(zip(blocks, layouts, strict=True)):
            if ratios[i] > 0:
                chooser.score(x_RC.view(B, -1, C)[:, :L])
            if chooser.counts[i] == 0:
                self._record(stage, i, layout, torch.empty(B, 0, dtype=torch.long), None)
                continue
            kept_BK = chooser.kept(i)
            # a compiled twin runs its compiled piece, and no kernels of ours
            by_kernels = self.pieces.block is run_block and window_block_kernels_usable(block, x_RC)
            if kept_BK is None:
                windows = all_windows(layout, B)
            elif by_kernels:
                windows = placed(layout, *listed(kept_BK))
            else:
                windows = locate(layout, kept_BK)
            self._record(stage, i, layout, kept_BK, windows)
            if by_kernels:
                x_RC = run_block_by_kernels(block, x_RC, windows, self.pad_before_norm)
            else:
                x_RC = self._forward_block(block, x_RC, windows, B)
        return x_RC.view(B, -1, C)[:, :L]

    def _forward_block(self, block: SwinBlock, x_RC: Tensor, windows: Windows, B: int) -> Tensor:
        rows = windows.row_MN.flatten()
        t_MNC = x_RC.index_select(0, rows).view(*windows.row_MN.shape, -1)
        if block.with_cp and t_MNC.requires_grad:
            t_MNC = torch.utils.checkpoint.checkpoint(
                self.pieces.block,
                *(block, t_MNC, windows, B, self.pad_before_norm),
                use_reentrant=False,
            )
        else:
            t_MNC = self.pieces.block(block, t_MNC, windows, B, self.pad_before_norm)
        # in place: a gather saves no values for backward, so nothing that is overwritten is
        # still needed
        return x_RC.index_copy_(0, rows, t_MNC.flatten(0, 1).to(x_RC.dtype))

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
