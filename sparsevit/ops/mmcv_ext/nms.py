"""Greedy non-maximum suppression: ``nms``, ``softnms`` and ``nms_match`` of ``mmcv._ext``.

The order of every float operation is compiled mmcv's, so that a box at the threshold falls on the
same side: kept indices are identical, not merely close.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Boxes decided at once, and boxes compared with them at once: small enough for a core's cache, and
# the most memory that any number of boxes takes.
BLOCK, CHUNK = 256, 2048
DEVICE_BLOCK, DEVICE_CHUNK = 2048, 8192

NAIVE, LINEAR, GAUSSIAN = 0, 1, 2


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """The boxes that greedy NMS keeps, best first.

    Args:
        boxes: (n, 4), x1, y1, x2, y2. scores: (n,).
        iou_threshold: a box goes where its IoU with a kept one is above this.
        offset: 0, or 1 where x2 and y2 are the last pixels inside.

    Returns:
        int64 indices into ``boxes``. Equal scores are taken in the order given.
    """
    if boxes.numel() == 0:
        return torch.empty(0, dtype=torch.int64, device=boxes.device)
    order = scores.detach().sort(stable=True, dim=0, descending=True).indices
    corners = _as_float(boxes)
    if boxes.device.type != "cpu":
        return order[greedy_on_device(corners[order], iou_threshold, offset)]
    # Indexing by NumPy too: torch's starts its threads for it, however few the boxes.
    best_first = order.numpy()
    kept = _greedy(corners.numpy()[best_first], iou_threshold, offset)
    return torch.from_numpy(best_first[kept])


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft-NMS (Bodla et al., 2017): lowers the score of a box by its overlap with better ones.

    Args:
        boxes: (n, 4) and scores: (n,), on CPU.
        dets: (n, 5) on CPU; its first rows become the kept boxes with their new scores, best first.
        iou_threshold: methods 0 and 1 act on overlaps of this and more.
        sigma: width of method 2.
        min_score: a box whose score falls below is dropped.
        method: 0 naive (score 0), 1 linear (times 1 - IoU), 2 gaussian (times exp(-IoU^2 / sigma)).
        offset: as for :func:`nms`.

    Returns:
        int64 indices of kept boxes, as many as rows written.
    """
    n = boxes.size(0)
    if n == 0:
        return torch.empty(0, dtype=torch.int64)
    corners = _as_float(boxes).numpy().copy()
    areas = _areas(corners, offset)
    score = _as_float(scores).numpy().copy()
    score = score.astype(corners.dtype, copy=False)
    index = np.arange(n)
    columns = (corners, areas, score, index)
    left, done = n, 0
    while done < left:
        best = done + _first_largest(score[done:left])
        for column in columns:
            column[[done, best]] = column[[best, done]]
        rest = slice(done + 1, left)
        overlap = _iou(corners[done], areas[done], corners[rest], areas[rest], offset)
        score[rest] *= _decay(overlap, iou_threshold, sigma, method)
        left = done + 1 + _drop(score[rest] < min_score, [column[rest] for column in columns])
        done += 1
    result = np.concatenate([corners[:left], score[:left, None]], axis=1)
    dets[:left] = torch.from_numpy(result).to(dets.dtype)
    return torch.from_numpy(index[:left])


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Groups of boxes: each kept one, then those it suppresses (IoU of at least the threshold).

    Args:
        dets: (n, 5), x1, y1, x2, y2, score, on CPU.
    """
    values = _as_float(dets)
    order = values[:, 4].sort(stable=True, dim=0, descending=True).indices.numpy()
    corners = values[:, :4].numpy()
    areas = _areas(corners, 0)
    threshold = corners.dtype.type(iou_threshold)
    groups = []
    while order.size:
        best, order = order[0], order[1:]
        overlap = _iou(corners[best], areas[best], corners[order], areas[order], 0)
        matched = overlap >= threshold
        groups.append([int(best), *order[matched].tolist()])
        order = order[~matched]
    return groups


def _as_float(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _areas(corners: Any, offset: int) -> Any:
    x1, y1, x2, y2 = corners[..., 0], corners[..., 1], corners[..., 2], corners[..., 3]
    return (x2 - x1 + offset) * (y2 - y1 + offset)


# NumPy, for CPU tensors: its small operations cost a fifth of torch's.


def _iou(box: np.ndarray, area: Any, others: np.ndarray, areas: np.ndarray, offset: int) -> Any:
    """IoU of boxes (..., 1 or m, 4) with others (m, 4); NaN where both are empty."""
    width = np.minimum(box[..., 2], others[:, 2])
    width -= np.maximum(box[..., 0], others[:, 0])
    height = np.minimum(box[..., 3], others[:, 3])
    height -= np.maximum(box[..., 1], others[:, 1])
    if offset:
        width += offset
        height += offset
    inter = np.maximum(width, 0, out=width)
    inter *= np.maximum(height, 0, out=height)
    union = np.add(area, areas, out=height)
    union -= inter
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.divide(inter, union, out=inter)


def _chunks(index: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for first in range(0, len(index), size):
        yield index[first : first + size]


def _greedy(boxes: np.ndarray, iou_threshold: float, offset: int) -> np.ndarray:
    """Which of the boxes (n, 4), best first, stay: (n,) bool."""
    areas = _areas(boxes, offset)
    threshold = boxes.dtype.type(iou_threshold)
    alive = np.ones(len(boxes), dtype=bool)

    def overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        box, area = boxes[first][:, None], areas[first][:, None]
        return _iou(box, area, boxes[second], areas[second], offset) > threshold

    for start in range(0, len(boxes), BLOCK):
        stop = start + BLOCK
        block = start + np.flatnonzero(alive[start:stop])
        stays = _resolve(overlaps(block, block))
        alive[block[~stays]] = False
        kept = block[stays]
        for rest in _chunks(stop + np.flatnonzero(alive[stop:]), CHUNK):
            alive[rest[overlaps(kept, rest).any(axis=0)]] = False
    return alive


def _resolve(suppresses: np.ndarray) -> np.ndarray:
    """Greedy choice given which box suppresses which later one: (k, k) bool -> (k,) bool."""
    later = np.triu(suppresses, 1)
    removed = np.zeros(len(later), dtype=bool)
    for row in np.flatnonzero(later.any(axis=1)):
        if not removed[row]:
            removed |= later[row]
    return ~removed


def _first_largest(score: np.ndarray) -> int:
    # A scan for `largest < score` from the first on: NaN never wins, and never loses its place.
    if np.isnan(score[0]):
        return 0
    return int(np.where(np.isnan(score), -np.inf, score).argmax())


def _decay(overlap: np.ndarray, iou_threshold: float, sigma: float, method: int) -> np.ndarray:
    if method == GAUSSIAN:
        return np.exp(-(overlap * overlap) / overlap.dtype.type(sigma))
    overlapping = overlap >= overlap.dtype.type(iou_threshold)
    lowered = 1 - overlap if method == LINEAR else np.zeros_like(overlap)
    return np.where(overlapping, lowered, overlap.dtype.type(1))


def _drop(dropped: np.ndarray, columns: list[np.ndarray]) -> int:
    """Moves survivors to the front of the columns, in place; returns how many there are.

    Each gap takes the last survivor, as a scan that overwrites a dropped box with the last one
    leaves it: which of two equal scores comes first depends on this order.
    """
    survivors = len(dropped) - int(dropped.sum())
    gaps = np.flatnonzero(dropped[:survivors])
    fill = (survivors + np.flatnonzero(~dropped[survivors:]))[::-1]
    for column in columns:
        column[gaps] = column[fill]
    return survivors


# Torch, for other devices


def greedy_on_device(boxes: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """As the NumPy one, on any device, without its loop: (n, 4), best first -> (n,) bool.

    The test is that of mmcv's CUDA kernel, a product in place of the quotient.
    """
    areas = _areas(boxes, offset)
    alive = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)

    def overlaps(first: Tensor, second: Tensor) -> Tensor:
        one, other = boxes[first][:, None], boxes[second]
        width = torch.minimum(one[..., 2], other[:, 2]) - torch.maximum(one[..., 0], other[:, 0])
        height = torch.minimum(one[..., 3], other[:, 3]) - torch.maximum(one[..., 1], other[:, 1])
        inter = (width + offset).clamp(min=0) * (height + offset).clamp(min=0)
        return inter > iou_threshold * (areas[first][:, None] + areas[second] - inter)

    for start in range(0, len(boxes), DEVICE_BLOCK):
        stop = start + DEVICE_BLOCK
        block = start + alive[start:stop].nonzero().squeeze(1)
        stays = resolve_on_device(overlaps(block, block))
        alive[block[~stays]] = False
        kept = block[stays]
        for rest in (stop + alive[stop:].nonzero().squeeze(1)).split(DEVICE_CHUNK):
            alive[rest] = ~overlaps(kept, rest).any(dim=0)
    return alive


def resolve_on_device(suppresses: Tensor) -> Tensor:
    """Greedy choice as the one fixed point of "stays where nothing that stays suppresses it".

    The first box is right from the start, and each round makes at least one more right, so that it
    ends; in practice after as many rounds as the longest chain of boxes that decide on one another.
    """
    later = suppresses.triu(1)
    stays = torch.ones(len(later), dtype=torch.bool, device=later.device)
    while True:
        now = ~(later & stays[:, None]).any(dim=0)
        if torch.equal(now, stays):
            return stays
        stays = now
