"""Boxes from a centre head's maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.registry import TASK_UTILS
from torch import Tensor


@TASK_UTILS.register_module()
class CenterPointBBoxCoder:
    """Turns the best cells of a heatmap into boxes (CenterPoint, arXiv 2006.11275, section 4).

    Args:
        pc_range: (x, y) of the map's first corner, in metres.
        out_size_factor: voxels along a cell.
        voxel_size: (x, y) of a voxel, in metres.
        post_center_range: (x, y, z, x, y, z) between which centres of boxes must be; None for no
            limit.
        max_num: how many cells of a task are looked at.
        score_threshold: that scores must be above; None for none.
        code_size: numbers of a box.
    """

    def __init__(
        self,
        pc_range: Sequence[float],
        out_size_factor: int,
        voxel_size: Sequence[float],
        post_center_range: Sequence[float] | None = None,
        max_num: int = 100,
        score_threshold: float | None = None,
        code_size: int = 9,
    ) -> None:
        self.pc_range = pc_range
        self.out_size_factor = out_size_factor
        self.voxel_size = voxel_size
        self.post_center_range = post_center_range
        self.max_num = max_num
        self.score_threshold = score_threshold
        self.code_size = code_size

    def decode(
        self,
        heat: Tensor,
        rot_sine: Tensor,
        rot_cosine: Tensor,
        hei: Tensor,
        dim: Tensor,
        vel: Tensor,
        reg: Tensor | None = None,
    ) -> list[dict[str, Tensor]]:
        """The boxes of a task in each sample, best first.

        Args:
            heat: (B, K, H, W) scores of its classes.
            rot_sine, rot_cosine: (B, 1, H, W) of the yaw.
            hei: (B, 1, H, W) z of the centre.
            dim: (B, 3, H, W) w, l, h.
            vel: (B, 2, H, W).
            reg: (B, 2, H, W) where in its cell a centre is, by x and y; None for the middle.

        Returns:
            By sample: ``bboxes`` (n, 9) as x, y, z, w, l, h, yaw, vx, vy; ``scores`` (n,);
            ``labels`` (n,) int64, from 0 on within the task.
        """
        _, K, H, W = heat.shape
        score_BN, best_BN = heat.flatten(1).topk(min(self.max_num, K * H * W), dim=1)
        label_BN, cell_BN = best_BN // (H * W), best_BN % (H * W)

        def at_cells(maps: Tensor) -> Tensor:
            found = cell_BN.unsqueeze(1).expand(-1, maps.shape[1], -1)
            return maps.flatten(2).gather(2, found).transpose(1, 2)

        corner = torch.stack((cell_BN % W, cell_BN // W), -1).to(heat.dtype)
        centre = corner + (0.5 if reg is None else at_cells(reg))
        cell_size = heat.new_tensor(self.voxel_size[:2]) * self.out_size_factor
        centre = centre * cell_size + heat.new_tensor(self.pc_range[:2])
        yaw = torch.atan2(at_cells(rot_sine), at_cells(rot_cosine))
        boxes = torch.cat((centre, at_cells(hei), at_cells(dim), yaw, at_cells(vel)), -1)
        kept = torch.ones_like(score_BN, dtype=torch.bool)
        if self.score_threshold is not None:
            kept &= score_BN > self.score_threshold
        if self.post_center_range is not None:
            low, high = heat.new_tensor(self.post_center_range).split(3)
            kept &= ((boxes[..., :3] >= low) & (boxes[..., :3] <= high)).all(-1)
        return [
            {"bboxes": box[keep], "scores": score[keep], "labels": label[keep]}
            for box, score, label, keep in zip(boxes, score_BN, label_BN, kept, strict=True)
        ]
