"""Ways to sum up weighted pixels by cell, all from a view transformer's depths and features."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sparsevit.models.bev import Cameras, ViewTransformerLiftSplatShoot
from sparsevit.ops.bev_pool import plan_pooling, pool, pool_by_index

Way = Callable[[Tensor, Tensor], Tensor]
"""(B * N, D, h, w) share of each depth, (B * N, C, h, w) features -> (B, C, ny, nx)."""
REFERENCE = "cumulative sum, sorted each time (the reference's)"
OURS = "ours, sorted once"


def ways(view: ViewTransformerLiftSplatShoot, cameras: Cameras) -> dict[str, Way]:
    """By name, the reference's first.

    "Sorted once" leaves out what depends on the cameras alone; "each time" pays for it at every
    call, apart from the geometry, which is the same work for all.
    """
    batch, (_, ny, nx) = len(cameras.trans), view.grid
    num_cells = batch * ny * nx
    cell_BQD = view.cells(cameras)
    cell_QD = cell_BQD.flatten(0, 1).int()
    # the reference's points lie camera by camera, depth by depth
    h, w = view.frustum.shape[1:3]
    cell_P = cell_BQD.unflatten(1, (-1, h, w)).permute(0, 1, 4, 2, 3).flatten()
    plan = view.plan(cameras)
    order_P = cell_P.argsort(stable=True)[: len(plan.point_P)]
    sorted_P = cell_P[order_P]
    count_K = torch.bincount(sorted_P, minlength=num_cells)

    def as_map(sums_KC: Tensor) -> Tensor:
        return sums_KC.view(batch, ny, nx, -1).permute(0, 3, 1, 2).contiguous()

    def product(weight: Tensor, x: Tensor) -> Tensor:
        """Of every point, (P, C), in the reference's order."""
        volume = weight.unsqueeze(1) * x.unsqueeze(2)
        return volume.permute(0, 2, 3, 4, 1).reshape(-1, x.shape[1])

    def rows(weight: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """(Q, D) and (Q, C), pixel by pixel."""
        return tuple(one.permute(0, 2, 3, 1).flatten(0, 2) for one in (weight, x))

    def cumulative_each_time(weight: Tensor, x: Tensor) -> Tensor:
        product_PC, inside = product(weight, x), cell_P < num_cells
        product_PC, cell = product_PC[inside], cell_P[inside]
        order = cell.argsort()
        return as_map(cumulative(product_PC[order], cell[order]))

    def cumulative_once(weight: Tensor, x: Tensor) -> Tensor:
        return as_map(cumulative(product(weight, x)[order_P], sorted_P))

    def cumulative(product_PC: Tensor, cell: Tensor) -> Tensor:
        sums, cells = CumulativeSum.apply(product_PC, cell)
        empty = product_PC.new_zeros(num_cells, product_PC.shape[1])
        return empty.index_copy(0, cells, sums)

    def by_index(weight: Tensor, x: Tensor) -> Tensor:
        sums = x.new_zeros(num_cells + 1, x.shape[1])
        return as_map(sums.index_add(0, cell_P, product(weight, x))[:num_cells])

    def by_scatter(weight: Tensor, x: Tensor) -> Tensor:
        product_PC = product(weight, x)
        sums = x.new_zeros(num_cells + 1, x.shape[1])
        index = cell_P.unsqueeze(1).expand_as(product_PC)
        return as_map(sums.scatter_add(0, index, product_PC)[:num_cells])

    def by_segment(weight: Tensor, x: Tensor) -> Tensor:
        weight_QD, x_QC = rows(weight, x)
        weight_P = weight_QD.flatten().index_select(0, plan.point_P)
        product_PC = x_QC.index_select(0, plan.pixel_P) * weight_P.unsqueeze(1)
        return as_map(torch.segment_reduce(product_PC, "sum", lengths=count_K, unsafe=True))

    def by_sparse_matrix(weight: Tensor, x: Tensor) -> Tensor:
        weight_QD, x_QC = rows(weight, x)
        weight_P = weight_QD.flatten().index_select(0, plan.point_P)
        ends = F.pad(count_K.cumsum(0), (1, 0)).int()
        size = (num_cells, len(x_QC))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # a pixel may be in a cell at several depths, so its columns repeat: fine for a product
            matrix = torch.sparse_csr_tensor(
                ends, plan.pixel_P, weight_P, size, check_invariants=False
            )
            return as_map(matrix @ x_QC)

    def by_bags(weight: Tensor, x: Tensor) -> Tensor:
        weight_QD, x_QC = rows(weight, x)
        weight_P = weight_QD.flatten().index_select(0, plan.point_P)
        bags = F.embedding_bag(
            plan.pixel_P, x_QC, plan.start_K, mode="sum", per_sample_weights=weight_P
        )
        return as_map(bags)

    def ours(weight: Tensor, x: Tensor) -> Tensor:
        return as_map(pool(*rows(weight, x), plan))

    def ours_each_time(weight: Tensor, x: Tensor) -> Tensor:
        return as_map(pool(*rows(weight, x), plan_pooling(cell_QD, num_cells)))

    def exported(weight: Tensor, x: Tensor) -> Tensor:
        return as_map(pool_by_index(*rows(weight, x), cell_QD.long(), num_cells))

    return {
        REFERENCE: cumulative_each_time,
        "cumulative sum, sorted once": cumulative_once,
        "index_add": by_index,
        "scatter_add": by_scatter,
        "segment_reduce, sorted once": by_segment,
        "sparse matrix, sorted once": by_sparse_matrix,
        "embedding_bag with its own backward, sorted once": by_bags,
        "ours, to be exported": exported,
        "ours, sorted each time": ours_each_time,
        OURS: ours,
    }


FORWARD_ONLY = {
    "sparse matrix, sorted once": "its backward does not take a pixel twice in a row of the matrix",
}
"""Ways that cannot be trained, and why."""


class CumulativeSum(torch.autograd.Function):
    """Sums of runs of equal cells as differences of one cumulative sum (LSS, section 4.2).

    Gives (cells that have a point, C) and these cells.
    """

    @staticmethod
    def forward(ctx: Any, product_PC: Tensor, cell_P: Tensor) -> tuple[Tensor, Tensor]:
        last = torch.ones_like(cell_P, dtype=torch.bool)
        last[:-1] = cell_P[1:] != cell_P[:-1]
        sums = product_PC.cumsum(0)[last]
        sums[1:] = sums[1:] - sums[:-1]
        ctx.save_for_backward(last)
        cells = cell_P[last]
        ctx.mark_non_differentiable(cells)
        return sums, cells

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None]:
        (last,) = ctx.saved_tensors
        run = last.cumsum(0) - last.long()
        return grad[run], None
