"""The head of CenterPoint (arXiv 2006.11275): classes as heatmaps of centres, boxes at their cells,
some classes to a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmcv.cnn import ConvModule, build_conv_layer
from mmdet.registry import MODELS, TASK_UTILS
from mmengine.model import BaseModule, ModuleList
from mmengine.structures import InstanceData
from torch import Tensor, nn

from sparsevit.errors import UserError
from sparsevit.models.bev.targets import TargetConfig, TaskTargets, task_targets
from sparsevit.ops.rotated_boxes import circle_nms, rotated_nms

BATCH_NORM = {"type": "BN2d"}
CONV = {"type": "Conv2d"}
SEPARATE_HEAD = {"type": "SeparateHead", "init_bias": -2.19, "final_kernel": 3}
GAUSSIAN_FOCAL_LOSS = {"type": "GaussianFocalLoss", "reduction": "mean"}
L1_LOSS = {"type": "L1Loss", "reduction": "mean", "loss_weight": 0.25}

CODE = {"reg": 2, "height": 1, "dim": 3, "rot": 2, "vel": 2}
"""Maps that make up the code of a box, in its order, with their channels."""
LOSSES = {"xy": 2, "z": 1, "whl": 3, "yaw": 2, "vel": 2}
"""Losses of a box by name, with the numbers of its code that they are of."""
CERTAIN = 1e-4
"""How near to 0 and 1 a score comes in training."""

Maps = dict[str, Tensor]
"""The raw maps of a task: those of ``CODE``, and ``heatmap``."""


@MODELS.register_module()
class SeparateHead(BaseModule):
    """Some convolutions for each map of a task.

    Args:
        in_channels: of the shared features.
        heads: name of a map -> (its channels, how many convolutions).
        head_conv: channels between convolutions.
        final_kernel: size of all of them.
        init_bias: first bias of the heatmap: -2.19 is a score of 0.1.
        conv_cfg, norm_cfg, bias: of the convolutions but the last.
    """

    def __init__(
        self,
        in_channels: int,
        heads: Mapping[str, tuple[int, int]],
        head_conv: int = 64,
        final_kernel: int = 1,
        init_bias: float = -2.19,
        conv_cfg: Mapping[str, Any] = CONV,
        norm_cfg: Mapping[str, Any] = BATCH_NORM,
        bias: bool | str = "auto",
    ) -> None:
        super().__init__()
        self.heads, self.init_bias = heads, init_bias
        for name, (channels, count) in heads.items():
            shape = {"kernel_size": final_kernel, "stride": 1, "padding": final_kernel // 2}
            how = {"bias": bias, "conv_cfg": dict(conv_cfg), "norm_cfg": dict(norm_cfg)}
            widths = [in_channels] + [head_conv] * (count - 1)
            layers = [ConvModule(width, head_conv, **shape, **how) for width in widths[:-1]]
            last = build_conv_layer(dict(conv_cfg), widths[-1], channels, bias=True, **shape)
            setattr(self, name, nn.Sequential(*layers, last))

    def init_weights(self) -> None:
        """Let scores begin low, as nearly all cells are empty; weights stay PyTorch's.

        The reference's init_cfg has Kaiming's by fan-out, but does not reach this module there; on
        maps of one or two channels they would make scores begin at random, near 0 and near 1.
        """
        if "heatmap" in self.heads:
            nn.init.constant_(self.heatmap[-1].bias, self.init_bias)

    def forward(self, x: Tensor) -> Maps:
        """(B, in_channels, H, W) -> maps (B, channels, H, W) by name."""
        return {name: getattr(self, name)(x) for name in self.heads}


@MODELS.register_module()
class CenterHead(BaseModule):
    """Finds boxes in a map seen from above.

    Args:
        in_channels: of the map.
        tasks: for each, ``class_names``; classes are numbered in this order.
        train_cfg: see :class:`~sparsevit.models.bev.targets.TargetConfig`, and ``code_weights``,
            the weight of each of the ten numbers of a box.
        test_cfg: ``nms_type`` (``rotate`` or ``circle``), ``nms_thr`` and ``nms_rescale_factor`` of
            rotated boxes, ``min_radius`` of circles: each a value, or one for each task;
            ``pre_max_size``, ``post_max_size``: boxes of a task before and after;
            ``score_threshold``; ``post_center_limit_range``.
        bbox_coder: of :class:`~sparsevit.models.bev.coder.CenterPointBBoxCoder`.
        common_heads: maps of every task but the heatmap: name -> (channels, convolutions).
        loss_cls, loss_bbox: losses.
        separate_head: of a task.
        share_conv_channel: channels of what tasks share.
        num_heatmap_convs: convolutions of a heatmap.
        conv_cfg, norm_cfg, bias: of the convolution that tasks share.
        norm_bbox: whether sizes are predicted as logarithms.
        init_cfg: of mmengine.

    Raises:
        UserError: ``common_heads`` are not those that a box is made of.
    """

    def __init__(
        self,
        in_channels: int,
        tasks: Sequence[Mapping[str, Any]],
        train_cfg: Mapping[str, Any] | None = None,
        test_cfg: Mapping[str, Any] | None = None,
        bbox_coder: Mapping[str, Any] | None = None,
        common_heads: Mapping[str, tuple[int, int]] | None = None,
        loss_cls: Mapping[str, Any] = GAUSSIAN_FOCAL_LOSS,
        loss_bbox: Mapping[str, Any] = L1_LOSS,
        separate_head: Mapping[str, Any] = SEPARATE_HEAD,
        share_conv_channel: int = 64,
        num_heatmap_convs: int = 2,
        conv_cfg: Mapping[str, Any] = CONV,
        norm_cfg: Mapping[str, Any] = BATCH_NORM,
        bias: bool | str = "auto",
        norm_bbox: bool = True,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg)
        heads = dict(common_heads or {})
        if {name: channels for name, (channels, _) in heads.items()} != CODE:
            raise UserError(
                f"common_heads={heads} of CenterHead does not predict a box.",
                f"Give these maps, each as (channels, convolutions), with the channels {CODE}.",
            )
        self.class_names = [list(task["class_names"]) for task in tasks]
        self.num_classes = [len(names) for names in self.class_names]
        self.train_cfg, self.test_cfg, self.norm_bbox = train_cfg, test_cfg, norm_bbox
        self.loss_cls = MODELS.build(dict(loss_cls))
        self.loss_bbox = MODELS.build(dict(loss_bbox))
        self.bbox_coder = TASK_UTILS.build(dict(bbox_coder)) if bbox_coder else None
        self.shared_conv = ConvModule(
            in_channels,
            share_conv_channel,
            kernel_size=3,
            padding=1,
            conv_cfg=dict(conv_cfg),
            norm_cfg=dict(norm_cfg),
            bias=bias,
        )
        # mmengine's list: what is in one of PyTorch's is not initialised
        self.task_heads = ModuleList(
            MODELS.build(
                {
                    **separate_head,
                    "in_channels": share_conv_channel,
                    "heads": {**heads, "heatmap": (classes, num_heatmap_convs)},
                }
            )
            for classes in self.num_classes
        )

    def forward(self, x: Tensor) -> list[Maps]:
        """(B, in_channels, H, W) -> the raw maps of each task."""
        x = self.shared_conv(x)
        return [task(x) for task in self.task_heads]

    # --- to train ---------------------------------------------------------------------------------

    def loss(
        self, maps: Sequence[Maps], boxes: Sequence[Tensor], labels: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """Losses by name, ``task0.loss_heatmap`` and so on.

        Args:
            maps: of :meth:`forward`.
            boxes: (n, 9) of each sample, centre first.
            labels: (n,) of each sample.

        Raises:
            UserError: the map has another size than ``train_cfg`` says.
        """
        losses: dict[str, Tensor] = {}
        of_tasks = self.targets(boxes, labels)
        for task, (raw, targets) in enumerate(zip(maps, of_tasks, strict=True)):
            found = self.task_losses({name: one.float() for name, one in raw.items()}, targets)
            losses |= {f"task{task}.loss_{name}": loss for name, loss in found.items()}
        return losses

    def targets(self, boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> list[list[TaskTargets]]:
        """Of each task, what each sample teaches it."""
        assert self.train_cfg is not None
        cfg, first, found = TargetConfig.of(self.train_cfg), 0, []
        for count in self.num_classes:
            classes = range(first, first + count)
            samples = zip(boxes, labels, strict=True)
            found.append([task_targets(*one, classes, cfg, self.norm_bbox) for one in samples])
            first += count
        return found

    def task_losses(self, maps: Maps, targets: Sequence[TaskTargets]) -> dict[str, Tensor]:
        """Those of a task: of its heatmap, and of the parts of its boxes."""
        heatmap = torch.stack([one.heatmap_KHW for one in targets])
        score = maps["heatmap"].sigmoid().clamp(CERTAIN, 1 - CERTAIN)
        if score.shape != heatmap.shape:
            raise UserError(
                f"The head's map is {tuple(score.shape[-2:])}, and train_cfg makes targets of "
                f"{tuple(heatmap.shape[-2:])}.",
                "Let grid_size / out_size_factor of train_cfg.pts be the grid of the view "
                "transformer's grid_config.",
            )
        centres = heatmap.eq(1).sum().clamp(min=1)
        losses = {"heatmap": self.loss_cls(score, heatmap, avg_factor=centres)}

        code_BCL = torch.cat([maps[name] for name in CODE], dim=1).flatten(2)
        found = [code[:, one.cell_M] for code, one in zip(code_BCL, targets, strict=True)]
        code_M, target_M = torch.cat(found, 1).t(), torch.cat([one.code_M for one in targets])
        assert self.train_cfg is not None
        # a velocity that is not known teaches nothing
        weight_M = target_M.new_tensor(self.train_cfg["code_weights"]) * ~target_M.isnan()
        parts = (one.split(list(LOSSES.values()), 1) for one in (code_M, target_M, weight_M))
        for name, code, target, weight in zip(LOSSES, *parts, strict=True):
            wanted = target.nan_to_num()
            losses[name] = self.loss_bbox(code, wanted, weight, avg_factor=len(target_M) + 1e-4)
        return losses

    # --- to predict -------------------------------------------------------------------------------

    @torch.no_grad()
    def predict(self, maps: Sequence[Maps]) -> list[InstanceData]:
        """The boxes of each sample.

        Args:
            maps: of :meth:`forward`.

        Returns:
            By sample ``bboxes_3d`` (n, 9), ``scores_3d`` (n,) and ``labels_3d`` (n,), task by task
            and best first.
        """
        of_tasks = [self.task_boxes(task, raw) for task, raw in enumerate(maps)]
        return [
            InstanceData(
                **{
                    f"{name}_3d": torch.cat([boxes[name] for boxes in of_sample])
                    for name in ("bboxes", "scores", "labels")
                }
            )
            for of_sample in zip(*of_tasks, strict=True)
        ]

    def task_boxes(self, task: int, raw: Maps) -> list[dict[str, Tensor]]:
        """What a task finds in each sample, without those that repeat others."""
        assert self.bbox_coder is not None
        maps = {name: one.float() for name, one in raw.items()}
        sine, cosine = maps["rot"].split(1, dim=1)
        size = maps["dim"].exp() if self.norm_bbox else maps["dim"]
        score, z = maps["heatmap"].sigmoid(), maps["height"]
        found = self.bbox_coder.decode(score, sine, cosine, z, size, maps["vel"], maps["reg"])
        first = sum(self.num_classes[:task])
        kept = []
        for boxes in found:
            keep = self.kept_boxes(task, **boxes)
            one = {name: values[keep] for name, values in boxes.items()}
            kept.append({**one, "labels": one["labels"] + first})
        return kept

    def kept_boxes(self, task: int, bboxes: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
        """Which boxes of a task in a sample stay: (n, 9), (n,), (n,) -> int64, best first.

        Rotated boxes are compared in another size (Scale-NMS, BEVDet, section 3.4): small objects
        would not overlap else, however often they are found.
        """
        assert self.test_cfg is not None
        most = self.test_cfg["post_max_size"]
        if self.of_task("nms_type", task) == "circle":
            radius = self.of_task("min_radius", task)
            return circle_nms(bboxes[:, :2], scores, radius, most)
        factors = self.of_task("nms_rescale_factor", task, 1.0)
        many = isinstance(factors, Sequence)
        factor_K = bboxes.new_tensor(factors if many else [factors] * self.num_classes[task])
        shown = bboxes[:, [0, 1, 3, 4, 6]]
        shown[:, 2:4] *= factor_K[labels].unsqueeze(1)
        threshold, first = self.of_task("nms_thr", task), self.test_cfg["pre_max_size"]
        keep = rotated_nms(shown, scores, threshold, first, most)
        good = scores[keep] >= self.test_cfg["score_threshold"]
        limits = self.test_cfg["post_center_limit_range"]
        if limits:
            low, high = bboxes.new_tensor(limits).split(3)
            centre = bboxes[keep, :3]
            good &= ((centre >= low) & (centre <= high)).all(1)
        return keep[good]

    def of_task(self, key: str, task: int, default: Any = None) -> Any:
        """A setting of ``test_cfg`` that may differ from task to task."""
        assert self.test_cfg is not None
        value = self.test_cfg.get(key, default)
        return value[task] if isinstance(value, Sequence) and not isinstance(value, str) else value
