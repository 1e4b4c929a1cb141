"""Rotated rectangles in a plane: how much they overlap, and which of a crowd to keep.

A rectangle is (x, y, w, l, yaw): its centre, its sides along x and y while yaw is 0, and a turn in
radians, clockwise (as in mmdet3d 0.17).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

PAIRS_AT_ONCE = 2**14
"""Pairs of boxes whose intersection is computed together: some 10 MiB."""


def corners(boxes_N5: Tensor) -> Tensor:
    """(N, 5) -> (N, 4, 2), one after the other around the rectangle."""
    signs_42 = boxes_N5.new_tensor([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    return turned(signs_42 * boxes_N5[:, None, 2:4], boxes_N5[:, 4]) + boxes_N5[:, None, :2]


def turned(points_NP2: Tensor, yaw_N: Tensor) -> Tensor:
    """Points turned clockwise about the origin: (N, P, 2), (N,) radians -> (N, P, 2)."""
    x, y = points_NP2.unbind(-1)
    cos, sin = yaw_N.cos()[:, None], yaw_N.sin()[:, None]
    return torch.stack((x * cos + y * sin, y * cos - x * sin), -1)


def intersection_area(a_P5: Tensor, b_P5: Tensor) -> Tensor:
    """Area that the boxes of each pair share: (P, 5), (P, 5) -> (P,).

    The corners of one, in the frame of the other, are cut off along each of that one's four sides
    (Sutherland and Hodgman, 1974).
    """
    centred = torch.cat((a_P5[:, :2] - b_P5[:, :2], a_P5[:, 2:]), 1)
    points = turned(corners(centred), -b_P5[:, 4])
    half_P2 = b_P5[:, 2:4] / 2
    for axis in (0, 1):
        for side in (1, -1):
            inwards = half_P2[:, None, axis] - side * points[..., axis]
            points = _cut(points, inwards)
    x, y = points.unbind(-1)
    return ((x * y.roll(-1, 1)).sum(1) - (y * x.roll(-1, 1)).sum(1)).abs() / 2


def _cut(points_PV2: Tensor, inwards_PV: Tensor) -> Tensor:
    """Convex polygons without what is beyond a line: (P, V, 2) -> (P, V + 1, 2).

    Polygons of fewer corners repeat one; of none, they have all in one place.

    Args:
        points_PV2: corners around each polygon.
        inwards_PV: their distance from the line, negative beyond it.
    """
    P, V, _ = points_PV2.shape
    after_PV, inside_PV = inwards_PV.roll(-1, 1), inwards_PV >= 0
    crosses_PV = inside_PV != (after_PV >= 0)
    share_PV = inwards_PV / (inwards_PV - after_PV).masked_fill(~crosses_PV, 1)
    crossing_PV2 = points_PV2.lerp(points_PV2.roll(-1, 1), share_PV.unsqueeze(-1))
    # a side leaves its first corner, if inside, and the place where it crosses the line
    candidates = torch.stack((points_PV2, crossing_PV2), 2).flatten(1, 2)
    left = torch.stack((inside_PV, crosses_PV), 2).flatten(1)
    order = left.byte().sort(dim=1, descending=True, stable=True).indices[:, : V + 1]
    place = torch.arange(V + 1, device=left.device)
    order = torch.where(place < left.sum(1, keepdim=True), order, order[:, :1])
    return candidates.gather(1, order.unsqueeze(-1).expand(P, V + 1, 2))


def rotated_iou(a_N5: Tensor, b_M5: Tensor) -> Tensor:
    """Intersection over union of each box with each: (N, 5), (M, 5) -> (N, M).

    Pairs whose circumscribed circles do not meet are not looked at.
    """
    iou_NM = a_N5.new_zeros(len(a_N5), len(b_M5))
    exact = "donot_use_mm_for_euclid_dist"
    distance_NM = torch.cdist(a_N5[:, :2], b_M5[:, :2], compute_mode=exact)
    radius_N, radius_M = (box[:, 2:4].norm(dim=1) / 2 for box in (a_N5, b_M5))
    i_P, j_P = (distance_NM < radius_N[:, None] + radius_M).nonzero(as_tuple=True)
    for i, j in zip(i_P.split(PAIRS_AT_ONCE), j_P.split(PAIRS_AT_ONCE), strict=True):
        a, b = a_N5[i], b_M5[j]
        shared = intersection_area(a, b)
        union = a[:, 2:4].prod(1) + b[:, 2:4].prod(1) - shared
        iou_NM[i, j] = shared / union.clamp(min=torch.finfo(union.dtype).tiny)
    return iou_NM


def rotated_nms(
    boxes_N5: Tensor, scores_N: Tensor, threshold: float, first: int | None, most: int | None
) -> Tensor:
    """Boxes that overlap none of a higher score by more than a threshold, best first: int64.

    Args:
        boxes_N5: (N, 5).
        scores_N: their scores.
        threshold: of the intersection over union.
        first: how many of the best are looked at; None for all.
        most: how many are kept; None for all.
    """
    order = scores_N.argsort(descending=True, stable=True)[:first]
    boxes = boxes_N5[order]
    return order[_greedy(rotated_iou(boxes, boxes) > threshold)[:most]]


def circle_nms(centres_N2: Tensor, scores_N: Tensor, threshold: float, most: int | None) -> Tensor:
    """Boxes with none of a higher score near, best first: int64.

    Args:
        centres_N2: (N, 2).
        scores_N: their scores.
        threshold: of the square of the distance (as in CenterPoint's code; its configs call it
            ``min_radius``).
        most: how many are kept; None for all.
    """
    order = scores_N.argsort(descending=True, stable=True)
    centres = centres_N2[order]
    squares = (centres[:, None] - centres).square().sum(-1)
    return order[_greedy(squares <= threshold)[:most]]


def _greedy(too_near_NN: Tensor) -> Tensor:
    """Which to keep, when each that is kept removes those after it that are too near."""
    too_near = too_near_NN.cpu().numpy()
    removed = np.zeros(len(too_near), dtype=bool)
    kept = []
    for i in range(len(too_near)):
        if not removed[i]:
            kept.append(i)
            removed |= too_near[i]
    return torch.tensor(kept, dtype=torch.long, device=too_near_NN.device)
