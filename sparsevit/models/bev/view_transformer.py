"""From images to a map seen from above: Lift, Splat, Shoot (arXiv 2008.05711), as BEVDet has it
(arXiv 2112.11790, section 3.2).

Shapes: B samples, N cameras, D depths, (h, w) pixels of a feature map, Q = N * h * w of a sample,
C channels; the grid has (nz, ny, nx) cells.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from sparsevit.errors import UserError
from sparsevit.ops.bev_pool import PoolingPlan, plan_pooling, pool, pool_by_index
from sparsevit.ops.tracing import exporting, own_tensors


class Cameras(NamedTuple):
    """How the cameras of a batch see, float32.

    Attributes:
        rots: (B, N, 3, 3) from a camera's axes to those of the frame that boxes are in.
        trans: (B, N, 3) where it is in that frame, in metres.
        intrins: (B, N, 3, 3) from its axes to pixels of the image as it was taken.
        post_rots, post_trans: (B, N, 3, 3) and (B, N, 3), from those pixels to pixels of the image
            as the network gets it: ``post_rots @ (x, y, 1) + post_trans``.
    """

    rots: Tensor
    trans: Tensor
    intrins: Tensor
    post_rots: Tensor
    post_trans: Tensor

    @classmethod
    def of(cls, inputs: Mapping[str, Tensor]) -> Cameras:
        """Those of a model's inputs."""
        return cls(*(inputs[name].float() for name in cls._fields))


@MODELS.register_module()
class ViewTransformerLiftSplatShoot(BaseModule):
    """Spreads the features of each pixel along its ray, and adds them up in the cells they reach.

    Args:
        grid_config: ``xbound``, ``ybound``, ``zbound``: (from, to, size of a cell) in metres;
            ``dbound``: (nearest, beyond the farthest, step) of the depths. None for +-51.2 m in
            cells of 0.8 m, 20 m high, and depths of 1 to 59 m by 1 m.
        data_config: ``input_size``: (height, width) of the images; None for 256 x 704.
        numC_input: channels of the features that come in.
        numC_Trans: C, of those that go out.
        downsample: stride of the features.
        init_cfg: of mmengine.
    """

    dx: Tensor
    bx: Tensor
    nx: Tensor
    frustum: Tensor

    def __init__(
        self,
        grid_config: Mapping[str, Sequence[float]] | None = None,
        data_config: Mapping[str, Any] | None = None,
        numC_input: int = 512,
        numC_Trans: int = 64,
        downsample: int = 16,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg)
        grid = grid_config or {
            "xbound": (-51.2, 51.2, 0.8),
            "ybound": (-51.2, 51.2, 0.8),
            "zbound": (-10.0, 10.0, 20.0),
            "dbound": (1.0, 60.0, 1.0),
        }
        bounds = [grid[f"{axis}bound"] for axis in "xyz"]
        self.input_size = tuple((data_config or {"input_size": (256, 704)})["input_size"])
        self.D, self.C = len(torch.arange(*grid["dbound"])), numC_Trans
        sizes = [round((end - start) / step) for start, end, step in bounds]
        self.grid = (sizes[2], sizes[1], sizes[0])
        # not to be learned, but in the reference's checkpoints
        self.register_buffer("dx", torch.tensor([step for _, _, step in bounds]))
        self.register_buffer("bx", torch.tensor([start + step / 2 for start, _, step in bounds]))
        self.register_buffer("nx", torch.tensor(sizes, dtype=torch.float32))
        self.register_buffer("frustum", frustum(self.input_size, downsample, grid["dbound"]))
        self.depthnet = nn.Conv2d(numC_input, self.D + numC_Trans, kernel_size=1)
        self._kept: tuple[Tensor, PoolingPlan] | None = None

    def forward(self, x: Tensor, cameras: Cameras) -> Tensor:
        """(B, N, numC_input, h, w) features -> (B, C * nz, ny, nx) seen from above.

        Raises:
            UserError: the images have another size than ``input_size``.
        """
        weight_BQD, x_BQC = self.lift(x)
        if exporting():
            return self.splat(weight_BQD, x_BQC, self.cells(cameras))
        return self.splat(weight_BQD, x_BQC, self.plan(cameras))

    def lift(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, numC_input, h, w) -> (B, Q, D) share of each depth and (B, Q, C) features."""
        if x.shape[-2:] != self.frustum.shape[1:3]:
            raise UserError(
                f"The view transformer was made for features of {tuple(self.frustum.shape[1:3])} "
                f"(images of {self.input_size}), and got some of {tuple(x.shape[-2:])}.",
                "Set img_view_transformer.data_config.input_size to the size of the images.",
            )
        both = self.depthnet(x.flatten(0, 1)).unflatten(0, x.shape[:2]).permute(0, 1, 3, 4, 2)
        weight_BQD, x_BQC = both.flatten(1, 3).float().split((self.D, self.C), dim=-1)
        return weight_BQD.softmax(-1), x_BQC

    def splat(self, weight_BQD: Tensor, x_BQC: Tensor, cells: PoolingPlan | Tensor) -> Tensor:
        """What :meth:`lift` gave, summed up by cell -> (B, C * nz, ny, nx).

        Args:
            weight_BQD, x_BQC: of :meth:`lift`.
            cells: of :meth:`plan`; of :meth:`cells` in a graph that is to be exported.
        """
        weight_QD, x_QC, B = weight_BQD.flatten(0, 1), x_BQC.flatten(0, 1), len(x_BQC)
        if isinstance(cells, PoolingPlan):
            sums_KC = pool(weight_QD, x_QC, cells)
        else:
            num_cells = B * math.prod(self.grid)
            sums_KC = pool_by_index(weight_QD, x_QC, cells.flatten(0, 1), num_cells)
        return sums_KC.view(B, *self.grid, self.C).permute(0, 1, 4, 2, 3).flatten(1, 2).contiguous()

    def plan(self, cameras: Cameras) -> PoolingPlan:
        """Which pixel reaches which cell at which depth, sorted by cell.

        In evaluation the last one is kept, and serves as long as the cameras have the same values.
        """
        if self.training:
            return self._plan(cameras)
        with own_tensors():
            values = torch.cat([part.flatten(1) for part in cameras], dim=1)
            if self._kept is not None:
                known, plan = self._kept
                if known.device == values.device and torch.equal(known, values):
                    return plan
            plan = self._plan(cameras)
        self._kept = (values, plan)
        return plan

    def _plan(self, cameras: Cameras) -> PoolingPlan:
        cell_QD = self.cells(cameras).flatten(0, 1).int()
        return plan_pooling(cell_QD, len(cameras.trans) * math.prod(self.grid))

    @torch.no_grad()
    def get_geometry(
        self, rots: Tensor, trans: Tensor, intrins: Tensor, post_rots: Tensor, post_trans: Tensor
    ) -> Tensor:
        """Where the points of each camera's frustum are: (B, N, D, h, w, 3), in metres.

        A point is a pixel and a depth. What augmentation did to the image is undone; then the pixel
        is a direction, and direction times depth is a point (LSS, section 3.1).
        """
        # a cell is small beside the scene, and rounding to 16 bits would move points between cells
        with torch.autocast(rots.device.type, enabled=False):
            points = self.frustum.float().flatten(0, 2) - post_trans.unsqueeze(2)
            points = points @ inverse_3x3(post_rots).mT
            depth = points[..., 2:]
            points = torch.cat((points[..., :2] * depth, depth), -1)
            to_frame = rots @ inverse_3x3(intrins)
            points = points @ to_frame.mT + trans.unsqueeze(2)
        return points.unflatten(2, self.frustum.shape[:3])

    def cells(self, cameras: Cameras) -> Tensor:
        """(B, Q, D) int64, in which of the ``B * nz * ny * nx`` cells each point is; their number
        where it is in none.

        As in the reference, a coordinate is cut off towards 0: the first cell of an axis also holds
        what is up to a cell before it.
        """
        points = self.get_geometry(*cameras)
        x, y, z = ((points - (self.bx - self.dx / 2)) / self.dx).long().unbind(-1)
        nz, ny, nx = self.grid
        inside = (x >= 0) & (x < nx) & (y >= 0) & (y < ny) & (z >= 0) & (z < nz)
        B = len(points)
        sample = torch.arange(B, device=points.device).view(B, 1, 1, 1, 1)
        cell_BNDhw = ((sample * nz + z) * ny + y) * nx + x
        cell_BNDhw = cell_BNDhw.masked_fill(~inside, B * nz * ny * nx)
        return cell_BNDhw.permute(0, 1, 3, 4, 2).flatten(1, 3)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._kept = None
        super()._load_from_state_dict(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        """Copied and saved without what is kept for the last cameras."""
        return {**vars(self), "_kept": None}


def frustum(size: Sequence[int], downsample: int, depths: Sequence[float]) -> Tensor:
    """(D, h, w, 3): x and y in pixels of the image, and depth in metres, of each point.

    Args:
        size: (height, width) of the image; the first and last feature are at its borders.
        downsample: stride of the features.
        depths: (nearest, beyond the farthest, step).
    """
    h, w = (side // downsample for side in size)
    z = torch.arange(*depths, dtype=torch.float32)
    y, x = torch.linspace(0, size[0] - 1, h), torch.linspace(0, size[1] - 1, w)
    z, y, x = torch.meshgrid(z, y, x, indexing="ij")
    return torch.stack((x, y, z), -1)


def inverse_3x3(matrix: Tensor) -> Tensor:
    """Of (..., 3, 3) matrices, by cross products of their rows: graph runtimes have no inverse."""
    a, b, c = matrix.unbind(-2)
    adjugate = torch.stack([_cross(b, c), _cross(c, a), _cross(a, b)], -1)
    return adjugate / (a * adjugate[..., 0]).sum(-1)[..., None, None]


def _cross(a: Tensor, b: Tensor) -> Tensor:
    """``torch.linalg.cross`` of (..., 3), for graph runtimes that have none."""
    return a.roll(-1, -1) * b.roll(-2, -1) - a.roll(-2, -1) * b.roll(-1, -1)
