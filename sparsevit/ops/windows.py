"""Windows as indices: where the tokens of every window lie in the unshifted map.

A window attention block usually rolls, pads and partitions its whole map, works, and undoes all
three. None of that moves information: it only renames positions. Here the names are computed once
a map size, and a block gathers the tokens of the windows it works on straight from the map.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from sparsevit.ops.tracing import own_tensors

MASKED = -1e4
"""Added to the logits of token pairs that the cyclic shift made neighbours.

Swin adds -100, and the weight exp(-100) of such a pair is a denormal number, which CPUs multiply
ten times as slowly as others. This weight is 0.
"""


@dataclass(frozen=True, eq=False)
class WindowLayout:
    """How a (height x width) map falls into windows, for one shift.

    Attributes:
        height, width: size of the map in tokens.
        window_size: side of a window in tokens; ``N = window_size ** 2`` tokens a window.
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
    window_size: int
    grid: tuple[int, int]
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
    height: int, width: int, window_size: int, shift: int, device: torch.device
) -> WindowLayout:
    """The layout of a map, built once a size and kept.

    Args:
        height, width: map size in tokens.
        window_size: side of a window in tokens.
        shift: cyclic shift towards the top left in tokens, 0 for the plain partition.
        device: where the index tensors live.
    """
    rows = math.ceil(height / window_size)
    cols = math.ceil(width / window_size)
    with own_tensors():
        y = (torch.arange(rows * window_size, device=device) + shift) % (rows * window_size)
        x = (torch.arange(cols * window_size, device=device) + shift) % (cols * window_size)
        position = y[:, None] * width + x[None, :]
        outside = (y[:, None] >= height) | (x[None, :] >= width)
        position = position.masked_fill(outside, height * width)
        padded = bool(rows * window_size != height or cols * window_size != width)
        return WindowLayout(
            height=height,
            width=width,
            window_size=window_size,
            grid=(rows, cols),
            token_index_WN=_partition(position, window_size),
            is_padding_WN=_partition(outside, window_size) if padded else None,
            edge_kind_W=_edge_kinds(rows, cols, device) if shift else None,
            num_edges=rows + cols - 1 if shift else 0,
            region_masks_KNN=region_masks(window_size, shift, device) if shift else None,
        )


def region_masks(window_size: int, shift: int, device: torch.device) -> Tensor:
    """The four attention masks of shifted windows, (4, N, N): none, last column, last row, corner.

    After a cyclic shift only the last row and the last column of windows hold tokens from opposite
    ends of the map, and each such window is cut at the same place (Swin, section 3.2): so four
    masks serve every window of every map.
    """
    far = torch.arange(window_size, device=device) >= window_size - shift
    below = far.repeat_interleave(window_size)
    right = far.repeat(window_size)
    across = right[:, None] != right[None, :]
    along = below[:, None] != below[None, :]
    cut_KNN = torch.stack([torch.zeros_like(across), across, along, across | along])
    return torch.zeros(cut_KNN.shape, device=device).masked_fill(cut_KNN, MASKED)


def _partition(map_HW: Tensor, window_size: int) -> Tensor:
    rows, cols = map_HW.shape[0] // window_size, map_HW.shape[1] // window_size
    tiles = map_HW.view(rows, window_size, cols, window_size).permute(0, 2, 1, 3)
    return tiles.reshape(rows * cols, window_size * window_size)


def _edge_kinds(rows: int, cols: int, device: torch.device) -> Tensor:
    last_row = torch.arange(rows, device=device) == rows - 1
    last_col = torch.arange(cols, device=device) == cols - 1
    return (2 * last_row[:, None].long() + last_col[None, :].long()).flatten()
