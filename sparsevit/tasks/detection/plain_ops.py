"""NMS and multi-level RoIAlign in PyTorch alone and with fixed shapes, for ahead-of-time compilers.

What takes as many steps as the image asks for is a ``while_loop``, which stays a loop in a graph.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch._higher_order_ops.while_loop import while_loop

ROIS_A_LOOP = 128
"""RoIs that take samples together, as many as the one among them that needs most."""


def greedy_nms(boxes: Tensor, scores: Tensor, iou_threshold: float, count: int) -> Tensor:
    """The boxes that greedy NMS keeps, of those that score 0 or more: one a step, the best that is
    left, which then suppresses the rest. So no box is compared with one that is not kept.

    Args:
        boxes: (N, 4) x1, y1, x2, y2. scores: (N,).
        iou_threshold: a box goes where its IoU with a kept one is above this.
        count: how many to give out.

    Returns:
        (count,) int64 indices, best first; -1 where fewer are kept.
    """
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    number = torch.arange(boxes.shape[0], device=boxes.device)
    place = torch.arange(count, device=boxes.device)

    def more(step: Tensor, left: Tensor, kept: Tensor) -> Tensor:
        return (step < count) & (left.max() >= 0)

    def take_best(step: Tensor, left: Tensor, kept: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        best = left.argmax().reshape(1)
        box = boxes.index_select(0, best)
        sides = torch.minimum(box[:, 2:], boxes[:, 2:]) - torch.maximum(box[:, :2], boxes[:, :2])
        sides = sides.clamp(min=0)
        shared = sides[:, 0] * sides[:, 1]
        overlap = shared / (areas.index_select(0, best) + areas - shared)
        gone = (overlap > iou_threshold) | (number == best)
        left = torch.where(gone, torch.full_like(left, -1), left)
        return step + 1, left, torch.where(place == step, best, kept)

    first = torch.zeros((), dtype=torch.int64, device=boxes.device)
    none = torch.full((count,), -1, device=boxes.device)
    _, _, kept = while_loop(more, take_best, (first, scores.clone(), none))
    return kept


def roi_align(
    maps: Sequence[Tensor],
    rois: Tensor,
    level: Tensor,
    scales: Sequence[float],
    bins: tuple[int, int],
    sampling_ratio: int,
    aligned: bool,
) -> tuple[Tensor, Tensor]:
    """RoIAlign's average of RoIs on different levels: all levels are one table of pixels, and a
    sample reads four rows of it.

    Args:
        maps: by level, (B, C, H, W).
        rois: (R, 5): image, x1, y1, x2, y2 in pixels of the image.
        level: (R,) int64, the map that each is cut from.
        scales: by level, pixels of the map per pixel of the image.
        bins: (height, width) of the output.
        sampling_ratio: samples of a bin along an axis; 0 takes ceil(bin size).
        aligned: shift by half a pixel.

    Returns:
        features (R, C, height, width) and the order (R,) int64 in which RoIs come: those that need
        few samples first.
    """
    B, C = maps[0].shape[:2]
    table = torch.cat([one.permute(0, 2, 3, 1).reshape(B, -1, C) for one in maps], dim=1)
    pixels = table.shape[1]
    sides = [one.shape[-2:] for one in maps]
    firsts = [sum(h * w for h, w in sides[:index]) for index in range(len(sides))]

    def by_level(values: Sequence[float], dtype: torch.dtype) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=rois.device)[level]

    first = rois[:, 0].to(torch.int64) * pixels + by_level(firsts, torch.int64)
    corners = rois[:, 1:] * by_level(scales, rois.dtype)[:, None] - (0.5 if aligned else 0.0)
    axes = [
        _axis(corners[:, low], corners[:, high], count, sampling_ratio, aligned)
        for low, high, count in ((1, 3, bins[0]), (0, 2, bins[1]))
    ]
    height = by_level([one[0] for one in sides], torch.int64)
    width = by_level([one[1] for one in sides], torch.int64)
    samples, order = (axes[0][2] * axes[1][2]).sort()
    columns = [
        *(column[order] for column in (first, height, width)),
        samples,
        *(column[order] for axis in axes for column in axis),
    ]
    table = table.reshape(-1, C)
    parts = zip(*(column.split(ROIS_A_LOOP) for column in columns), strict=True)
    return torch.cat([_sampled(table, bins, part) for part in parts]), order


def _axis(
    low: Tensor, high: Tensor, bins: int, sampling_ratio: int, aligned: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Start, bin size and samples a bin of each RoI along an axis, rounded as mmcv does."""
    length = high - low if aligned else (high - low).clamp(min=1)
    size = length / bins
    if sampling_ratio > 0:
        return low, size, torch.full_like(size, sampling_ratio, dtype=torch.int64)
    return low, size, size.ceil().clamp(min=0).to(torch.int64)


def _sampled(table: Tensor, bins: tuple[int, int], columns: Sequence[Tensor]) -> Tensor:
    """The mean of the samples of RoIs, (n, C, height, width); one sample of every bin a step."""
    first, height, width, samples, top, row_size, rows, left, column_size, in_row = columns
    n, C = first.shape[0], table.shape[1]

    def more(step: Tensor, total: Tensor) -> Tensor:
        return step < samples.max()

    def add_sample(step: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        across = in_row.clamp(min=1)
        y = _positions(top, row_size, rows, step // across, bins[0])
        x = _positions(left, column_size, in_row, step % across, bins[1])
        y_low, y_high, y_share = _taps(y, height)
        x_low, x_high, x_share = _taps(x, width)
        # a RoI that has all its samples is given no more
        wanted = (step < samples).to(y.dtype)[:, None]
        for row, row_share in zip((y_low, y_high), y_share, strict=True):
            row_share = row_share * wanted
            for column, column_share in zip((x_low, x_high), x_share, strict=True):
                index = (first[:, None] + row * width[:, None])[:, :, None] + column[:, None]
                share = row_share[:, :, None] * column_share[:, None]
                read = table.index_select(0, index.reshape(-1)).view(n, *bins, C)
                total = total + read * share[..., None]
        return step + 1, total

    start = torch.zeros((), dtype=torch.int64, device=table.device)
    _, total = while_loop(more, add_sample, (start, table.new_zeros(n, *bins, C)))
    mean = total / samples.clamp(min=1).to(total.dtype)[:, None, None, None]
    return mean.permute(0, 3, 1, 2)


def _positions(start: Tensor, size: Tensor, grid: Tensor, sample: Tensor, bins: int) -> Tensor:
    """(n, bins) positions of one sample of each bin."""
    bin_number = torch.arange(bins, device=start.device, dtype=start.dtype)
    within = (sample.to(start.dtype) + 0.5) * size / grid.clamp(min=1).to(start.dtype)
    return start[:, None] + bin_number * size[:, None] + within[:, None]


def _taps(positions: Tensor, size: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """The two pixels that samples (n, bins) read along an axis of ``size`` (n,), and shares."""
    last = (size - 1)[:, None]
    inside = (positions >= -1) & (positions <= size[:, None])
    at = torch.where(inside, positions, torch.zeros_like(positions)).clamp(min=0)
    at = torch.minimum(at, last.to(at.dtype))
    low = at.to(torch.int64)
    fraction = at - low.to(at.dtype)
    keep = inside.to(at.dtype)
    high = torch.minimum(low + 1, last)
    return low, high, ((1 - fraction) * keep, fraction * keep)
