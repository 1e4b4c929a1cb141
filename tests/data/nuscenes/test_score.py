"""The metrics of nuScenes against a slow reference, against the devkit, and what must hold."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nuscenes_samples import metric_of, sample_of, truth

from sparsevit.data.dice import Dice
from sparsevit.data.nuscenes.metric import NuScenesMetric
from sparsevit.data.nuscenes.names import CLASSES, RANGES
from sparsevit.data.nuscenes.score import DISTANCES, ERRORS, Boxes, countable, score
from sparsevit.data.nuscenes.tables import Frame
from sparsevit.errors import UserError

RECORDED = Path(__file__).with_name("devkit_results.json")


def guesses(frame: Frame, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a fair detector might find: boxes moved, turned, grown, missed, doubled, mistaken."""
    boxes, _, labels = truth(frame)
    dice, found, scores, classes = Dice(seed), [], [], []
    for box, label in zip(boxes, labels, strict=True):
        for _ in range(dice.integer(0, 2)):
            moved = box.copy()
            moved[:2] += [dice.bell() * 0.7, dice.bell() * 0.7]
            moved[3:6] *= dice.uniform(0.7, 1.4)
            moved[6] += dice.bell() * 0.5 + (math.pi if dice.chance(0.2) else 0)
            moved[7:] += [dice.bell() * 0.3, dice.bell() * 0.3]
            found.append(moved)
            # equal scores come up too
            scores.append(round(dice.uniform(0.05, 1), 1))
            classes.append(int(label) if dice.chance(0.9) else dice.integer(0, 9))
    return np.array(found).reshape(-1, 9), np.array(scores), np.array(classes, int)


def evaluated(metric: NuScenesMetric, frames: Any, found: Any) -> dict[str, float]:
    for seed, frame in enumerate(frames):
        given = found(frame) if found is truth else found(frame, seed)
        metric.process(None, [sample_of(frame, *given)])
    values = metric.evaluate(len(frames))
    return {name.removeprefix("NuScenes/"): value for name, value in values.items()}


def test_the_truth_itself_scores_1(root: Path, frames: tuple[Frame, ...]) -> None:
    metrics = evaluated(metric_of(root), frames, truth)
    assert [metrics[f"{name}_AP"] for name in CLASSES] == pytest.approx([1.0] * 10)
    assert metrics["mAP"] == pytest.approx(1.0)
    assert metrics["NDS"] > 0.995
    for error in ("mATE", "mASE", "mAOE"):
        assert metrics[error] == pytest.approx(0, abs=1e-5)


def test_nothing_found_scores_0(root: Path, frames: tuple[Frame, ...]) -> None:
    metrics = evaluated(
        metric_of(root), frames, lambda frame, seed: (np.zeros((0, 9)), [], np.zeros(0, int))
    )
    assert metrics["NDS"] == metrics["mAP"] == metrics["car_AP"] == 0
    assert {metrics[said] for said in ERRORS.values()} == {1.0}


def test_the_devkit_gives_the_same(root: Path, frames: tuple[Frame, ...]) -> None:
    pytest.importorskip("nuscenes.eval.detection.evaluate")
    for found in (guesses, truth):
        ours = evaluated(metric_of(root), frames, found)
        theirs = evaluated(metric_of(root, devkit=True), frames, found)
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            assert ours[name] == pytest.approx(value, abs=1e-9), name


def test_the_devkit_gave_the_same() -> None:
    """``devkit_results.json`` has boxes, and what nuscenes-devkit 1.2.0 computed of them."""
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    samples = [(boxes_of(one["real"]), boxes_of(one["found"])) for one in recorded["samples"]]
    found = score(samples)
    ours = {**found.metrics, **{f"{name}_AP": value for name, value in found.ap.items()}}
    assert ours == pytest.approx(recorded["metrics"], abs=1e-6)
    assert 0.2 < ours["mAP"] < 0.8


def boxes_of(content: dict[str, Any]) -> Boxes:
    def rows(key: str, width: int) -> np.ndarray:
        return np.array(content[key], float).reshape(-1, width)

    return Boxes(
        names=np.array(content["names"], object),
        centres=rows("centres", 3),
        sizes=rows("sizes", 3),
        yaws=np.array(content["yaws"], float),
        velocities=rows("velocities", 2),
        attributes=np.array(content["attributes"], object),
        scores=np.array(content["scores"], float),
    )


def test_parts_of_a_split_can_be_scored(root: Path, frames: tuple[Frame, ...]) -> None:
    whole = evaluated(metric_of(root), frames, truth)
    part = evaluated(metric_of(root), frames[:4], truth)
    assert part["car_AP"] == whole["car_AP"] == pytest.approx(1)


def test_results_are_written_in_the_benchmarks_form(
    root: Path, frames: tuple[Frame, ...], tmp_path: Path
) -> None:
    out = tmp_path / "results.json"
    evaluated(metric_of(root, outfile=str(out)), frames[:2], guesses)
    content = json.loads(out.read_text(encoding="utf-8"))
    assert content["meta"]["use_camera"] is True
    assert set(content["results"]) == {frame.token for frame in frames[:2]}
    for box in content["results"][frames[0].token]:
        assert len(box["translation"]) == len(box["size"]) == 3
        assert np.linalg.norm(box["rotation"]) == pytest.approx(1)
        assert box["detection_name"] in CLASSES


def test_at_most_500_boxes_count_of_a_sample(root: Path, frames: tuple[Frame, ...]) -> None:
    boxes, _, labels = truth(frames[0])
    near = np.repeat(boxes[:1], 700, axis=0)
    metric = metric_of(root)
    given = near, np.linspace(0.2, 0.1, 700), np.repeat(labels[:1], 700)
    sample = sample_of(frames[0], *given)
    metric.process(None, [sample])
    metric.evaluate(1)
    from sparsevit.data.nuscenes.metric import detections

    found, rotations = detections({**sample, **sample["pred_instances_3d"]}, CLASSES)
    assert len(found.scores) == len(rotations) == 500
    assert found.scores.min() == pytest.approx(np.linspace(0.2, 0.1, 700)[499])


def test_a_missing_devkit_is_said(
    root: Path, frames: tuple[Frame, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nuscenes.eval.common.config", None)
    with pytest.raises(UserError, match="nuscenes-devkit cannot be imported"):
        evaluated(metric_of(root, devkit=True), frames[:1], truth)


# --- a slow reference ----------------------------------------------------------------------------


def random_boxes(dice: Dice, count: int) -> Boxes:
    sizes = np.array([[dice.uniform(0.4, 3) for _ in range(3)] for _ in range(count)])
    names = [dice.pick(("car", "pedestrian", "traffic_cone", "barrier")) for _ in range(count)]
    attributes = [dice.pick(("", "vehicle.moving", "vehicle.parked")) for _ in range(count)]
    places = [[dice.uniform(0, 9), dice.uniform(0, 9), dice.uniform(0, 2)] for _ in range(count)]
    velocities = [
        [math.nan, math.nan] if dice.chance(0.1) else [dice.bell(), dice.bell()]
        for _ in range(count)
    ]
    return Boxes(
        names=np.array(names, object),
        centres=np.array(places).reshape(-1, 3),
        sizes=sizes.reshape(-1, 3),
        yaws=np.array([dice.uniform(-4, 4) for _ in range(count)]),
        velocities=np.array(velocities).reshape(-1, 2),
        attributes=np.array(attributes, object),
        scores=np.array([round(dice.unit(), 2) for _ in range(count)]),
    )


def slow_ap(samples: list[tuple[Boxes, Boxes]], name: str, most: float) -> float:
    """AP by the paper's words: precision above 10 % over recalls above 10 %."""
    ranked = [
        (found.scores[i], place, i)
        for place, (_, found) in enumerate(samples)
        for i in range(len(found.scores))
        if found.names[i] == name
    ]
    # as in the devkit: of equal scores the one that comes later first
    ranked = [one for _, one in sorted(enumerate(ranked), key=lambda e: (-e[1][0], -e[0]))]
    total = sum(int((real.names == name).sum()) for real, _ in samples)
    taken, hits = set(), []
    for _, place, i in ranked:
        real, found = samples[place]
        best, nearest = math.inf, -1
        for j in range(len(real.scores)):
            if real.names[j] != name or (place, j) in taken:
                continue
            away = math.dist(real.centres[j][:2], found.centres[i][:2])
            if away < best:
                best, nearest = away, j
        hits.append(best < most)
        if best < most:
            taken.add((place, nearest))
    if not any(hits) or not total:
        return 0.0
    recall = np.cumsum(hits) / total
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    at = np.interp(np.linspace(0, 1, 101), recall, precision, right=0)
    return float(np.mean([max(0.0, value - 0.1) for value in at[11:]])) / 0.9


@pytest.mark.parametrize("seed", range(6))
def test_ap_is_that_of_a_slow_reference(seed: int) -> None:
    dice = Dice(seed)
    samples = [(random_boxes(dice, 9), random_boxes(dice, 14)) for _ in range(4)]
    found = score(samples, ("car", "pedestrian", "traffic_cone", "barrier", "bus"))
    for name, values in found.ap_at.items():
        expected = [slow_ap(samples, name, most) for most in DISTANCES]
        assert values == pytest.approx(expected, abs=1e-12)
    assert found.ap["bus"] == 0
    assert found.errors["bus"]["trans"] == 1
    assert math.isnan(found.errors["traffic_cone"]["orient"])
    assert math.isnan(found.errors["barrier"]["vel"])
    assert found.metrics["mAP"] == pytest.approx(np.mean(list(found.ap.values())))


def test_cycles_in_a_rack_and_what_is_far_away_do_not_count() -> None:
    places = [[5, 0, 1], [5, 1.5, 1], [5, 0.4, 1], [5, 0, 4], [45, 0, 1], [45, 0, 1]]
    count = len(places)
    boxes = replace(
        random_boxes(Dice(0), count),
        centres=np.array(places, float),
        names=np.array(["bicycle", "motorcycle", "car", "bicycle", "bicycle", "truck"], object),
    )
    # 4 m long, 1 m wide, 2 m high, across
    rack = [5, 0, 1, 1, 4, 2, math.sqrt(0.5), 0, 0, math.sqrt(0.5)]
    kept = countable(boxes, np.zeros(3), np.array([rack]))
    assert list(kept) == [False, False, True, True, False, True]
    assert list(countable(boxes, np.zeros(3), np.zeros((0, 10)))) == [True] * 4 + [False, True]


def test_every_class_has_a_range() -> None:
    assert set(RANGES) == set(CLASSES)
