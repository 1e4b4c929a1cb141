"""What a centre head is to learn from boxes (CenterPoint, arXiv 2006.11275, section 4).

Shapes: n boxes, of which M are of a task; K classes of the task; the map has (H, W) cells. A box is
(x, y, z, w, l, h, yaw, vx, vy), metres and radians.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

CODE_SIZE = 10
"""Numbers that a cell predicts of a box: offsets along x and y, z, logarithms of w, l and h, sine
and cosine of yaw, velocities along x and y."""


@dataclass(frozen=True)
class TargetConfig:
    """A head's ``train_cfg``, which says how its targets are made.

    Attributes:
        origin: (x, y) of the map's first corner, in metres.
        cell: (x, y) size of a cell, in metres.
        size: (H, W) of the map in cells.
        overlap: that a box moved by the Gaussian's radius still has with the true one.
        min_radius: the least radius, in cells.
        max_boxes: of a task.
    """

    origin: tuple[float, float]
    cell: tuple[float, float]
    size: tuple[int, int]
    overlap: float
    min_radius: int
    max_boxes: int

    @classmethod
    def of(cls, cfg: Mapping[str, Any]) -> TargetConfig:
        factor = cfg["out_size_factor"]
        return cls(
            origin=tuple(cfg["point_cloud_range"][:2]),
            cell=tuple(side * factor for side in cfg["voxel_size"][:2]),
            size=(cfg["grid_size"][1] // factor, cfg["grid_size"][0] // factor),
            overlap=cfg["gaussian_overlap"],
            min_radius=cfg["min_radius"],
            max_boxes=cfg["max_objs"] * cfg["dense_reg"],
        )


@dataclass(frozen=True, eq=False)
class TaskTargets:
    """What a task is to learn from one sample.

    Attributes:
        heatmap_KHW: 1 at the cell of a box's centre, falling off as a Gaussian around it.
        code_M: (M, 10) of each box; NaN where its velocity is not known.
        cell_M: (M,) int64, which of the H * W cells predicts it.
    """

    heatmap_KHW: Tensor
    code_M: Tensor
    cell_M: Tensor


def task_targets(
    boxes_n9: Tensor, labels_n: Tensor, classes: Sequence[int], cfg: TargetConfig, log_size: bool
) -> TaskTargets:
    """The targets of one task from the boxes of one sample.

    Boxes of other classes, of no volume, or with a centre outside the map are left out.

    Args:
        boxes_n9: (n, 9).
        labels_n: (n,) their classes.
        classes: K, those of the task, in order.
        cfg: how.
        log_size: whether the logarithm of a size is to be predicted, or the size.
    """
    # class by class, which decides who is left out where there are too many
    of_task = [(labels_n == label).nonzero().flatten() for label in classes]
    boxes = boxes_n9[torch.cat(of_task)][: cfg.max_boxes].float()
    label_M = torch.cat([one.new_full(one.shape, k) for k, one in enumerate(of_task)])
    label_M = label_M[: cfg.max_boxes]
    H, W = cfg.size
    place = (boxes[:, :2] - boxes.new_tensor(cfg.origin)) / boxes.new_tensor(cfg.cell)
    # cut off towards 0, as in the reference: up to a cell before the map counts as its first cell
    on_map = ((place > -1) & (place < place.new_tensor([W, H]))).all(1)
    inside = on_map & (boxes[:, 3:6] > 0).all(1)
    boxes, label_M, place = boxes[inside], label_M[inside], place[inside]

    cell = place.int()
    size = boxes[:, 3:6].log() if log_size else boxes[:, 3:6]
    yaw = boxes[:, 6:7]
    code_M = torch.cat((place - cell, boxes[:, 2:3], size, yaw.sin(), yaw.cos(), boxes[:, 7:9]), 1)
    radius = gaussian_radius(boxes[:, 3:5] / boxes.new_tensor(cfg.cell), cfg.overlap)
    radius = radius.int().clamp(min=cfg.min_radius)
    gaussian_MHW = gaussians(cell, radius, cfg.size)
    none = gaussian_MHW.new_zeros(1, H, W)
    heatmap = [torch.cat((none, gaussian_MHW[label_M == k])).amax(0) for k in range(len(classes))]
    return TaskTargets(torch.stack(heatmap), code_M, cell[:, 1].long() * W + cell[:, 0].long())


def gaussian_radius(size_M2: Tensor, overlap: float) -> Tensor:
    """How far a box of this size (two sides, in cells) may be from its true place, (M, 2) -> (M,).

    The least of three radii at which two boxes still overlap by ``overlap`` (CornerNet,
    arXiv 1808.01244, section 3.2): one over the other's corner, inside it, and around it. Each is
    computed with CornerNet's published formula, which takes a root over 2 where it should be over
    twice the leading coefficient; models were trained so.
    """
    total, area = size_M2.sum(1), size_M2.prod(1)
    share = (1 - overlap) / (1 + overlap)
    corner = (total + (total**2 - 4 * area * share).sqrt()) / 2
    inside = (2 * total + (4 * total**2 - 16 * (1 - overlap) * area).sqrt()) / 2
    b = -2 * overlap * total
    around = (b + (b**2 + 16 * overlap * (1 - overlap) * area).sqrt()) / 2
    return torch.minimum(torch.minimum(corner, inside), around)


def gaussians(centre_M2: Tensor, radius_M: Tensor, size: tuple[int, int]) -> Tensor:
    """(M, 2) cells (x, y) and (M,) radii -> (M, H, W): 1 at the centre, 0 from the radius on.

    The standard deviation is a sixth of the diameter (CornerNet, section 3.2).
    """

    def along(centre_M: Tensor, cells: int) -> Tensor:
        off = (torch.arange(cells, device=centre_M.device) - centre_M[:, None]).abs()
        deviation = (2 * radius_M[:, None] + 1) / 6
        fall = torch.exp(-(off**2) / (2 * deviation**2))
        return fall.masked_fill(off > radius_M[:, None], 0)

    x, y = centre_M2.unbind(1)
    return along(y, size[0]).unsqueeze(2) * along(x, size[1]).unsqueeze(1)
