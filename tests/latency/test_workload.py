"""What is timed runs, at every scope and precision."""

from __future__ import annotations

import pytest
import torch
from mmdet_backbones import small_swin
from torch import nn

from sparsevit.engine.config import load_config, sparsify_config
from sparsevit.engine.runner import build_model
from sparsevit.errors import UserError
from sparsevit.latency.execution import Execution
from sparsevit.latency.workload import Workload
from sparsevit.tasks import TASKS
from sparsevit.tasks.detection import Detection


@pytest.fixture
def backbone():
    return nn.ModuleDict({"backbone": small_swin("SparseViT")})


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_backbone_runs_at_every_precision(backbone, precision):
    execution = Execution(batch_size=2, img_size=(64, 96), precision=precision)
    outs = Workload(backbone, execution, task=Detection())()
    assert tuple(outs[0].shape) == (2, 16, 16, 24)
    assert not outs[0].requires_grad


def test_a_detector_runs_from_pixels_to_boxes_and_masks(tiny_config):
    detector, _ = build_model(sparsify_config(load_config(tiny_config)))
    found = Workload(detector, Execution("detector", batch_size=2, img_size=(96, 64)))()
    assert len(found) == 2
    assert found[0].pred_instances.masks.shape[1:] == (96, 64)


def test_a_detector_takes_images_that_are_given(tiny_config):
    detector, _ = build_model(sparsify_config(load_config(tiny_config)))
    pixels = torch.zeros(3, 3, 64, 64, dtype=torch.uint8)
    batch = TASKS["detection"].batch_of(pixels)
    assert len(Workload(detector, Execution("detector"), batch=batch)()) == 3


def test_a_call_sets_its_configuration_first(backbone):
    workload = Workload(backbone, Execution(batch_size=1, img_size=(64, 64)), task=Detection())
    handle = workload.handle
    sparse = workload.at(handle.space.uniform(0.5))
    dense = workload.at(handle.space.dense())
    sparse(), dense()
    assert handle.get() == handle.space.dense()
    sparse()
    assert handle.get() == handle.space.uniform(0.5)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"scope": "neck"}, "backbone, detector"),
        ({"precision": "int8"}, "fp32, fp16, bf16"),
        ({"batch_size": 0}, "at least one image"),
        ({"img_size": (16, 224)}, "32x32"),
    ],
)
def test_what_cannot_be_timed_says_what_can(backbone, wrong, says):
    with pytest.raises(UserError, match=says):
        Workload(backbone, Execution(**wrong), task=Detection())
