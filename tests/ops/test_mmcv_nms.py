"""NMS against plain loops over pairs of boxes, in the precision and the order of compiled mmcv."""

import importlib
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsevit.ops import mmcv_ext
from sparsevit.ops.mmcv_ext import nms as ours

mmcv_ext.install()
ops = importlib.import_module("mmcv.ops")

F = np.float32
METHODS = ("naive", "linear", "gaussian")
pytestmark = pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")


def area(box, offset):
    return (box[2] - box[0] + F(offset)) * (box[3] - box[1] + F(offset))


def overlap(a, b, offset):
    """Intersection and union of two boxes, in float32."""
    width = max(F(0), min(a[2], b[2]) - max(a[0], b[0]) + F(offset))
    height = max(F(0), min(a[3], b[3]) - max(a[1], b[1]) + F(offset))
    inter = width * height
    return inter, area(a, offset) + area(b, offset) - inter


def quotient_above(inter, union, threshold):
    return inter / union > F(threshold)


def product_above(inter, union, threshold):
    return inter > F(threshold) * union


def reference_nms(boxes, scores, threshold, offset, above=quotient_above):
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if not any(above(*overlap(boxes[k], boxes[i], offset), threshold) for k in kept):
            kept.append(i)
    return kept


def reference_soft_nms(boxes, scores, threshold, sigma, min_score, method, offset):
    """Soft-NMS on a working list, with mmcv's swaps: they decide between equal scores."""
    work = [[box, F(score), i] for i, (box, score) in enumerate(zip(boxes, scores, strict=True))]
    done = 0
    while done < len(work):
        best = done
        for i in range(done + 1, len(work)):
            if work[best][1] < work[i][1]:
                best = i
        work[done], work[best] = work[best], work[done]
        at = done + 1
        while at < len(work):
            inter, union = overlap(work[done][0], work[at][0], offset)
            iou = inter / union
            if method == "gaussian":
                work[at][1] *= np.exp(-(iou * iou) / F(sigma))
            elif iou >= F(threshold):
                work[at][1] *= F(0) if method == "naive" else F(1) - iou
            if work[at][1] < F(min_score):
                last = work.pop()
                if at < len(work):
                    work[at] = last
                continue
            at += 1
        done += 1
    return [entry[2] for entry in work], [float(entry[1]) for entry in work]


side = st.integers(0, 12)
# Boxes with corners on a coarse grid: equal boxes, zero boxes, and IoUs exactly at a threshold.
box = st.builds(lambda x, y, w, h: [x, y, x + w, y + h], side, side, side, side)
tied = st.sampled_from([0.1, 0.5, 0.5, 0.9])
scored = st.lists(st.tuples(box, tied), max_size=14)
thresholds = st.sampled_from([0.0, 0.25, 0.3, 0.5, 0.6, 0.7, 1.0])


def arrays(scored_boxes):
    boxes = np.array([b for b, _ in scored_boxes], dtype=F).reshape(-1, 4)
    return boxes, np.array([s for _, s in scored_boxes], dtype=F)


@settings(max_examples=150, deadline=None)
@given(scored=scored, threshold=thresholds, offset=st.integers(0, 1))
def test_nms_keeps_the_boxes_of_the_definition(scored, threshold, offset):
    boxes, scores = arrays(scored)
    dets, kept = ops.nms(torch.tensor(boxes), torch.tensor(scores), threshold, offset)
    assert kept.tolist() == reference_nms(boxes, scores, threshold, offset)
    assert torch.equal(dets[:, :4], torch.tensor(boxes)[kept])


@settings(max_examples=100, deadline=None)
@given(scored=scored, threshold=thresholds, offset=st.integers(0, 1))
def test_the_route_of_other_devices_keeps_the_boxes_of_mmcvs_cuda_kernel(scored, threshold, offset):
    boxes, scores = arrays(scored)
    order = torch.tensor(scores).sort(descending=True, stable=True).indices
    kept = order[ours.greedy_on_device(torch.tensor(boxes)[order], threshold, offset)]
    assert kept.tolist() == reference_nms(boxes, scores, threshold, offset, product_above)


@settings(max_examples=150, deadline=None)
@given(
    scored=scored,
    threshold=thresholds,
    sigma=st.sampled_from([0.3, 0.5]),
    min_score=st.sampled_from([0.0, 1e-3, 0.2]),
    method=st.sampled_from(METHODS),
    offset=st.integers(0, 1),
)
def test_soft_nms_is_that_of_the_definition(scored, threshold, sigma, min_score, method, offset):
    boxes, scores = arrays(scored)
    dets, kept = ops.soft_nms(
        torch.tensor(boxes), torch.tensor(scores), threshold, sigma, min_score, method, offset
    )
    expected, expected_scores = reference_soft_nms(
        boxes, scores, threshold, sigma, min_score, method, offset
    )
    assert kept.tolist() == expected
    np.testing.assert_allclose(dets[:, 4], expected_scores, atol=1e-5)
    assert torch.equal(dets[:, :4], torch.tensor(boxes)[kept])


@settings(max_examples=60, deadline=None)
@given(scored=scored.filter(len), threshold=thresholds)
def test_nms_match_groups_what_each_kept_box_suppresses(scored, threshold):
    boxes, scores = arrays(scored)
    dets = torch.tensor(np.concatenate([boxes, scores[:, None]], axis=1))
    left = sorted(range(len(boxes)), key=lambda i: -scores[i])
    expected = []
    while left:
        best, *rest = left
        matched = []
        for i in rest:
            inter, union = overlap(boxes[best], boxes[i], 0)
            if inter / union >= F(threshold):
                matched.append(i)
        expected.append([best, *matched])
        left = [i for i in rest if i not in matched]
    assert [group.tolist() for group in ops.nms_match(dets, threshold)] == expected


def crowd(count, side, seed=0):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * side
    size = 10 + torch.rand(count, 2, generator=generator) * 60
    return torch.cat([corner, corner + size], dim=1), torch.rand(count, generator=generator)


def greedy_by_rows(boxes, scores, threshold):
    left, kept = np.argsort(-scores, kind="stable"), []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        low, high = np.maximum(boxes[best], boxes[left]), np.minimum(boxes[best], boxes[left])
        size = np.maximum(high[:, 2:] - low[:, :2], F(0))
        inter = size[:, 0] * size[:, 1]
        iou = inter / (area(boxes[best], 0) + area(boxes[left].T, 0) - inter)
        left = left[~(iou > F(threshold))]
    return kept


@pytest.mark.parametrize("side", [80, 400, 3000])
def test_nms_across_blocks_keeps_what_one_pass_keeps(side):
    boxes, scores = crowd(3 * ours.BLOCK + 50, side)
    expected = greedy_by_rows(boxes.numpy(), scores.numpy(), 0.4)
    assert ops.nms(boxes, scores, 0.4)[1].tolist() == expected


def test_the_device_route_across_blocks_keeps_what_one_pass_keeps(monkeypatch):
    monkeypatch.setattr(ours, "DEVICE_BLOCK", 64)
    monkeypatch.setattr(ours, "DEVICE_CHUNK", 100)
    boxes, scores = crowd(500, 300)
    order = scores.sort(descending=True, stable=True).indices
    kept = order[ours.greedy_on_device(boxes[order], 0.4, 0)]
    assert kept.tolist() == greedy_by_rows(boxes.numpy(), scores.numpy(), 0.4)


def test_a_long_chain_of_decisions_is_resolved():
    # Each box suppresses the next one, so that every second one stays.
    suppresses = torch.diag(torch.ones(60, dtype=torch.bool), 1)
    assert ours.resolve_on_device(suppresses).tolist() == [i % 2 == 0 for i in range(61)]


def test_many_boxes_need_no_memory_for_all_pairs():
    boxes, scores = crowd(40_000, 300)
    tracemalloc.start()
    try:
        ours.nms(boxes, scores, 0.5, 0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 * 2**20


def test_batched_nms_never_lets_one_class_suppress_another():
    boxes, scores = crowd(120, 60)
    classes = torch.arange(120) % 3
    dets, kept = ops.batched_nms(boxes, scores, classes, {"type": "nms", "iou_threshold": 0.5})
    expected = []
    for one in range(3):
        rows = (classes == one).nonzero().squeeze(1)
        alone = greedy_by_rows(boxes[rows].numpy(), scores[rows].numpy(), 0.5)
        expected += rows[alone].tolist()
    assert sorted(kept.tolist()) == sorted(expected)
    assert torch.equal(dets[:, 4], scores[kept])
    assert bool((dets[1:, 4] <= dets[:-1, 4]).all())


@pytest.mark.parametrize("method", METHODS)
def test_batched_soft_nms_runs_every_method(method):
    boxes, scores = crowd(60, 60)
    config = {"type": "soft_nms", "iou_threshold": 0.3, "method": method}
    dets, kept = ops.batched_nms(boxes, scores, torch.zeros(60, dtype=torch.int64), config)
    assert dets.shape == (len(kept), 5)
    assert bool((dets[1:, 4] <= dets[:-1, 4] + 1e-6).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_compared_in_float(dtype):
    boxes, scores = crowd(80, 100)
    boxes, scores = boxes.to(dtype), scores.to(dtype)
    kept = ops.nms(boxes, scores, 0.5)[1]
    assert kept.tolist() == ops.nms(boxes.float(), scores.float(), 0.5)[1].tolist()


def test_score_threshold_and_limit_of_mmcv_work():
    boxes, scores = crowd(80, 100)
    kept = ops.nms(boxes, scores, 0.5, score_threshold=0.3, max_num=5)[1]
    assert kept.tolist() == ops.nms(boxes, scores, 0.5)[1].tolist()[:5]


def test_nms_takes_scores_that_require_grad():
    boxes, scores = crowd(20, 50)
    assert len(ops.nms(boxes.requires_grad_(), scores.requires_grad_(), 0.5)[1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_keeps_what_the_cpu_keeps():
    boxes, scores = crowd(5000, 600)
    kept = ops.nms(boxes.cuda(), scores.cuda(), 0.5)[1]
    assert kept.is_cuda
    assert kept.tolist() == ops.nms(boxes, scores, 0.5)[1].tolist()
