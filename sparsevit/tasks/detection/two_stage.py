"""mmdet's two-stage detectors in pieces: what of them can be run by something other than mmdet.

Faster R-CNN and Mask R-CNN with one RoI head. A detector is accepted only if each of its parts
does what is reimplemented here; any other would run, and find different boxes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparsevit.errors import UserError
from sparsevit.tasks.detection.detections import Detections

TAKEN = (
    "Supported: Faster R-CNN and Mask R-CNN: mmdet's RPNHead and StandardRoIHead with a BBoxHead, "
    "SingleRoIExtractor and, for masks, FCNMaskHead, and greedy NMS."
)


def require_two_stage(model: nn.Module) -> None:
    """Refuse a detector that is not one of those that are known here.

    Args:
        model: built by mmdet.

    Raises:
        UserError: it is of another kind, or a part or setting of it is; the message names which.
    """
    from mmdet.models import FCNMaskHead, RPNHead, StandardRoIHead, TwoStageDetector
    from mmdet.models.roi_heads.bbox_heads.bbox_head import BBoxHead

    _require_methods(model, TwoStageDetector, ("predict", "extract_feat"), "detector")
    rpn: Any = getattr(model, "rpn_head", None)
    roi: Any = getattr(model, "roi_head", None)
    methods: tuple[str, ...]
    methods = ("forward", "predict_by_feat", "_predict_by_feat_single", "_bbox_post_process")
    _require_methods(rpn, RPNHead, methods, "RPN head")
    methods = ("predict", "predict_bbox", "predict_mask", "_bbox_forward", "_mask_forward")
    _require_methods(roi, StandardRoIHead, methods, "RoI head")
    if roi.with_shared_head:
        raise _refused("A shared head of the RoI head")
    head = roi.bbox_head
    methods = ("predict_by_feat", "_predict_by_feat_single")
    _require_methods(head, BBoxHead, methods, "box head")
    if head.custom_cls_channels or not (head.with_cls and head.with_reg):
        raise _refused(
            "A box head with custom classification channels, or without classes or boxes"
        )
    for coder in (rpn.bbox_coder, head.bbox_coder):
        if coder.encode_size != 4:
            raise _refused(f"The box coder {type(coder).__name__}")
    _require_extractor(roi.bbox_roi_extractor)
    if roi.with_mask:
        _require_methods(roi.mask_head, FCNMaskHead, methods, "mask head")
        _require_extractor(roi.mask_roi_extractor)
    for name, cfg in (("rpn", rpn.test_cfg), ("rcnn", roi.test_cfg)):
        _require_greedy(cfg, f"test_cfg.{name}")


def _require_methods(module: Any, kind: type, methods: Sequence[str], what: str) -> None:
    """A module of this kind, whose subclass did not write these methods anew."""
    if not isinstance(module, kind):
        raise _refused(f"The {what} {type(module).__name__}")
    for name in methods:
        if getattr(type(module), name) is not getattr(kind, name):
            raise _refused(f"The {what} {type(module).__name__}, with its own {name},")


def _require_extractor(extractor: Any) -> None:
    from mmcv.ops import RoIAlign
    from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor

    methods = ("forward", "map_roi_levels")
    _require_methods(extractor, SingleRoIExtractor, methods, "RoI extractor")
    for layer in extractor.roi_layers:
        if type(layer) is not RoIAlign or layer.pool_mode != "avg":
            raise _refused(
                f"The RoI layer {type(layer).__name__} (anything but RoIAlign with averaging)"
            )


def _require_greedy(cfg: Any, name: str) -> None:
    nms = cfg.get("nms") or {}
    if nms.get("type", "nms") != "nms" or "iou_threshold" not in nms:
        raise _refused(f"{name}.nms = {dict(nms)}")
    unknown = set(nms) - {"type", "iou_threshold", "class_agnostic", "split_thr", "max_num"}
    if unknown:
        raise _refused(f"{name}.nms with {', '.join(sorted(unknown))}")
    if cfg.get("max_per_img", 0) < 1:
        raise UserError(
            f"{name}.max_per_img does not limit the number of boxes.",
            f"Use --set model.{name}.max_per_img=N.",
        )


def _refused(what: str) -> UserError:
    return UserError(f"{what} is not supported in exports and backends of whole detectors.", TAKEN)


@dataclass(frozen=True)
class DetectorPieces:
    """What of a detector is arithmetic on tensors, as functions that may be compiled.

    Attributes:
        features: (B, 3, H, W) images -> maps of the neck.
        rpn: maps -> (scores by level, deltas by level).
        boxes: (n, C, 7, 7) features of RoIs -> (class logits, deltas).
        masks: (n, C, 14, 14) features of RoIs -> mask logits; None where there are no masks.
    """

    features: Callable[[Tensor], Sequence[Tensor]]
    rpn: Callable[[Sequence[Tensor]], Any]
    boxes: Callable[[Tensor], tuple[Tensor, Tensor]]
    masks: Callable[[Tensor], Tensor] | None


def plain_pieces(model: Any) -> DetectorPieces:
    """The pieces as they are, run by PyTorch eagerly."""
    roi = model.roi_head
    return DetectorPieces(
        model.extract_feat, model.rpn_head, roi.bbox_head, roi.mask_head if roi.with_mask else None
    )


def detect(model: Any, pieces: DetectorPieces, images: Tensor, sizes: Tensor) -> list[Detections]:
    """mmdet's inference with these pieces; NMS, RoIAlign and all that is between are mmdet's.

    Args:
        model: that :func:`require_two_stage` takes, in evaluation mode.
        pieces: of it.
        images: (B, 3, H, W), normalised, padded to one size.
        sizes: (B, 2) height and width of each without padding, to which boxes are clipped.
    """
    from mmdet.structures.bbox import bbox2roi

    roi = model.roi_head
    shapes = [(int(height), int(width)) for height, width in sizes.tolist()]
    metas = [{"img_shape": one, "ori_shape": one, "scale_factor": (1.0, 1.0)} for one in shapes]
    maps = pieces.features(images)
    found = model.rpn_head.predict_by_feat(*pieces.rpn(maps), batch_img_metas=metas, rescale=False)
    rois = bbox2roi([one.bboxes for one in found])
    if not len(rois):
        return [_nothing(model, images.device) for _ in metas]
    logits, deltas = pieces.boxes(_pooled(roi.bbox_roi_extractor, maps, rois))
    counts = [len(one) for one in found]
    found = roi.bbox_head.predict_by_feat(
        rois=rois.split(counts),
        cls_scores=logits.split(counts),
        bbox_preds=deltas.split(counts),
        batch_img_metas=metas,
        rcnn_test_cfg=roi.test_cfg,
        rescale=False,
    )
    masks = _masks(roi, pieces, maps, [one.bboxes for one in found], [o.labels for o in found])
    return [
        Detections(one.bboxes, one.scores, one.labels, mask)
        for one, mask in zip(found, masks, strict=True)
    ]


def _pooled(extractor: Any, maps: Sequence[Tensor], rois: Tensor) -> Tensor:
    pooled: Tensor = extractor(maps[: extractor.num_inputs], rois)
    return pooled


def _masks(
    roi: Any,
    pieces: DetectorPieces,
    maps: Sequence[Tensor],
    boxes: list[Tensor],
    labels: list[Tensor],
) -> Sequence[Tensor | None]:
    from mmdet.structures.bbox import bbox2roi

    if pieces.masks is None:
        return [None] * len(boxes)
    rois = bbox2roi(boxes)
    if not len(rois):
        return [rois.new_zeros(0, *mask_size(roi))] * len(boxes)
    logits = pieces.masks(_pooled(roi.mask_roi_extractor, maps, rois))
    label = torch.cat(labels)
    channel = torch.zeros_like(label) if roi.mask_head.class_agnostic else label
    masks = logits[torch.arange(len(logits), device=logits.device), channel].sigmoid()
    return masks.split([len(one) for one in boxes])


def mask_size(roi: Any) -> tuple[int, int]:
    """(height, width) of a mask of a RoI head that has masks."""
    height, width = roi.mask_roi_extractor.roi_layers[0].output_size
    head = roi.mask_head
    factor = head.scale_factor if head.upsample is not None else 1
    return height * factor, width * factor


def most_boxes(cfg: Any) -> int:
    """The most boxes that mmdet leaves of an image, by ``test_cfg.rpn`` or ``test_cfg.rcnn``."""
    most: int = cfg.max_per_img
    by_nms = cfg.nms.get("max_num", -1)
    return min(most, by_nms) if by_nms > 0 else most


def output_shapes(model: Any, batch: int) -> dict[str, list[int]]:
    """Name and shape of what an exported graph of a detector gives out for a batch."""
    roi = model.roi_head
    K = most_boxes(roi.test_cfg)
    shapes = {"boxes": [batch, K, 4], "scores": [batch, K], "labels": [batch, K]}
    return {**shapes, "masks": [batch, K, *mask_size(roi)]} if roi.with_mask else shapes


def _nothing(model: Any, device: torch.device) -> Detections:
    roi = model.roi_head
    none = torch.zeros(0, device=device)
    masks = none.new_zeros(0, *mask_size(roi)) if roi.with_mask else None
    return Detections(none.new_zeros(0, 4), none, none.to(torch.int64), masks)
