"""A task is found from a config, a model or a scope; nothing outside tasks/ knows one by name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mmengine.config import Config
from torch import nn

import sparsevit
from sparsevit.engine.config import load_config, sparsify_config
from sparsevit.engine.runner import build_model
from sparsevit.errors import UserError
from sparsevit.tasks import TASKS, headlines, task_of, task_of_model, task_of_scope

PACKAGE = Path(sparsevit.__file__).parent
OF_DETECTION = re.compile("bbox_mAP|DetDataSample|DetLocalVisualizer|Mask R-CNN")
# what is registered with mmdet: BEVDet's model and data have samples of its kind
OF_MMDET = {"tasks", "bev", "nuscenes"}


def of(kind, **cfg):
    return Config({"model": {"type": kind}, **cfg})


@pytest.mark.parametrize(
    "cfg",
    [
        of("MaskRCNN", default_scope="mmdet"),
        of("mmdet.MaskRCNN", default_scope="mmseg"),
        of("of_somebody", default_scope="mmdet"),
        of("MaskRCNN"),
        of("MaskRCNN", default_scope="sparsevit"),
    ],
    ids=["scope", "prefix", "unknown type", "no scope", "our scope"],
)
def test_a_config_of_mmdet_is_of_detection(cfg):
    assert task_of(cfg).name == "detection"


@pytest.mark.parametrize(
    "cfg",
    [
        of("MAE", default_scope="mmpretrain"),
        of("mmpretrain.MAE", default_scope="mmdet"),
        of("NobodyKnows"),
        Config({}),
    ],
    ids=["scope", "prefix", "unknown type", "no model"],
)
def test_a_config_of_no_task_says_which_there_are(cfg):
    with pytest.raises(UserError, match="No task supports") as caught:
        task_of(cfg)
    assert "detection (mmdet)" in caught.value.remedy


def test_a_model_names_its_task_and_its_backbone(tiny_config):
    model, _ = build_model(sparsify_config(load_config(tiny_config)))
    task = task_of_model(model)
    assert task is TASKS["detection"]
    assert task.backbone_of(model) is model.backbone
    with pytest.raises(UserError, match="ModuleDict is not a model of any"):
        task_of_model(nn.ModuleDict())


def test_a_scope_names_the_task_of_a_whole_model():
    assert task_of_scope("backbone") is None
    assert task_of_scope("detector") is TASKS["detection"]
    with pytest.raises(UserError, match="no scope 'neck'") as caught:
        task_of_scope("neck")
    assert "backbone, detector" in caught.value.remedy


def test_the_metric_that_is_taken_where_none_is_named_is_a_headline():
    assert all(task.metric == next(iter(task.headlines)) for task in TASKS.values())
    assert list(headlines())[:2] == ["bbox_mAP", "segm_mAP"]


def test_nothing_outside_tasks_speaks_of_detection_by_name():
    said = [
        f"{path.relative_to(PACKAGE)}:{number}: {line.strip()}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if not OF_MMDET & set(path.relative_to(PACKAGE).parts)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if OF_DETECTION.search(line)
    ]
    assert said == []


def test_backends_ask_a_module_for_its_form_and_not_for_its_class():
    for folder in ("latency", "tasks"):
        for path in (PACKAGE / folder).rglob("*.py"):
            assert not re.search(r"\bSparseViT\b", path.read_text(encoding="utf-8")), path
