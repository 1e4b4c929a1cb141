"""Calibration and search of a model of one's own, and what they leave behind."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from mmdet_backbones import small_swin

from sparsevit import RandomSparsity, calibrate, search_configuration, sparsify
from sparsevit.errors import UserError
from sparsevit.sparsity.handle import SparsityHandle


class Network(torch.nn.Module):
    """Of one's own: a backbone, and what it is for."""

    def __init__(self):
        super().__init__()
        self.swin = small_swin(
            "SwinTransformer", depths=[2, 2], num_heads=[1, 2], strides=[4, 2], out_indices=[1]
        )

    def forward(self, images, scale=1.0):
        return scale * self.swin(images)[-1].mean((1, 2, 3))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return sparsify(Network()).train()


IMAGES = torch.randn(1, 3, 112, 112)


def dense_share(model):
    """A score that is best where most is left."""
    return -sum(SparsityHandle(model).get().values())


def test_a_calibration_predicts_what_it_measured(model):
    predictor = calibrate(model, IMAGES, seconds=1.0, held_out=2)
    space = SparsityHandle(model).space
    assert predictor.predict(space.dense()) == pytest.approx(predictor.dense_ms)
    assert predictor.dense_ms > 0
    assert set(predictor.calibration.tables) == set(space.names)
    assert len(predictor.calibration.held_out) == 2
    assert predictor.predict(space.max()) != predictor.predict(space.dense())


@pytest.mark.parametrize(
    "inputs",
    [IMAGES, (IMAGES, 2.0), {"images": IMAGES, "scale": 2.0}],
    ids=["one", "many", "named"],
)
def test_a_search_finds_the_best_score_within_the_interval(model, inputs):
    seen = []

    def score(candidate):
        assert not candidate.training
        assert not torch.is_grad_enabled()
        seen.append(SparsityHandle(candidate).get())
        return dense_share(candidate)

    found = search_configuration(model, score, inputs, max_ms=1e6, trials=6, latency_seconds=0.01)
    assert found.feasible == 6
    assert found.best.configuration in seen
    assert found.best.score == max(-sum(each.values()) for each in seen)


def test_the_model_is_left_as_it_was(model):
    handle = SparsityHandle(model)
    before = handle.set({"swin.stages.0": 0.3, "swin.stages.1": 0.5})
    model.swin.norm1.eval()
    search_configuration(model, dense_share, IMAGES, max_ms=1e6, trials=2, latency_seconds=0.01)
    calibrate(model, IMAGES, seconds=0.1, held_out=1)
    assert handle.get() == before
    assert model.training
    assert not model.swin.norm1.training


def test_a_search_goes_on_where_its_storage_ends(model, tmp_path):
    scored = []

    def score(candidate):
        scored.append(SparsityHandle(candidate).get())
        if len(scored) == 3:
            raise KeyboardInterrupt
        return dense_share(candidate)

    how = {
        "max_ms": 1e6,
        "trials": 5,
        "latency_seconds": 0.01,
        "storage": tmp_path / "search.db",
    }
    with pytest.raises(KeyboardInterrupt):
        search_configuration(model, score, IMAGES, **how)
    found = search_configuration(model, score, IMAGES, **how)
    assert found.feasible == 5
    # the one that was interrupted is scored again, no other
    assert len(scored) == 6


def test_a_study_of_other_inputs_is_not_gone_on_with(model, tmp_path):
    how = {"max_ms": 1e6, "trials": 1, "latency_seconds": 0.01, "storage": tmp_path / "s.db"}
    search_configuration(model, dense_share, IMAGES, **how)
    with pytest.raises(UserError):
        search_configuration(model, dense_share, IMAGES[..., :100], **how)


def test_an_interval_out_of_reach_is_refused(model):
    with pytest.raises(UserError, match="No configuration"):
        search_configuration(
            model, dense_share, IMAGES, max_ms=1e-4, trials=1, latency_seconds=0.01
        )


def test_a_dense_model_has_nothing_to_tune():
    with pytest.raises(UserError, match="no part that can be skipped"):
        calibrate(torch.nn.Conv2d(3, 3, 1), IMAGES)
    with pytest.raises(UserError, match="no part that can be skipped"):
        RandomSparsity(torch.nn.Conv2d(3, 3, 1))


def test_none_of_it_needs_openmmlab():
    code = """
import sys
from importlib.abc import MetaPathFinder

class Hidden(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("mmdet", "mmcv", "mmengine", "mmpretrain", "mmseg"):
            raise ImportError(name)

sys.meta_path.insert(0, Hidden())
import sparsevit
for name in sparsevit.__all__:
    getattr(sparsevit, name)
assert set(sparsevit.__all__) <= set(dir(sparsevit)), dir(sparsevit)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
