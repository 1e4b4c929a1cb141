"""The forward of SparseViT (Chen et al., CVPR 2023, arXiv 2303.17605), from top to bottom.

A stage is a few blocks of window attention on one map of tokens. Each block works on its most
active windows, and the others pass it unchanged: score the windows, choose, gather their tokens,
run the block on them, put them back.

Shapes: B images, L = H * W tokens of a map, C channels, W windows of a map, of which K are kept;
M = B * K windows in a list, N tokens a window; R rows of a batch of maps as it is stored, which are
its tokens and, where windows need padding, one more row an image. Where windows of several images
are ranked together, these are one of G groups, with that many times W windows, of which that many
times K are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sparsevit.errors import UserError
from sparsevit.methods.windows.block import WindowBlock, in_turn, projected
from sparsevit.ops.attention import heads_apart, window_attention
from sparsevit.ops.windows import Pair, WindowLayout, Windows, all_windows, locate, window_layout

# --- score the windows ----------------------------------------------------------------------------


def token_magnitudes(x: Tensor) -> Tensor:
    """Mean absolute activation of each token, (..., C) -> (...).

    Of a map of 16 bits it is in float32: rounded to 16 bits, windows would tie that do not.
    """
    return x.abs().mean(-1, dtype=torch.float32 if x.element_size() < 4 else x.dtype)


def window_scores(magnitudes_BL: Tensor, token_index_WN: Tensor) -> Tensor:
    """L2 norm of the token magnitudes of each window (section 3.1): (B, L) -> (B, W).

    Args:
        magnitudes_BL: magnitude of each token.
        token_index_WN: tokens of each window; L stands for padding, which weighs nothing.
    """
    padded = F.pad(magnitudes_BL, (0, 1))
    tokens_BWN = padded.index_select(1, token_index_WN.flatten()).unflatten(1, token_index_WN.shape)
    return torch.linalg.vector_norm(tokens_BWN, dim=-1)


# --- choose ---------------------------------------------------------------------------------------


def num_kept(num_windows: int, ratio: float) -> int:
    """How many windows a block with this ratio works on, truncated as the paper's code does (so
    that its configurations mean the same here)."""
    return int(num_windows * (1 - ratio))


RankOver = Literal["image", "batch"] | int
"""Among whose windows a block chooses: those of an image, of all images of the batch, or of so many
images that follow one another, as those of the cameras of a scene do. It keeps as many windows in
each case, and so costs the same; the more images, the more freely these are shared out."""


def check_rank_over(rank_over: RankOver) -> RankOver:
    """The option itself.

    Raises:
        UserError: it is not one.
    """
    number = isinstance(rank_over, int) and not isinstance(rank_over, bool) and rank_over > 0
    if number or rank_over in ("image", "batch"):
        return rank_over
    raise UserError(
        f"rank_over={rank_over!r} does not say which windows are ranked together.",
        "Give 'image', 'batch', or a number of images, such as the number of cameras.",
    )


def images_ranked_together(rank_over: RankOver, batch: int) -> int:
    """How many images of a batch share a ranking; a batch that is smaller is one group.

    Raises:
        UserError: the batch is not made of such groups.
    """
    if rank_over == "image":
        return 1
    together = batch if rank_over == "batch" else min(rank_over, batch)
    if batch % together:
        raise UserError(
            f"A batch of {batch} images has no groups of {together}, over which windows are "
            f"ranked (rank_over={rank_over}).",
            "Give batches of a multiple of it, or set rank_over to 'image' or 'batch'.",
        )
    return together


def rank_windows(scores_BW: Tensor, count: int) -> Tensor:
    """The ``count`` best windows of each image, best first: (B, W) -> (B, count) int64."""
    return scores_BW.topk(count, dim=1).indices


# --- gather and put back --------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class StageTokens:
    """The tokens of a stage: a map's rows, in the order in which a block left them.

    A block on all windows writes a new list, read by index from then on; a block on some of them
    writes into the rows that it has read.

    Attributes:
        batch, layout: B, and any partition of the map.
        x_RC: tokens; some are padding.
        place_R: where the token of each row of the map is in ``x_RC``; None where they lie as in
            the map.
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

    def by_image(self, values_R: Tensor) -> Tensor:
        """Values of each token, (rows of ``x_RC``, ...) -> (B, L, ...) in the order of the map."""
        if self.place_R is not None:
            values_R = values_R.index_select(0, self.place_R)
        values = values_R.unflatten(0, (self.batch, self.layout.rows))
        return values[:, : self.layout.height * self.layout.width]


def put_in_place(x_RC: Tensor, rows: Tensor, t_RC: Tensor) -> Tensor:
    """Write tokens into rows of the map, which is overwritten: a gather saves no values for
    backward, so nothing that is overwritten is still needed."""
    return x_RC.index_copy_(0, rows, t_RC)


# --- run the block --------------------------------------------------------------------------------


def attend(block: WindowBlock, y_MNC: Tensor, windows: Windows) -> Tensor:
    """Attention within each window: (M, N, C) -> (M, N, C), before the projection."""
    q, k, v = heads_apart(projected(block, y_MNC), 3 * block.heads).chunk(3, dim=1)
    position = None if block.position is None else block.position(q)
    scale, masks, dropout = block.scale, windows.edge_masks_ENN, block.attention_dropout
    if block.cosine is not None:
        q, k, scale = F.normalize(q, dim=-1) * block.cosine, F.normalize(k, dim=-1), 1.0
        masks = windows.swin_masks_ENN
    return window_attention(q, k, v, position, scale, masks, dropout)


def run_block(
    block: WindowBlock,
    t_MNC: Tensor,
    windows: Windows,
    batch: int,
    attention: Callable[[WindowBlock, Tensor, Windows], Tensor] = attend,
) -> Tensor:
    """One block on gathered windows: attention, then the FFN, each with its residual.

    Args:
        block: whose parameters are used.
        t_MNC: (M, N, C) tokens of the windows.
        windows: where they come from.
        batch: images in the batch; stochastic depth drops a block for an image, not a window.
        attention: :func:`attend`, or another way to compute the same.

    Returns:
        (M, N, C), the new tokens of the same windows.
    """
    t_MNC, y_MNC = attention_input(block, t_MNC, windows)
    y_MNC = in_turn(block.out, attention(block, y_MNC, windows))
    y_MNC = y_MNC if block.norm_first else block.norm1(y_MNC)
    t_MNC = t_MNC + drop_path(block.drop_path1, y_MNC, windows.image_M, batch)
    if block.norm_first:
        y_MNC = in_turn(block.ffn, block.norm2(t_MNC))
    else:
        y_MNC = block.norm2(in_turn(block.ffn, t_MNC))
    return t_MNC + drop_path(block.drop_path2, y_MNC, windows.image_M, batch)


def attention_input(block: WindowBlock, t_MNC: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
    """The tokens, padding among them set to 0, and what the block's attention sees of them."""
    padding_MN1 = windows.is_padding_MN1
    if padding_MN1 is not None:
        t_MNC = t_MNC.masked_fill(padding_MN1, 0)
    if not block.norm_first:
        return t_MNC, t_MNC
    y_MNC = block.norm1(t_MNC)
    if padding_MN1 is not None and not block.pad_before_norm:
        y_MNC = y_MNC.masked_fill(padding_MN1, 0)
    return t_MNC, y_MNC


def drop_path(drop: nn.Module, y_MNC: Tensor, image_M: Tensor, batch: int) -> Tensor:
    """Stochastic depth by image on a list of windows: the library's own layer decides, on one
    number an image, so that it draws the same random numbers as in the dense model."""
    if isinstance(drop, nn.Identity) or not drop.training:
        return y_MNC
    if getattr(drop, "drop_prob", getattr(drop, "p", None)) == 0.0:
        return y_MNC
    factor_B11 = drop(y_MNC.new_ones(batch, 1, 1))
    return y_MNC * factor_B11[image_M]


# --- a stage --------------------------------------------------------------------------------------

RunOnMap = Callable[[WindowBlock, Tensor, Windows], Tensor]


@dataclass(frozen=True)
class Route:
    """How the steps of a stage are computed. These are the plain ones; see
    :mod:`sparsevit.methods.windows.routes` for those that are faster somewhere.

    Attributes:
        magnitudes: :func:`token_magnitudes`.
        on_map: (block, map) -> a function that runs the block on the map itself, (block, map,
            windows) -> the map; or None, and ``block`` runs on gathered windows.
        block: :func:`run_block`.
        split: (windows, block) -> the list in parts, to be worked on one after the other.
        put: (map, rows, tokens) -> the map with the tokens in these rows.
    """

    magnitudes: Callable[[Tensor], Tensor] = token_magnitudes
    on_map: Callable[[WindowBlock, Tensor], RunOnMap | None] = lambda block, x_RC: None
    block: Callable[[WindowBlock, Tensor, Windows, int], Tensor] = run_block
    split: Callable[[Windows, WindowBlock], list[Windows]] = lambda windows, block: [windows]
    put: Callable[[Tensor, Tensor, Tensor], Tensor] = put_in_place


Watch = Callable[["Stage", int, Tensor | None, Windows | None], None]


class Stage:
    """One pass through the blocks of a stage, which share one ranking of the windows.

    Scores come from the input of the first block with a ratio above 0 (section 3.1, and the paper's
    code), for the plain and for the shifted partition each. A later block keeps a prefix of the
    same ranking, so ratios that do not fall never pick up a window that was left out.

    Args:
        blocks: as their adapter sees them.
        ratios: the share of windows that each skips, in [0, 1).
        hw: size of the map in tokens.
        device: where it is.
        route: how it is computed.
        watch: is told what each block keeps: (stage, block, kept windows, where they are).
        rank_over: which windows are ranked together.
    """

    def __init__(
        self,
        blocks: Sequence[WindowBlock],
        ratios: Sequence[float],
        hw: Pair,
        device: torch.device,
        route: Route,
        watch: Watch | None = None,
        rank_over: RankOver = "image",
    ) -> None:
        self.blocks, self.ratios, self.route, self.watch = blocks, ratios, route, watch
        self.hw, self.rank_over, self.images = hw, rank_over, 1
        self.layouts = [window_layout(*hw, b.window, b.shift, device, b.roll_first) for b in blocks]
        windows = (layout.num_windows for layout in self.layouts)
        self.counts = [num_kept(n, ratio) for n, ratio in zip(windows, ratios, strict=True)]
        self.magnitudes_BL: Tensor | None = None
        self._rankings: dict[WindowLayout, Tensor] = {}
        self._windows: dict[tuple[WindowLayout, int, bool], Windows] = {}

    @torch.no_grad()
    def kept(self, i: int, tokens: StageTokens) -> Tensor | None:
        """(B, K) windows that block ``i`` keeps of its input, best first; None where all.

        Where windows of several images are ranked together, a row is of a group of these, and
        window w of its image i is ``i * W + w``.
        """
        if self.ratios[i] > 0 and self.magnitudes_BL is None:
            self.magnitudes_BL = tokens.by_image(self.route.magnitudes(tokens.x_RC))
        layout, count = self.layouts[i], self.counts[i]
        if count == layout.num_windows or self.magnitudes_BL is None:
            return None
        if count == 0:
            return torch.empty(tokens.batch, 0, dtype=torch.long, device=tokens.x_RC.device)
        images = self.images = images_ranked_together(self.rank_over, tokens.batch)
        if layout not in self._rankings:
            alike = zip(self.layouts, self.counts, strict=True)
            most = max(count for other, count in alike if other is layout)
            scores_BW = window_scores(self.magnitudes_BL, layout.token_index_WN)
            scores_BW = scores_BW.view(-1, images * layout.num_windows)
            self._rankings[layout] = rank_windows(scores_BW, images * most)
        return self._rankings[layout][:, : images * count]

    def run(self, i: int, tokens: StageTokens) -> StageTokens:
        """Block ``i`` on the tokens, which it may overwrite."""
        block, layout, kept_BK = self.blocks[i], self.layouts[i], self.kept(i, tokens)
        on_map = self.route.on_map(block, tokens.x_RC) if self.counts[i] else None
        windows = self._located(i, kept_BK, tokens.batch, masks=on_map is None)
        if self.watch is not None:
            self.watch(self, i, kept_BK, windows)
        if windows is None:
            return tokens
        if on_map is not None:
            place_R = tokens.place_R
            x_RC = tokens.x_RC if place_R is None else tokens.x_RC.index_select(0, place_R)
            return replace(tokens, x_RC=on_map(block, x_RC, windows), place_R=None)
        for part in self.route.split(windows, block):
            rows = part.row_MN.flatten()
            rows = rows if tokens.place_R is None else tokens.place_R[rows]
            t_MNC = tokens.x_RC.index_select(0, rows).view(*part.row_MN.shape, -1)
            run = self.route.block
            if block.checkpointed and t_MNC.requires_grad:
                run = partial(checkpoint, run, use_reentrant=False)
            t_MNC = run(block, t_MNC, part, tokens.batch)
            t_RC = t_MNC.flatten(0, 1).to(tokens.x_RC.dtype)
            if part.place_R is not None:
                # every token is new: the list is the map now, in another order
                return StageTokens(tokens.batch, layout, t_RC, part.place_R)
            tokens = replace(tokens, x_RC=self.route.put(tokens.x_RC, rows, t_RC))
        return tokens

    def _located(self, i: int, kept_BK: Tensor | None, batch: int, masks: bool) -> Windows | None:
        """Where a block's windows are, shared by blocks that keep the same; None without any."""
        layout = self.layouts[i]
        if self.counts[i] == 0:
            return None
        if kept_BK is None:
            return all_windows(layout, batch)
        key = (layout, self.counts[i], masks)
        if key not in self._windows:
            self._windows[key] = locate(layout, kept_BK, masks, self.images)
        return self._windows[key]
