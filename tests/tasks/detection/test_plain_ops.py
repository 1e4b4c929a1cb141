"""NMS and RoIAlign of fixed shape give what mmcv's give."""

from __future__ import annotations

import pytest
import torch

from sparsevit.tasks.detection import plain_ops as plain
from sparsevit.tasks.detection import runtime_ops


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def boxes_of(count, within=100.0, largest=60.0):
    corners = torch.rand(count, 2) * within
    return torch.cat([corners, corners + torch.rand(count, 2) * largest], dim=1)


@pytest.mark.parametrize("threshold", [0.3, 0.7])
@pytest.mark.parametrize("count", [5, 200])
def test_nms_keeps_what_mmcv_keeps(threshold, count):
    boxes, scores = boxes_of(120), torch.rand(120)
    scores[::3] = -1
    kept = plain.greedy_nms(boxes, scores, threshold, count)
    assert torch.equal(kept, runtime_ops.greedy_nms(boxes, scores, threshold, count))
    assert (kept[kept >= 0] % 3 != 0).all()
    assert (kept < 0).any() == (count == 200)


def test_nms_of_nothing_keeps_nothing():
    boxes = boxes_of(7)
    for nms in (plain.greedy_nms, runtime_ops.greedy_nms):
        assert nms(boxes, torch.full((7,), -1.0), 0.5, 3).tolist() == [-1, -1, -1]


def test_equal_scores_are_taken_in_order_and_empty_boxes_suppress_nothing():
    boxes = torch.tensor([[0.0, 0, 0, 0], [0, 0, 9, 9], [0, 0, 9, 9], [0, 0, 0, 0]])
    for nms in (plain.greedy_nms, runtime_ops.greedy_nms):
        assert nms(boxes, torch.full((4,), 0.5), 0.5, 4).tolist() == [0, 1, 3, -1]


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 2])
def test_roi_align_pools_what_mmcv_pools(aligned, ratio):
    maps = [torch.randn(2, 3, 24 // s, 32 // s) for s in (1, 2, 4)]
    scales = [1 / 4, 1 / 8, 1 / 16]
    # more than one loop of them; thin, empty, and beyond the map
    boxes = torch.cat(
        [
            boxes_of(150),
            torch.tensor([[0.0, 0, 0, 0], [0, 50, 127, 52], [3, 0, 4, 95], [90, 60, 190, 160]]),
        ]
    )
    rois = torch.cat([torch.randint(0, 2, (len(boxes), 1)).float(), boxes], dim=1)
    level = torch.randint(0, 3, (len(boxes),))
    pooled, order = plain.roi_align(maps, rois, level, scales, (7, 5), ratio, aligned)
    assert torch.equal(order.sort().values, torch.arange(len(boxes)))
    for number, (map, scale) in enumerate(zip(maps, scales, strict=True)):
        expected = runtime_ops.roi_align(map, rois[order], scale, 7, 5, ratio, aligned)
        here = level[order] == number
        torch.testing.assert_close(pooled[here], expected[here], atol=1e-5, rtol=1e-5)
