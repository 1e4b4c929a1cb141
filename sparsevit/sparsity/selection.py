"""Which windows a ratio keeps."""

from __future__ import annotations

from torch import Tensor


def num_kept(num_windows: int, ratio: float) -> int:
    """How many of ``num_windows`` a block with this ratio works on, truncated as the paper's code
    does (so that its configurations mean the same here)."""
    return int(num_windows * (1 - ratio))


def rank_windows(scores_BW: Tensor, count: int) -> Tensor:
    """The ``count`` best windows of each image, best first: (B, W) -> (B, count) int64.

    A block with a higher ratio keeps a prefix of the list, so one ranking serves a whole stage.
    """
    return scores_BW.topk(count, dim=1).indices
