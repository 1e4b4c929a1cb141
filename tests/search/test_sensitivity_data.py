"""A sensitivity as data: curves by knob, kept as JSON."""

from __future__ import annotations

import json

import pytest

from sparsevit.errors import UserError
from sparsevit.search.sensitivity import Response, Sensitivity, read_sensitivity
from sparsevit.sparsity import Space
from sparsevit.sparsity.sweep import sweep

SPACE = Space.staged((2, 4), choices=(0.0, 0.3, 0.6), prefix="backbone.stages")
FIRST, SECOND = "backbone.stages.0", "backbone.stages.1_1"


def made(space=SPACE):
    """Scores fall by ten times the mean ratio, latencies by a hundred times."""

    def response(knob, ratio, configuration):
        mean = configuration.mean()
        scores = {"bbox_mAP": 40 - 10 * mean, "segm_mAP": 30 - 10 * mean}
        return Response(knob, ratio, configuration, scores, 200 - 100 * mean)

    points = [response(p.knob, p.ratio, p.configuration) for p in sweep(space)]
    return Sensitivity(response(None, 0.0, space.dense()), tuple(points), 6, "measured")


def test_a_curve_begins_with_dense_and_ascends():
    found = made()
    assert list(found.scores("bbox_mAP")) == list(SPACE.names)
    assert found.scores("bbox_mAP")[FIRST] == ((0.0, 40.0), (0.3, 39.0), (0.6, 38.0))
    # the second of two knobs is raised with the first
    assert found.latencies()[SECOND] == ((0.0, 200.0), (0.3, 180.0), (0.6, 160.0))


def test_a_metric_that_was_not_evaluated_says_which_were():
    with pytest.raises(UserError, match="bbox_mAP, segm_mAP"):
        made().scores("mIoU")


def test_it_survives_json(tmp_path):
    path = tmp_path / "sensitivity.json"
    path.write_text(json.dumps(made().to_dict()), encoding="utf-8")
    assert read_sensitivity(path) == made()


@pytest.mark.parametrize(
    "change",
    [
        {"latency": "guessed"},
        {"dense": None},
        {"images": None},
        {"responses": [{"knob": "nothing"}]},
        {"responses": [{**made().to_dict()["responses"][0], "knob": "nothing"}]},
        {"responses": [{**made().to_dict()["responses"][0], "latency_ms": "nan"}]},
        {"responses": [{**made().to_dict()["responses"][0], "scores": {"mIoU": 1}}]},
    ],
    ids=["latency", "dense", "images", "short", "knob", "number", "metrics"],
)
def test_what_is_none_is_not_taken(tmp_path, change):
    path = tmp_path / "sensitivity.json"
    path.write_text(json.dumps({**made().to_dict(), **change}), encoding="utf-8")
    assert read_sensitivity(path) is None


def test_a_file_that_is_missing_or_cut_short_is_none(tmp_path):
    path = tmp_path / "sensitivity.json"
    assert read_sensitivity(path) is None
    path.write_text(json.dumps(made().to_dict())[:-20], encoding="utf-8")
    assert read_sensitivity(path) is None
