"""Overlap of rotated boxes against exact polygons, and NMS against loops over these."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sparsevit.ops import rotated_boxes
from sparsevit.ops.rotated_boxes import circle_nms, corners, rotated_iou, rotated_nms

shapely = pytest.importorskip("shapely", reason="the exact reference")


def polygon(box):
    """A box (x, y, w, l, yaw), clockwise, as shapely's; corners by complex numbers."""
    x, y, w, length, yaw = map(float, box)
    turn = complex(math.cos(yaw), -math.sin(yaw))
    around = [complex(w, length), complex(-w, length), complex(-w, -length), complex(w, -length)]
    points = [complex(x, y) + turn * corner / 2 for corner in around]
    return shapely.Polygon([(p.real, p.imag) for p in points])


def exact_iou(a, b):
    first, second = [polygon(box) for box in a], [polygon(box) for box in b]
    rows = [[p.intersection(q).area / p.union(q).area for q in second] for p in first]
    return torch.tensor(rows, dtype=torch.float64).view(len(a), len(b))


sides = st.floats(0.05, 12)
places = st.floats(-4, 4)
boxes = st.lists(st.tuples(places, places, sides, sides, st.floats(-7, 7)), min_size=1, max_size=6)
AT_A_RIGHT_ANGLE = [
    (0.0, 0.0, 2.0, 4.0, 0.0),
    (0.0, 0.0, 2.0, 4.0, 0.0),
    (0.0, 0.0, 4.0, 2.0, math.pi / 2),
    (2.0, 0.0, 2.0, 4.0, 0.0),
    (2.0, 4.0, 2.0, 4.0, math.pi),
    (0.0, 0.0, 1.0, 1.0, math.pi / 4),
]


@settings(max_examples=150)
@given(first=boxes, second=boxes)
@example(AT_A_RIGHT_ANGLE, AT_A_RIGHT_ANGLE)
def test_the_overlap_is_that_of_the_polygons(first, second):
    a, b = (torch.tensor(some, dtype=torch.float64) for some in (first, second))
    expected = exact_iou(a, b)
    torch.testing.assert_close(rotated_iou(a, b), expected, rtol=0, atol=1e-9)
    near = rotated_iou(a.float(), b.float()).double()
    torch.testing.assert_close(near, expected, rtol=0, atol=2e-5)


@settings(max_examples=50)
@given(some=boxes, dx=st.floats(-100, 100), dy=st.floats(-100, 100), turn=st.floats(-3, 3))
def test_moving_and_turning_all_boxes_changes_no_overlap(some, dx, dy, turn):
    boxes = torch.tensor(some, dtype=torch.float64)
    moved = boxes.clone()
    yaw, by = torch.tensor([turn, 0], dtype=torch.float64), torch.tensor([dx, dy]).double()
    moved[:, :2] = rotated_boxes.turned(boxes[None, :, :2], yaw[:1])[0] + by
    moved[:, 4] += turn
    expected = rotated_iou(boxes, boxes)
    torch.testing.assert_close(rotated_iou(moved, moved), expected, rtol=0, atol=1e-9)
    assert torch.allclose(expected, expected.t(), atol=1e-9)
    assert torch.allclose(expected.diag(), torch.ones(len(boxes)).double())


def test_yaw_turns_clockwise():
    # w is along x; turned by a right angle clockwise, what was on the right is below
    (box,) = corners(torch.tensor([[0.0, 0.0, 4.0, 2.0, math.pi / 2]]))
    extent = box.amax(0) - box.amin(0)
    assert torch.allclose(extent, torch.tensor([2.0, 4.0]), atol=1e-6)
    unturned = corners(torch.tensor([[0.0, 0.0, 4.0, 2.0, 0.0]]))[0]
    turned = corners(torch.tensor([[0.0, 0.0, 4.0, 2.0, 0.1]]))[0]
    right = unturned[:, 0] > 0
    assert (turned[right, 1] < unturned[right, 1]).all()


def test_pairs_are_looked_at_in_parts_and_none_is_fine(monkeypatch):
    boxes = torch.tensor(AT_A_RIGHT_ANGLE)
    expected = rotated_iou(boxes, boxes)
    monkeypatch.setattr(rotated_boxes, "PAIRS_AT_ONCE", 5)
    assert torch.equal(rotated_iou(boxes, boxes), expected)
    assert rotated_iou(boxes[:0], boxes).shape == (0, 6)
    assert rotated_nms(boxes[:0], boxes[:0, 0], 0.2, 10, 10).tolist() == []
    assert circle_nms(boxes[:0, :2], boxes[:0, 0], 0.2, 10).tolist() == []


def test_a_box_without_area_overlaps_nothing():
    boxes = torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.3], [0.0, 0.0, 0.0, 2.0, 0.3]])
    assert rotated_iou(boxes, boxes).tolist() == [[0, 0], [0, 0]]


def crowd(seed, count):
    generator = torch.Generator().manual_seed(seed)
    draw = torch.rand(count, 5, generator=generator)
    boxes = torch.cat((draw[:, :2] * 12, 0.3 + draw[:, 2:4] * 4, draw[:, 4:] * 7), 1)
    return boxes, torch.randperm(count, generator=generator) / count


@settings(max_examples=30)
@given(
    seed=st.integers(0, 999),
    count=st.integers(1, 25),
    threshold=st.sampled_from([0.0, 0.1, 0.2, 0.5]),
    first=st.sampled_from([None, 5, 1000]),
    most=st.sampled_from([None, 3, 83]),
)
def test_nms_keeps_what_a_loop_over_polygons_keeps(seed, count, threshold, first, most):
    boxes, scores = crowd(seed, count)
    order = sorted(range(count), key=lambda i: -float(scores[i]))[:first]
    iou, kept = exact_iou(boxes, boxes), []
    for i in order:
        if all(iou[i, j] <= threshold for j in kept):
            kept.append(i)
    assert rotated_nms(boxes, scores, threshold, first, most).tolist() == kept[:most]


@settings(max_examples=30)
@given(
    seed=st.integers(0, 999),
    count=st.integers(1, 40),
    threshold=st.sampled_from([0.175, 0.85, 1, 4, 12]),
    most=st.sampled_from([None, 3, 83]),
)
def test_circle_nms_keeps_what_a_loop_keeps(seed, count, threshold, most):
    boxes, scores = crowd(seed, count)
    centres, kept = boxes[:, :2].double(), []
    for i in sorted(range(count), key=lambda i: -float(scores[i])):
        # the square of a distance is compared, as in CenterPoint's code
        if all((centres[i] - centres[j]).square().sum() > threshold for j in kept):
            kept.append(i)
    assert circle_nms(boxes[:, :2], scores, threshold, most).tolist() == kept[:most]
