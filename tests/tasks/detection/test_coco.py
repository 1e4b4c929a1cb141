"""What is known of COCO's metrics without computing them."""

from __future__ import annotations

import pytest

from sparsevit.tasks.detection.coco import known_metrics


@pytest.mark.parametrize(
    ("evaluator", "known"),
    [
        ({"type": "CocoMetric", "metric": "bbox"}, "bbox_mAP"),
        ({"type": "CocoMetric", "metric": ["segm"]}, "segm_mAP_50"),
        ({"type": "CocoMetric", "metric": "proposal"}, None),
        ([{"type": "CocoMetric"}, {"type": "LVISMetric"}], None),
    ],
)
def test_metrics_that_are_known_before_they_are_measured(evaluator, known):
    names = known_metrics(evaluator)
    assert (known in names) if known else names == ()
