"""What is known of COCO's metrics without computing them."""

from __future__ import annotations

import pytest

from sparsevit.tasks.detection import Detection
from sparsevit.tasks.detection.coco import known_metrics, table


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


def test_points_leave_out_what_the_images_cannot_give():
    points = Detection().in_points({"bbox_mAP": 0.5, "bbox_mAP_s": -1.0})
    assert points == {"bbox_mAP": 50.0}


def test_a_table_has_a_row_for_boxes_and_one_for_masks():
    columns, rows = table({"bbox_mAP": 0.5, "bbox_mAP_s": -1.0, "segm_mAP": 0.25})
    assert columns == ("", "AP", "AP50", "AP75", "small", "medium", "large")
    assert [row[:2] for row in rows] == [("bbox", "0.500"), ("mask", "0.250")]
    assert rows[0][4] == "-"
