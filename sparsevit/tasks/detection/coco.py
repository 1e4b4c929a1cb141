"""COCO's datasets and metrics, as mmdet has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sparsevit.tasks.base import shown

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


_CLASSES = "sparsevit_classes"


def score_classes(metric: Any) -> None:
    """Have a COCO metric keep AP by class, for :func:`class_scores`; any other is left alone.

    mmdet names boxes' and masks' the same, so that the latter replace the former: they are computed
    one after the other here.
    """
    from mmdet.evaluation import CocoMetric

    kinds = getattr(metric, "metrics", ())
    if type(metric) is not CocoMetric or not set(kinds) <= set(_KINDS):
        return
    compute, asked = metric.compute_metrics, metric.classwise
    found: dict[str, dict[str, float]] = {}
    setattr(metric, _CLASSES, found)
    metric.classwise = True

    def compute_metrics(results: list[Any]) -> dict[str, float]:
        values: dict[str, float] = {}
        found.clear()
        classes = list(metric.dataset_meta["classes"])
        try:
            for kind in kinds:
                metric.metrics = [kind]
                of_kind = compute(results)
                names = {f"{name}_precision": name for name in classes}
                scores = {names[key]: float(v) for key, v in of_kind.items() if key in names}
                found[f"{kind}_mAP"] = {name: scores.get(name, 0.0) for name in classes}
                values |= {key: v for key, v in of_kind.items() if asked or key not in names}
        finally:
            metric.metrics = list(kinds)
        return values

    metric.compute_metrics = compute_metrics


def class_scores(metrics: Sequence[Any]) -> dict[str, dict[str, float]]:
    """AP by class of what was evaluated last: ``bbox_mAP`` or ``segm_mAP`` -> class -> AP, NaN
    where no object is of a class."""
    return {
        key: dict(scores)
        for metric in metrics
        for key, scores in getattr(metric, _CLASSES, {}).items()
    }


def table(metrics: Mapping[str, float]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows: AP of boxes and of masks, a row each."""
    rows = []
    for kind, label in _KINDS.items():
        if f"{kind}_mAP" in metrics:
            # COCO gives -1 where no object is of that size
            values = (shown(metrics.get(f"{kind}_mAP{suffix}")) for suffix in _SUFFIXES)
            rows.append((label, *values))
    return ("", *_SUFFIXES.values()), rows
