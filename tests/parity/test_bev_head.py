"""What the head learns and what it finds, against loops in float64."""

from __future__ import annotations

import math

import pytest
import torch
from bev_scene import TASKS, bevdet, small_bevdet
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.registry import MODELS

from sparsevit.models.bev.targets import gaussian_radius

CODE = {"reg": 2, "height": 1, "dim": 3, "rot": 2, "vel": 2}
FIRST = [0, 1, 3, 5, 6, 8]


def head_of(cfg):
    phases = {"train_cfg": cfg["train_cfg"]["pts"], "test_cfg": cfg["test_cfg"]["pts"]}
    return MODELS.build({**cfg["pts_bbox_head"], **phases})


def scene(seed, count, reach=60.0):
    """Boxes around the car, some of them outside the grid, and their classes."""
    draw = torch.rand(count, 9, generator=torch.Generator().manual_seed(seed))
    place = torch.cat(((draw[:, :2] * 2 - 1) * reach, draw[:, 2:3] * 4 - 2), 1)
    size = 0.3 + draw[:, 3:6] * torch.tensor([3.0, 11.0, 3.0])
    boxes = torch.cat((place, size, draw[:, 6:7] * 8 - 4, draw[:, 7:9] * 20 - 10), 1)
    return boxes, torch.randint(10, (count,), generator=torch.Generator().manual_seed(seed + 1))


# --- targets --------------------------------------------------------------------------------------


def radius_of(width, length, overlap):
    """CornerNet's three cases, as its code has them."""
    total, area = width + length, width * length
    cases = [
        (1, total, area * (1 - overlap) / (1 + overlap)),
        (4, 2 * total, (1 - overlap) * area),
        (4 * overlap, -2 * overlap * total, (overlap - 1) * area),
    ]
    return min((b + math.sqrt(b * b - 4 * a * c)) / 2 for a, b, c in cases)


@given(st.floats(0.05, 40), st.floats(0.05, 40), st.sampled_from([0.1, 0.3, 0.5, 0.7]))
def test_the_radius_is_cornernet_s(width, length, overlap):
    size = torch.tensor([[width, length]], dtype=torch.float64)
    got = float(gaussian_radius(size, overlap))
    assert math.isclose(got, radius_of(width, length, overlap), rel_tol=1e-9, abs_tol=1e-9)


def targets_in_loops(boxes, labels, task, cell, side):
    """A task's heatmap, and (cell, code) of its boxes, class by class."""
    classes = range(FIRST[task], FIRST[task] + len(TASKS[task]))
    heatmap = torch.zeros(len(classes), side, side, dtype=torch.float64)
    codes = []
    for k, label in enumerate(classes):
        for box, of in zip(boxes.double().tolist(), labels.tolist(), strict=True):
            x, y, z, w, length, h, yaw, vx, vy = box
            across, down = (x + 51.2) / cell, (y + 51.2) / cell
            column, row = math.trunc(across), math.trunc(down)
            inside = min(across, down) > -1 and column < side and row < side
            if of != label or not inside:
                continue
            radius = max(2, int(radius_of(length / cell, w / cell, 0.1)))
            deviation = (2 * radius + 1) / 6
            for j in range(max(0, row - radius), min(side, row + radius + 1)):
                for i in range(max(0, column - radius), min(side, column + radius + 1)):
                    off = (i - column) ** 2 + (j - row) ** 2
                    value = math.exp(-off / (2 * deviation**2))
                    heatmap[k, j, i] = max(heatmap[k, j, i], value)
            size = [math.log(w), math.log(length), math.log(h)]
            turn = [math.sin(yaw), math.cos(yaw)]
            code = [across - column, down - row, z, *size, *turn, vx, vy]
            codes.append((row * side + column, code))
    return heatmap, codes


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 9999), count=st.integers(0, 25))
def test_targets_are_those_of_the_loops(seed, count):
    head = head_of(small_bevdet())
    boxes, labels = scene(seed, count)
    for task, ((got,), of_classes) in enumerate(
        zip(head.targets([boxes], [labels]), TASKS, strict=True)
    ):
        heatmap, codes = targets_in_loops(boxes, labels, task, 3.2, 32)
        assert got.heatmap_KHW.shape == (len(of_classes), 32, 32)
        torch.testing.assert_close(got.heatmap_KHW.double(), heatmap, rtol=1e-5, atol=1e-6)
        assert got.cell_M.tolist() == [cell for cell, _ in codes]
        expected = torch.tensor([code for _, code in codes], dtype=torch.float64).view(-1, 10)
        torch.testing.assert_close(got.code_M.double(), expected, rtol=1e-4, atol=1e-4)


def test_targets_of_the_reference_s_grid():
    head = head_of(bevdet())
    boxes, labels = scene(0, 40)
    for task, (got,) in enumerate(head.targets([boxes], [labels])):
        heatmap, codes = targets_in_loops(boxes, labels, task, 0.8, 128)
        torch.testing.assert_close(got.heatmap_KHW.double(), heatmap, rtol=1e-5, atol=1e-6)
        assert got.cell_M.tolist() == [cell for cell, _ in codes]


def test_boxes_that_teach_nothing_are_left_out():
    head = head_of(small_bevdet())
    good = [1.0, 2.0, 0.0, 2.0, 4.0, 1.5, 0.1, 0.0, 0.0]
    flat, far = [*good[:5], 0.0, *good[6:]], [80.0, *good[1:]]
    lost = [math.nan, *good[1:]]
    (targets,) = head.targets([torch.tensor([flat, far, lost, good])], [torch.zeros(4)])[0]
    assert len(targets.code_M) == 1
    assert targets.heatmap_KHW.eq(1).sum() == 1
    # a velocity that is not known is left to the loss
    boxes = torch.tensor([[*good[:7], math.nan, math.nan]])
    (targets,) = head.targets([boxes], [torch.zeros(1)])[0]
    assert targets.code_M[0, 8:].isnan().all()


def test_of_too_many_boxes_the_first_are_taken_class_by_class():
    cfg = small_bevdet()
    cfg["train_cfg"]["pts"]["max_objs"] = 3
    boxes, _ = scene(0, 6, reach=40.0)
    labels = torch.tensor([9, 8, 9, 8, 9, 9])
    (targets,) = head_of(cfg).targets([boxes], [labels])[5]
    _, codes = targets_in_loops(boxes[[1, 3, 0]], labels[[1, 3, 0]], 5, 3.2, 32)
    assert targets.cell_M.tolist() == [cell for cell, _ in codes]


# --- losses ---------------------------------------------------------------------------------------


def raw_maps(seed, batch, side=32):
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            name: torch.randn(batch, channels, side, side, generator=generator) * 2
            for name, channels in {**CODE, "heatmap": len(classes)}.items()
        }
        for classes in TASKS
    ]


def losses_in_loops(maps, scenes, task):
    """The focal loss of CornerNet (equation 1) per centre, and L1 of each number per box."""
    positive, focal, parts, boxes = 0, 0.0, {}, 0
    per = {"xy": (0, 2), "z": (2, 3), "whl": (3, 6), "yaw": (6, 8), "vel": (8, 10)}
    weights = [1.0] * 8 + [0.2] * 2
    for b, (boxes_n9, labels) in enumerate(scenes):
        heatmap, codes = targets_in_loops(boxes_n9, labels, task, 3.2, 32)
        scores = maps["heatmap"][b].double().sigmoid().clamp(1e-4, 1 - 1e-4)
        for score, wanted in zip(scores.flatten().tolist(), heatmap.flatten(), strict=True):
            if wanted == 1:
                positive += 1
                focal -= (1 - score) ** 2 * math.log(score)
            else:
                focal -= (1 - float(wanted)) ** 4 * score**2 * math.log(1 - score)
        for cell, code in codes:
            boxes += 1
            found = torch.cat([maps[name][b].double().flatten(1)[:, cell] for name in CODE])
            for part, (start, end) in per.items():
                for i in range(start, end):
                    if not math.isnan(code[i]):
                        off = abs(float(found[i]) - code[i])
                        parts[part] = parts.get(part, 0.0) + 0.25 * weights[i] * off
    losses = {part: parts.get(part, 0.0) / (boxes + 1e-4) for part in per}
    return {"heatmap": focal / max(positive, 1), **losses}


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 9999), count=st.integers(0, 15))
def test_losses_are_those_of_the_loops(seed, count):
    head, maps = head_of(small_bevdet()), raw_maps(seed, 2)
    scenes = [scene(seed, count), scene(seed + 7, count // 2)]
    scenes[0][0][::3, 7:] = math.nan
    boxes, labels = zip(*scenes, strict=True)
    got = head.loss(maps, boxes, labels)
    for task in range(6):
        for part, expected in losses_in_loops(maps[task], scenes, task).items():
            loss = float(got[f"task{task}.loss_{part}"])
            assert math.isclose(loss, expected, rel_tol=2e-4, abs_tol=1e-4), (task, part)


def test_maps_of_what_is_to_be_learned_cost_next_to_nothing_and_give_the_boxes_back():
    cfg = small_bevdet()
    head = head_of(cfg)
    boxes, labels = scene(3, 8, reach=45.0)
    maps = raw_maps(0, 1)
    for raw, (targets,) in zip(maps, head.targets([boxes], [labels]), strict=True):
        raw["heatmap"][0] = (targets.heatmap_KHW.clamp(1e-5, 1 - 1e-5)).logit()
        for name, part in zip(CODE, targets.code_M.split(list(CODE.values()), 1), strict=True):
            raw[name][0].flatten(1)[:, targets.cell_M] = part.t()
    losses = head.loss(maps, [boxes], [labels])
    assert all(loss < 1e-3 for name, loss in losses.items() if "heatmap" not in name)
    (found,) = head.predict(maps)
    sure = found.scores_3d > 0.99
    got = in_order(found.bboxes_3d[sure], found.labels_3d[sure])
    expected = in_order(boxes, labels)
    assert torch.equal(got[:, 0], expected[:, 0])
    off = got[:, 1:] - expected[:, 1:]
    # a full turn is none
    off[:, 6] = off[:, 6].sin()
    torch.testing.assert_close(off, torch.zeros_like(off), rtol=0, atol=1e-3)


def in_order(boxes, labels):
    """(n, 10), class first, in an order that does not depend on theirs."""
    rows = torch.cat((labels[:, None].float(), boxes), 1)
    return rows[torch.argsort(rows[:, 0] * 1000 + rows[:, 1])]


# --- boxes ----------------------------------------------------------------------------------------


def boxes_in_loops(maps, task, cfg):
    """A task's boxes in a sample, best first, in the loops of CenterPoint and of Scale-NMS."""
    shapely = pytest.importorskip("shapely", reason="the exact reference")
    cell, side = 3.2, maps["heatmap"].shape[-1]
    candidates = []
    for k in range(len(TASKS[task])):
        for row in range(side):
            for column in range(side):
                at = {name: value[:, row, column].double() for name, value in maps.items()}
                score = float(at["heatmap"][k].sigmoid())
                x = (column + float(at["reg"][0])) * cell - 51.2
                y = (row + float(at["reg"][1])) * cell - 51.2
                yaw = math.atan2(float(at["rot"][0]), float(at["rot"][1]))
                size = at["dim"].exp().tolist()
                box = [x, y, float(at["height"]), *size, yaw, *at["vel"].tolist()]
                candidates.append((score, k, box))
    candidates = sorted(candidates, key=lambda one: -one[0])[:500]
    low, high = [-61.2, -61.2, -10.0], [61.2, 61.2, 10.0]
    candidates = [
        one
        for one in candidates
        if one[0] > 0.1 and all(a <= c <= b for a, c, b in zip(low, one[2][:3], high, strict=True))
    ]
    kind, factors = cfg["nms_type"][task], cfg["nms_rescale_factor"][task]
    kept = []
    for score, k, box in candidates:
        (
            x,
            y,
            _,
            w,
            length,
            *_,
        ) = box
        if kind == "circle":
            near = any(
                (x - other[0]) ** 2 + (y - other[1]) ** 2 <= cfg["min_radius"][task]
                for _, _, other, _ in kept
            )
            shape = None
        else:
            factor = factors[k] if isinstance(factors, list) else factors
            turn = complex(math.cos(box[6]), -math.sin(box[6]))
            corners = [
                complex(x, y) + turn * factor * complex(a * w, b * length) / 2
                for a, b in ((1, 1), (-1, 1), (-1, -1), (1, -1))
            ]
            shape = shapely.Polygon([(c.real, c.imag) for c in corners])
            near = any(
                shape.intersection(other).area > cfg["nms_thr"][task] * shape.union(other).area
                for _, _, _, other in kept
            )
        if not near:
            kept.append((score, k, box, shape))
    return [(score, FIRST[task] + k, box) for score, k, box, _ in kept[:83]]


@pytest.mark.parametrize("seed", [0, 1])
def test_boxes_are_those_of_the_loops(seed):
    cfg = small_bevdet()
    head, maps = head_of(cfg), raw_maps(seed, 2, side=14)
    for raw in maps:
        raw["heatmap"] = raw["heatmap"] * 1.5 - 2
        raw["dim"] = raw["dim"] * 0.4 + 0.5
        raw["height"] *= 3
    found = head.predict(maps)
    for b, got in enumerate(found):
        expected = []
        for task, raw in enumerate(maps):
            one = {name: value[b] for name, value in raw.items()}
            expected += boxes_in_loops(one, task, cfg["test_cfg"]["pts"])
        assert got.labels_3d.tolist() == [label for _, label, _ in expected]
        scores = torch.tensor([score for score, _, _ in expected])
        torch.testing.assert_close(got.scores_3d, scores)
        boxes = torch.tensor([box for _, _, box in expected])
        torch.testing.assert_close(got.bboxes_3d, boxes, rtol=1e-4, atol=1e-4)


def test_without_offsets_a_centre_is_in_the_middle_of_its_cell():
    coder = head_of(small_bevdet()).bbox_coder
    heat = torch.zeros(1, 1, 4, 4)
    heat[0, 0, 2, 1] = 0.9
    one = torch.ones(1, 1, 4, 4)
    size, speed = one.expand(1, 3, 4, 4), one.expand(1, 2, 4, 4)
    (found,) = coder.decode(heat, one * 0, one, one, size, speed)
    assert found["bboxes"][0].tolist() == pytest.approx(
        [1.5 * 3.2 - 51.2, 2.5 * 3.2 - 51.2, 1, 1, 1, 1, 0, 1, 1]
    )
