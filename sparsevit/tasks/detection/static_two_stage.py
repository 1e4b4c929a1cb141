"""A two-stage detector as one graph from images to detections, for exports.

The same arithmetic as mmdet's inference, on the same modules, with every size fixed that can be:
what is kept is chosen by top-k and by index, and lists that may be shorter are filled up. The two
operations that runtimes have of their own, NMS and RoIAlign, are given from outside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparsevit.tasks.detection.two_stage import mask_size, most_boxes, require_two_stage

NO_BOX = -1.0
"""Score of a box that must not be chosen; scores are probabilities."""

NO_LABEL = -1


@dataclass(frozen=True)
class RoiAlignSettings:
    """RoIAlign as mmcv's layer of a level has it.

    Attributes:
        scales: by level, pixels of the map per pixel of the image.
        height, width: bins.
        sampling_ratio: samples of a bin along an axis; 0 takes ceil(bin size).
        aligned: shift by half a pixel.
    """

    scales: tuple[float, ...]
    height: int
    width: int
    sampling_ratio: int
    aligned: bool


@dataclass(frozen=True)
class DetectorOps:
    """The two operations of a detector that runtimes have of their own.

    Attributes:
        nms: (boxes (N, 4), scores (N,), IoU threshold, count) -> (count,) int64 indices of the
            boxes that greedy NMS keeps, best first; -1 where there are fewer. Boxes that score
            ``NO_BOX`` are never kept.
        roi_align: (maps by level (B, C, H, W), RoIs (R, 5), levels (R,) int64, settings) ->
            (features (R, C, h, w), order (R,) int64). RoIs may be given out in another order:
            features i are those of RoI order[i].
        lists: whether the runtime takes lists whose length depends on the image. Where it does
            not, the mask head runs on all boxes there may be.
    """

    nms: Callable[[Tensor, Tensor, float, int], Tensor]
    roi_align: Callable[[Sequence[Tensor], Tensor, Tensor, RoiAlignSettings], tuple[Tensor, Tensor]]
    lists: bool = True


class StaticTwoStage(nn.Module):
    """Images in; boxes, scores, labels and masks out, as tensors of fixed shape.

    Args:
        model: Faster R-CNN or Mask R-CNN of mmdet in evaluation mode; its modules are shared.
        images: (B, 3, H, W) of the size to be taken.
        ops: NMS and RoIAlign.

    Raises:
        UserError: the detector is of another kind.
    """

    def __init__(self, model: Any, images: Tensor, ops: DetectorOps) -> None:
        super().__init__()
        require_two_stage(model)
        self.model = model
        self.ops = ops
        with torch.no_grad():
            scores, _ = model.rpn_head(model.extract_feat(images))
        priors = model.rpn_head.prior_generator.grid_priors(
            [one.shape[-2:] for one in scores], dtype=torch.float32, device=images.device
        )
        for level, boxes in enumerate(priors):
            self.register_buffer(f"priors{level}", boxes, persistent=False)
        self.levels = len(priors)

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        """Detections of a batch, best first, K of each image as ``test_cfg.rcnn`` has it.

        Args:
            images: (B, 3, H, W), normalised.
            sizes: (B, 2) float, height and width of each without padding.

        Returns:
            boxes (B, K, 4), scores (B, K), labels (B, K) int64 and, where the detector has masks,
            masks (B, K, h, w), the probabilities within the box. What is not filled has score 0 and
            label -1.
        """
        maps = self.model.extract_feat(images)
        batch = images.shape[0]
        cls_scores, deltas = self.model.rpn_head(maps)
        proposals, proposed = zip(
            *(
                self._proposals([s[b] for s in cls_scores], [d[b] for d in deltas], sizes[b])
                for b in range(batch)
            ),
            strict=True,
        )
        boxes, scores, labels = self._classified(
            maps, torch.stack(proposals), torch.stack(proposed), sizes
        )
        if not self.model.roi_head.with_mask:
            return boxes, scores, labels
        return boxes, scores, labels, self._masks(maps, boxes, labels)

    # --- the first stage -------------------------------------------------------------------------

    def _proposals(
        self, cls_scores: list[Tensor], deltas: list[Tensor], size: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(P, 4) proposals of an image and (P,) whether there is one, as mmdet's ``RPNHead``."""
        head = self.model.rpn_head
        cfg = head.test_cfg
        chosen = [
            self._best_anchors(level, one, delta, cfg.get("nms_pre", -1))
            for level, (one, delta) in enumerate(zip(cls_scores, deltas, strict=True))
        ]
        scores = torch.cat([one[0] for one in chosen])
        boxes = decoded(
            head.bbox_coder,
            torch.cat([one[1] for one in chosen]),
            torch.cat([one[2] for one in chosen]),
            size,
        )
        groups = torch.cat([torch.full_like(one[0], level) for level, one in enumerate(chosen)])
        wanted = torch.ones_like(scores, dtype=torch.bool)
        least = cfg.get("min_bbox_size", -1)
        if least >= 0:
            wanted = ((boxes[:, 2:] - boxes[:, :2]) > least).all(dim=1)
        keep = self._kept(boxes, scores, groups, wanted, cfg, min(most_boxes(cfg), len(scores)))
        there = keep >= 0
        return boxes[keep.clamp(min=0)] * there[:, None].to(boxes.dtype), there

    def _best_anchors(
        self, level: int, cls_score: Tensor, delta: Tensor, most: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Scores, anchors and deltas of the best anchors of a level."""
        head = self.model.rpn_head
        anchors: Tensor = getattr(self, f"priors{level}")
        logits = cls_score.permute(1, 2, 0).reshape(-1, head.cls_out_channels)
        delta = delta.permute(1, 2, 0).reshape(-1, 4)
        if head.use_sigmoid_cls:
            scores = logits.sigmoid().reshape(-1)
        else:
            scores = logits.softmax(-1)[:, :-1].reshape(-1)
        if not 0 < most < scores.shape[0]:
            return scores, anchors, delta
        scores, index = scores.topk(most)
        return scores, anchors[index], delta[index]

    def _kept(
        self, boxes: Tensor, scores: Tensor, groups: Tensor, wanted: Tensor, cfg: Any, count: int
    ) -> Tensor:
        """mmcv's ``batched_nms``: (N,) candidates of whom only those of a group suppress one
        another -> (count,) indices, best first, -1 where there are fewer."""
        if not cfg.nms.get("class_agnostic", False):
            # mmcv moves the boxes of each group to a place of their own; doing the same, rather
            # than NMS by group, makes the same rounding errors
            largest = torch.where(wanted[:, None], boxes, torch.zeros_like(boxes)).max()
            boxes = boxes + (groups * (largest + 1))[:, None]
        scores = torch.where(wanted, scores, torch.full_like(scores, NO_BOX))
        return self.ops.nms(boxes, scores, float(cfg.nms.iou_threshold), count)

    # --- the second stage ------------------------------------------------------------------------

    def _classified(
        self, maps: Sequence[Tensor], proposals: Tensor, proposed: Tensor, sizes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes, scores and labels of a batch, from (B, P, 4) proposals."""
        roi = self.model.roi_head
        features, order = self._pooled(roi.bbox_roi_extractor, maps, numbered(proposals))
        logits, deltas = roi.bbox_head(features)
        scores = in_order(logits, order, proposals.shape[:2]).softmax(-1)[..., :-1]
        deltas = in_order(deltas, order, proposals.shape[:2])
        found = [
            self._best_boxes(*one, sizes[b])
            for b, one in enumerate(zip(proposals, proposed, scores, deltas, strict=True))
        ]
        boxes, best, labels = (torch.stack(one) for one in zip(*found, strict=True))
        return boxes, best, labels

    def _best_boxes(
        self, proposals: Tensor, proposed: Tensor, scores: Tensor, deltas: Tensor, size: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes, scores and labels of an image, as mmdet's ``multiclass_nms``."""
        head, cfg = self.model.roi_head.bbox_head, self.model.roi_head.test_cfg
        P, classes = scores.shape
        kinds = 1 if head.reg_class_agnostic else classes
        anchors = proposals[:, None].expand(P, kinds, 4).reshape(-1, 4)
        boxes = decoded(head.bbox_coder, anchors, deltas.reshape(-1, 4), size)
        boxes = boxes.view(P, kinds, 4).expand(P, classes, 4).reshape(-1, 4)
        labels = torch.arange(classes, device=scores.device).repeat(P)
        wanted = (scores > cfg.score_thr) & proposed[:, None]
        flat = scores.reshape(-1)
        keep = self._kept(
            *(boxes, flat, labels.to(flat.dtype), wanted.reshape(-1), cfg, most_boxes(cfg))
        )
        there = keep >= 0
        index = keep.clamp(min=0)
        none = torch.full_like(index, NO_LABEL)
        return (
            boxes[index] * there[:, None].to(boxes.dtype),
            flat[index] * there.to(flat.dtype),
            torch.where(there, labels[index], none),
        )

    def _masks(self, maps: Sequence[Tensor], boxes: Tensor, labels: Tensor) -> Tensor:
        """(B, K, h, w) probabilities. Where the runtime takes lists, the head runs on the boxes
        that are there, so an image with few objects is fast; on one at least, as not all take an
        empty list."""
        roi = self.model.roi_head
        B, K = labels.shape
        label = labels.reshape(-1)
        there = label >= 0
        features, order = self._pooled(roi.mask_roi_extractor, maps, numbered(boxes))
        if self.ops.lists:
            listed = there | (torch.arange(B * K, device=label.device) == 0)
            picked = listed[order].nonzero()[:, 0]
            features, order = features[picked], order[picked]
        logits = roi.mask_head(features)
        if roi.mask_head.class_agnostic:
            logits = logits[:, 0]
        else:
            channel = label[order].clamp(min=0)[:, None, None, None]
            logits = logits.gather(1, channel.expand(-1, 1, *logits.shape[2:]))[:, 0]
        h, w = mask_size(roi)
        masks = logits.new_zeros(B * K, h, w).index_copy(0, order, logits.sigmoid())
        return (masks * there[:, None, None].to(masks.dtype)).view(B, K, h, w)

    def _pooled(
        self, extractor: Any, maps: Sequence[Tensor], rois: Tensor
    ) -> tuple[Tensor, Tensor]:
        maps = maps[: extractor.num_inputs]
        return self.ops.roi_align(
            maps, rois, extractor.map_roi_levels(rois, len(maps)), settings_of(extractor)
        )


def settings_of(extractor: Any) -> RoiAlignSettings:
    """The RoIAlign of mmdet's ``SingleRoIExtractor``."""
    layers = extractor.roi_layers
    height, width = layers[0].output_size
    return RoiAlignSettings(
        scales=tuple(one.spatial_scale for one in layers),
        height=height,
        width=width,
        sampling_ratio=layers[0].sampling_ratio,
        aligned=layers[0].aligned,
    )


def decoded(coder: Any, anchors: Tensor, deltas: Tensor, size: Tensor) -> Tensor:
    """(N, 4) boxes by mmdet's coder, clipped to an image of (height, width) ``size``."""
    boxes = coder.decode(anchors, deltas, max_shape=None)
    if not getattr(coder, "clip_border", True):
        return boxes
    return boxes.clamp(min=0).minimum(size.flip(0).repeat(2))


def numbered(boxes: Tensor) -> Tensor:
    """(B, N, 4) boxes -> (B * N, 5) RoIs, with the number of the image in front."""
    B, N, _ = boxes.shape
    image = torch.arange(B, device=boxes.device, dtype=boxes.dtype).repeat_interleave(N)
    return torch.cat([image[:, None], boxes.reshape(-1, 4)], dim=1)


def in_order(values: Tensor, order: Tensor, shape: Sequence[int]) -> Tensor:
    """Values of RoIs in some order, (R, X) -> (B, P, X) in the order of the RoIs."""
    B, P = shape
    placed = values.new_zeros(B * P, values.shape[1]).index_copy(0, order, values)
    return placed.view(B, P, values.shape[1])
