"""COCO's datasets and metrics, as mmdet has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BOX_AP, MASK_AP = "bbox_mAP", "segm_mAP"

_KINDS = {"bbox": "bbox", "segm": "mask"}
_SUFFIXES = {
    "": "AP",
    "_50": "AP50",
    "_75": "AP75",
    "_s": "small",
    "_m": "medium",
    "_l": "large",
}


def known_metrics(evaluator: Any) -> tuple[str, ...]:
    """Names of the metrics that an evaluator will give, as far as it is known before it runs.

    Args:
        evaluator: ``val_evaluator`` of a config.

    Returns:
        ``bbox_mAP``, ``bbox_mAP_50``, ... of one COCO metric of boxes and masks; nothing of others.
    """
    metrics = evaluator if isinstance(evaluator, (list, tuple)) else [evaluator]
    if len(metrics) != 1 or metrics[0].get("type") not in ("CocoMetric", "mmdet.CocoMetric"):
        return ()
    kinds = metrics[0].get("metric", "bbox")
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    if not set(kinds) <= set(_KINDS) or metrics[0].get("metric_items"):
        return ()
    return tuple(f"{kind}_mAP{suffix}" for kind in kinds for suffix in _SUFFIXES)


def nothing_detected(metric: Any) -> dict[str, float]:
    """What a COCO metric leaves out where a model detects nothing at all."""
    return {f"{kind}_mAP": 0.0 for kind in getattr(metric, "metrics", ()) if kind in _KINDS}


def table(metrics: Mapping[str, float]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows: AP of boxes and of masks, a row each."""
    rows = []
    for kind, label in _KINDS.items():
        if f"{kind}_mAP" in metrics:
            values = (metrics.get(f"{kind}_mAP{suffix}", -1.0) for suffix in _SUFFIXES)
            # COCO gives -1 where no object is of that size
            rows.append((label, *("-" if value < 0 else f"{value:.3f}" for value in values)))
    return ("", *_SUFFIXES.values()), rows
