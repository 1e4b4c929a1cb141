"""Windows as indices: where the tokens of every window lie in the unshifted map.

A window attention block usually rolls, pads and partitions its whole map, works, and undoes all
three. None of that moves information: it only renames positions. Here the names are computed once
a map size, and a block gathers the tokens of the windows it works on straight from the map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from sparsevit.ops.tracing import exporting, own_tensors

SWIN_MASKED = -100.0
"""What Swin adds to the logits of token pairs that the cyclic shift made neighbours."""
MASKED = -1e4
"""Added here in its place.

Swin adds -100, and the weight exp(-100) of such a pair is a denormal number, which CPUs multiply
ten times as slowly as others. This weight is 0.
"""

Pair = tuple[int, int]
"""(down, across), in tokens."""


def pair(size: int | Sequence[int]) -> Pair:
    """A size given once for both directions, or for each."""
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[-1]))


@dataclass(frozen=True, eq=False)
class WindowLayout:
    """How a (height x width) map falls into windows, for one shift.

    Attributes:
        height, width: size of the map in tokens.
        window: size of a window; ``N = window[0] * window[1]`` tokens a window.
        grid: windows down and across, ``(nH, nW)``.
        token_index_WN: (nH*nW, N) int64. Row in the flattened map of each window's tokens;
            ``height * width`` marks padding.
        is_padding_WN: (nH*nW, N) bool, or None where the map is a multiple of the window.
        edge_kind_W: (nH*nW,) int64, which of the four region masks a window needs (0: none;
            1: last column; 2: last row; 3: the corner). None for the unshifted partition.
        num_edges: how many windows have an ``edge_kind_W`` above 0.
        region_masks_KNN: (4, N, N) float, 0 or ``MASKED``; None for the unshifted partition.
    """

    height: int
    width: int
    window: Pair
    grid: Pair
    token_index_WN: Tensor
    is_padding_WN: Tensor | None
    edge_kind_W: Tensor | None
    num_edges: int
    region_masks_KNN: Tensor | None

    @property
    def num_windows(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def rows(self) -> int:
        """Rows of an image in the flattened map: its tokens, and one that padding shares."""
        return self.height * self.width + int(self.padded)

    @property
    def padded(self) -> bool:
        return self.is_padding_WN is not None


@lru_cache(maxsize=256)
def window_layout(
    height: int,
    width: int,
    window: Pair,
    shift: Pair,
    device: torch.device,
    roll_first: bool = False,
) -> WindowLayout:
    """The layout of a map, built once a size and kept.

    Args:
        height, width: map size in tokens.
        window: size of a window.
        shift: cyclic shift towards the top left, (0, 0) for the plain partition.
        device: where the index tensors live.
        roll_first: shift the map before it is padded, as timm does; else it is padded first.
    """
    grid = math.ceil(height / window[0]), math.ceil(width / window[1])
    padded = (grid[0] * window[0], grid[1] * window[1]) != (height, width)
    shifted = any(shift)
    with own_tensors():
        y = _positions(height, grid[0] * window[0], shift[0], device, roll_first)
        x = _positions(width, grid[1] * window[1], shift[1], device, roll_first)
        outside = (y[:, None] >= height) | (x[None, :] >= width)
        position = (y[:, None] * width + x[None, :]).masked_fill(outside, height * width)
        kinds = _edge_kinds(grid, shift, device)
        return WindowLayout(
            height=height,
            width=width,
            window=window,
            grid=grid,
            token_index_WN=_partition(position, window),
            is_padding_WN=_partition(outside, window) if padded else None,
            edge_kind_W=kinds if shifted else None,
            num_edges=int(kinds.count_nonzero()),
            region_masks_KNN=region_masks(window, shift, device) if shifted else None,
        )


def _positions(
    size: int, padded_size: int, shift: int, device: torch.device, roll_first: bool
) -> Tensor:
    """Which row (or column) of the map is at each place of the shifted one; ``size`` or more for
    padding."""
    place = torch.arange(padded_size, device=device)
    if roll_first:
        return torch.where(place < size, (place + shift) % size, place)
    return (place + shift) % padded_size


def region_masks(window: Pair, shift: Pair, device: torch.device) -> Tensor:
    """The four attention masks of shifted windows, (4, N, N): none, last column, last row, corner.

    After a cyclic shift only the last row and the last column of windows hold tokens from opposite
    ends of the map, and each such window is cut at the same place (Swin, section 3.2): so four
    masks serve every window of every map.
    """
    far_down, far_across = (
        torch.arange(size, device=device) >= size - by
        for size, by in zip(window, shift, strict=True)
    )
    below = far_down.repeat_interleave(window[1])
    right = far_across.repeat(window[0])
    across = right[:, None] != right[None, :]
    along = below[:, None] != below[None, :]
    cut_KNN = torch.stack([torch.zeros_like(across), across, along, across | along])
    return torch.zeros(cut_KNN.shape, device=device).masked_fill(cut_KNN, MASKED)


def _partition(map_HW: Tensor, window: Pair) -> Tensor:
    rows, cols = map_HW.shape[0] // window[0], map_HW.shape[1] // window[1]
    tiles = map_HW.view(rows, window[0], cols, window[1]).permute(0, 2, 1, 3)
    return tiles.reshape(rows * cols, window[0] * window[1])


def _edge_kinds(grid: Pair, shift: Pair, device: torch.device) -> Tensor:
    last_row, last_col = (
        (torch.arange(count, device=device) == count - 1) & bool(by)
        for count, by in zip(grid, shift, strict=True)
    )
    return (2 * last_row[:, None].long() + last_col[None, :].long()).flatten()


# --- lists of windows -----------------------------------------------------------------------------


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
        place_R: (R,) int64, for each row of the map the place of its token in the list, where
            these are all windows of a map; None for a choice of them.
    """

    row_MN: Tensor
    image_M: Tensor
    is_padding_MN1: Tensor | None
    edge_masks_ENN: Tensor | None
    edge_kind_M: Tensor | None = None
    place_R: Tensor | None = None

    @property
    def swin_masks_ENN(self) -> Tensor | None:
        """The masks as Swin has them. Logits of cosine attention are up to 116, and so reach over
        them: there the pairs count that these masks are for."""
        masks = self.edge_masks_ENN
        return None if masks is None else masks * (SWIN_MASKED / MASKED)


@lru_cache(maxsize=64)
def all_windows(layout: WindowLayout, batch: int) -> Windows:
    """Every window of each of ``batch`` images, as :func:`locate` gives them; kept for reuse."""
    with own_tensors():
        device = layout.token_index_WN.device
        windows = locate(layout, torch.arange(layout.num_windows, device=device).repeat(batch, 1))
        rows = windows.row_MN.flatten()
        place_R = rows.new_zeros(batch * layout.rows)
        # padding shares one row: any place of it will do, as no padding is ever read as a token
        place_R[rows] = torch.arange(len(rows), device=device)
        return replace(windows, place_R=place_R)


def locate(layout: WindowLayout, kept_BK: Tensor, masks: bool = True, images: int = 1) -> Windows:
    """Where the tokens of the kept windows are, those windows last that may need a mask.

    Args:
        layout: the partition.
        kept_BK: (B, K) int64 kept windows of each image.
        masks: whether masks are spelled out, and the windows that need one come last.
        images: how many images a row is of: of ``images`` times as many windows, those of one image
            after those of the other.
    """
    groups, K = kept_BK.shape
    B, window_M = groups * images, kept_BK.flatten()
    image_M = kept_BK.new_zeros(K)
    if groups > 1:
        image_M = torch.arange(0, B, images, device=kept_BK.device).repeat_interleave(K)
    if images > 1:
        image_M = image_M + window_M // layout.num_windows
        window_M = window_M % layout.num_windows
    kind_M = masks_ENN = padding_MN1 = None
    if layout.edge_kind_W is not None:
        kind_M = _looked_up(layout.edge_kind_W, window_M)
        if masks and layout.region_masks_KNN is not None:
            # no more of the kept windows than this can be edge windows, so where to split is known
            # without asking the device how many are
            E = min(len(window_M), B * layout.num_edges)
            if len(window_M) > 1:
                order = _edges_last(kind_M)
                window_M, image_M, kind_M = window_M[order], image_M[order], kind_M[order]
            masks_ENN = layout.region_masks_KNN[kind_M[-E:]]
    if layout.is_padding_WN is not None:
        padding_MN1 = layout.is_padding_WN[window_M].unsqueeze(-1)
    row_MN = layout.token_index_WN[window_M]
    if B > 1:
        row_MN = row_MN + image_M.unsqueeze(-1) * layout.rows
    return Windows(row_MN, image_M, padding_MN1, masks_ENN, kind_M)


def _edges_last(kind_M: Tensor) -> Tensor:
    """The order that puts windows that need a mask last and else leaves them as they are."""
    at_edge_M = kind_M.gt(0)
    if not exporting():
        return at_edge_M.byte().sort(stable=True).indices
    # keys that all differ: a stable order from any sort, as exported graphs have no stable one
    M = len(kind_M)
    return (torch.arange(M, device=kind_M.device) + M * at_edge_M).argsort()


def _looked_up(edge_kind_W: Tensor, window_M: Tensor) -> Tensor:
    if len(window_M) == 1:
        # PyTorch 2.13 traces a constant of one element out of a constant table to memory that
        # nobody wrote (FakeTensor's new_empty of a constant), so two of them are looked up
        return edge_kind_W[window_M.expand(2)][:1]
    return edge_kind_W[window_M]
