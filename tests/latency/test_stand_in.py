"""A backbone that a backend executes inside its detector."""

from __future__ import annotations

import pytest
import torch
from mmdet.models.backbones.swin import SwinTransformer
from mmdet_backbones import small_swin
from torch import nn

from sparsevit.errors import UserError
from sparsevit.latency.backends import registry
from sparsevit.latency.backends.stand_in import StandIn, backbone_in
from sparsevit.sparsity.handle import SparsityHandle

CPU = torch.device("cpu")
ONE_STAGE = {"depths": [2], "num_heads": [1], "strides": [4], "out_indices": [0]}


@pytest.fixture
def detector():
    torch.manual_seed(0)
    return nn.ModuleDict({"backbone": small_swin("SparseViT", **ONE_STAGE), "neck": nn.Identity()})


@pytest.fixture
def prepared(monkeypatch):
    """What the eager backend was asked to prepare: (ratio, shape) of each."""
    asked = []
    eager = registry.BACKENDS["eager"]

    def prepare(backbone, images, precision, device):
        asked.append((backbone.pruning_ratios[0][0], tuple(images.shape)))
        return eager.prepare(backbone, images, precision, device)

    spied = registry.Backend("eager", eager.require, prepare)
    monkeypatch.setitem(registry.BACKENDS, "eager", spied)
    return asked


def images(height=64, width=96):
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_each_sparsity_and_shape_is_prepared_once(detector, prepared):
    backbone = detector["backbone"]
    with torch.no_grad(), backbone_in(detector, "eager", "fp32", CPU):
        for ratio, shape in [(0.0, (64, 96)), (0.5, (64, 96)), (0.5, (96, 64)), (0.0, (64, 96))]:
            backbone.pruning_ratios = ratio
            torch.testing.assert_close(
                detector["backbone"](images(*shape)), backbone(images(*shape))
            )
    assert prepared == [(0.0, (1, 3, 64, 96)), (0.5, (1, 3, 64, 96)), (0.5, (1, 3, 96, 64))]


def test_the_oldest_is_dropped_where_there_are_more_than_are_kept(detector, prepared):
    stand_in = StandIn(detector["backbone"], "eager", "fp32", CPU, keep=2)
    for height in (64, 96, 64, 128, 64, 96):
        stand_in(images(height))
    assert [shape[2] for _, shape in prepared] == [64, 96, 128, 96]


def test_who_waits_is_told_what_for(detector):
    told = []
    with backbone_in(detector, "eager", "fp32", CPU, on_prepare=told.append):
        for height in (64, 64, 96):
            detector["backbone"](images(height))
    assert told == [(1, 3, 64, 96), (1, 3, 96, 96)]


def test_other_precisions_come_back_as_fp32(detector):
    backbone = detector["backbone"].eval()
    with torch.no_grad(), backbone_in(detector, "eager", "bf16", CPU):
        (got,) = detector["backbone"](images())
        (exact,) = backbone(images())
    assert got.dtype == torch.float32
    assert 0 < (got - exact).abs().max() < 0.2


def test_the_detector_is_itself_again_afterwards(detector):
    backbone = detector["backbone"].train()
    names = list(detector.state_dict())

    def interrupted():
        with backbone_in(detector, "eager", "fp32", CPU):
            assert detector["backbone"] is not backbone
            detector["backbone"](images())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert detector["backbone"] is backbone
    assert backbone.training
    assert list(detector) == ["backbone", "neck"]
    assert list(detector.state_dict()) == names


def test_ratios_are_set_as_before_by_a_handle_that_was_there(detector):
    handle = SparsityHandle(detector)
    with torch.no_grad(), backbone_in(detector, "eager", "fp32", CPU):
        dense = detector["backbone"](images())
        handle.set(dict.fromkeys(handle.space.names, 0.5))
        assert not torch.equal(detector["backbone"](images())[0], dense[0])


def test_a_dense_peer_is_executed_too():
    swin = nn.ModuleDict({"backbone": small_swin("SwinTransformer", **ONE_STAGE)}).eval()
    with torch.no_grad():
        expected = swin["backbone"](images())
        with backbone_in(swin, "eager", "fp32", CPU):
            torch.testing.assert_close(swin["backbone"](images()), expected)
    assert isinstance(swin["backbone"], SwinTransformer)


def test_what_there_is_not_is_refused_before_anything_is_replaced(detector):
    backbone = detector["backbone"]
    with pytest.raises(UserError), backbone_in(detector, "tflite", "fp32", CPU):
        pass
    assert detector["backbone"] is backbone
