"""Splat (Lift, Splat, Shoot, arXiv 2008.05711, section 3.2): features of camera pixels, weighted by
their depths, summed into the cells of a grid seen from above.

A pixel has one feature and a weight at each depth, so a cell's sum is one of (weight, pixel) pairs.
The product of the two, which is as large as all points times all channels, is never made: sorted by
cell once for a set of cameras, the pairs are bags of an :func:`~torch.nn.functional.embedding_bag`,
which reads a row, multiplies and adds. No order of adding depends on the number of threads.

Shapes: Q pixels of all cameras and samples, D depths, C channels, K cells of all samples, P points
that lie in the grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, eq=False)
class PoolingPlan:
    """Which points are in which cell.

    Attributes:
        cell_QD: (Q, D) int32 cell of each point; K where it is outside.
        point_P: (P,) int32 points within the grid, ``pixel * D + depth``, sorted by cell.
        pixel_P: (P,) int32, the pixel of each.
        start_K: (K,) int32, where in that list the points of a cell begin.
    """

    cell_QD: Tensor
    point_P: Tensor
    pixel_P: Tensor
    start_K: Tensor


def plan_pooling(cell_QD: Tensor, num_cells: int) -> PoolingPlan:
    """Sort points by cell, and those of a cell by their number.

    Args:
        cell_QD: (Q, D) whole numbers, the cell of each point; ``num_cells`` where it is outside.
        num_cells: K.
    """
    cell_P, point_P = cell_QD.flatten().sort(stable=True)
    count_K = torch.bincount(cell_P, minlength=num_cells + 1)[:num_cells]
    inside = int(count_K.sum())
    point_P = point_P[:inside].int()
    return PoolingPlan(
        cell_QD=cell_QD.int(),
        point_P=point_P,
        pixel_P=point_P // cell_QD.shape[1],
        start_K=(count_K.cumsum(0) - count_K).int(),
    )


def pool(weight_QD: Tensor, x_QC: Tensor, plan: PoolingPlan) -> Tensor:
    """The sum in each cell of its points' weights times their pixels' features.

    Args:
        weight_QD: (Q, D) float32.
        x_QC: (Q, C) float32.
        plan: of :func:`plan_pooling`.

    Returns:
        (K, C); zeros in a cell without points.
    """
    pooled: Tensor = _Pool.apply(weight_QD, x_QC.contiguous(), plan)
    return pooled


def pool_by_index(weight_QD: Tensor, x_QC: Tensor, cell_QD: Tensor, num_cells: int) -> Tensor:
    """What :func:`pool` computes, in one addition by index that graph runtimes know; it needs no
    plan, and the memory of all products.

    Args:
        weight_QD, x_QC: as in :func:`pool`.
        cell_QD: as in :func:`plan_pooling`.
        num_cells: K.
    """
    product_PC = (weight_QD.unsqueeze(-1) * x_QC.unsqueeze(1)).flatten(0, 1)
    # points outside the grid have a row of their own, which is left away
    sums = x_QC.new_zeros(num_cells + 1, x_QC.shape[1])
    return sums.index_put((cell_QD.flatten(),), product_PC, accumulate=True)[:num_cells]


class _Pool(torch.autograd.Function):
    """:func:`pool`, with a backward of its own: that of ``embedding_bag`` finds out anew which
    points are a pixel's, and takes over twice as long."""

    @staticmethod
    def forward(ctx: Any, weight_QD: Tensor, x_QC: Tensor, plan: PoolingPlan) -> Tensor:
        ctx.save_for_backward(weight_QD, x_QC)
        ctx.plan = plan
        weight_P = weight_QD.flatten().index_select(0, plan.point_P)
        return F.embedding_bag(
            plan.pixel_P, x_QC, plan.start_K, mode="sum", per_sample_weights=weight_P
        )

    @staticmethod
    def backward(ctx: Any, grad_KC: Tensor) -> tuple[Tensor, Tensor, None]:
        weight_QD, x_QC = ctx.saved_tensors
        # the last row, of zeros, is what points outside the grid get
        grad_KC = F.pad(grad_KC, (0, 0, 0, 1))
        with torch.enable_grad():
            weight_QD = weight_QD.detach().contiguous().requires_grad_()
            # each pixel adds up what its depths' cells have: a pooling the other way round
            grad_QC = F.embedding_bag(
                ctx.plan.cell_QD, grad_KC, mode="sum", per_sample_weights=weight_QD
            )
        # its derivative along x is <gradient of the cell, x of the pixel>, a weight's gradient
        (grad_QD,) = torch.autograd.grad(grad_QC, weight_QD, x_QC)
        return grad_QD, grad_QC.detach(), None
