"""Scoring on more and more images: nested, each seen once, and in the end as on all at once."""

import pytest

from sparsevit.engine.config import load_config
from sparsevit.engine.evaluation import Evaluation
from sparsevit.engine.partial_evaluation import PartialEvaluation
from sparsevit.engine.runner import build_model
from sparsevit.errors import UserError
from sparsevit.tasks.detection import Detection

SHARES = (0.125, 0.25, 0.5)


@pytest.fixture(scope="module")
def scored(finished):
    cfg = load_config(finished.documents["adapt"]["config"])
    model, _ = build_model(cfg, finished.documents["adapt"]["checkpoint"])
    return cfg, model


def test_all_parts_together_score_as_the_whole(scored):
    cfg, model = scored
    whole = Evaluation(cfg)
    parts = PartialEvaluation(cfg, whole, SHARES)
    for share in SHARES:
        parts(model, "a", share)
    assert parts(model, "a", 1.0) == pytest.approx(whole(model))


def test_no_image_is_seen_twice_of_one_model(scored, monkeypatch):
    cfg, model = scored
    seen = []
    original = Evaluation.predictions

    def noted(self, model):
        seen.extend(self.image_ids())
        return original(self, model)

    monkeypatch.setattr(Evaluation, "predictions", noted)
    parts = PartialEvaluation(cfg, Evaluation(cfg), SHARES, seed=3)
    for share in (*SHARES, 1.0):
        parts(model, "a", share)
        assert len(seen) == len(set(seen)) == parts.images(share)
    parts(model, "b", SHARES[0])
    assert len(seen) == 6 + parts.images(SHARES[0])


def test_a_share_scores_the_same_whatever_was_scored_before(scored):
    cfg, model = scored
    whole = Evaluation(cfg)
    first = PartialEvaluation(cfg, whole, SHARES)
    again = PartialEvaluation(cfg, whole, SHARES)
    first(model, "a", 1.0)
    assert first(model, "a", 0.5) == again(model, "a", 0.5)


def test_metrics_that_need_all_images_are_refused(scored, monkeypatch):
    whole = Evaluation(scored[0])
    monkeypatch.setattr(Detection, "scores_parts", lambda self, metrics: False)
    with pytest.raises(UserError, match="only be computed on all images"):
        PartialEvaluation(scored[0], whole, SHARES)
