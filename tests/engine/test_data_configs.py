"""YAML and JSON configs are data: whatever they say, nothing in them runs."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import mmengine
import numpy as np
import pytest
import torch
import yaml
from mmengine.structures import InstanceData

from sparsevit.engine import data_files
from sparsevit.engine.config import dump_config, load_config
from sparsevit.engine.data_config import _CHOSEN, _is_known
from sparsevit.engine.data_files import reading_data
from sparsevit.engine.safe_load import make_loading_safe
from sparsevit.errors import UserError

SWIN = "swin/mask_rcnn_swin-t_3x.py"


@pytest.fixture
def trace(tmp_path, monkeypatch) -> Path:
    """A file that exists once code of a config ran; a module that makes it is on the path."""
    made = tmp_path / "was-run"
    (tmp_path / "modules").mkdir()
    text = f"open({str(made)!r}, 'w').close()\ndef run(*args, **kwargs): pass\n"
    for name in ("evil_of_config", "registry"):
        (tmp_path / "modules" / f"{name}.py").write_text(text)
    package = tmp_path / "modules" / "evil_scope"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "registry.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    yield made
    for name in ("evil_of_config", "evil_scope", "evil_scope.registry"):
        sys.modules.pop(name, None)


def written(folder: Path, content: Any, suffix: str = ".yaml") -> Path:
    path = folder / f"config{suffix}"
    path.write_text(json.dumps(content) if suffix == ".json" else yaml.safe_dump(content))
    return path


RUNS: dict[str, Any] = {
    "hook": {"custom_hooks": [{"type": "subprocess.getoutput", "cmd": "touch {trace}"}]},
    "hook of builtins": {"custom_hooks": [{"type": "builtins.exec", "source": "1"}]},
    "hook of a module on the path": {"custom_hooks": [{"type": "evil_of_config.run"}]},
    "module by its bare name": {"custom_hooks": [{"type": "evil_of_config"}]},
    "module that is installed": {"custom_hooks": [{"type": "antigravity"}]},
    "deep inside": {"a": [{"b": ({"c": {"type": "os.system", "command": "true"}},)}]},
    "deep list": {"a": [[[[{"type": "os.system"}]]]]},
    "main": {"model": {"type": "__main__.main"}},
    "class that is not registered": {"model": {"type": "torch.nn.Linear"}},
    "class of the framework": {"model": {"type": "mmdet.models.detectors.MaskRCNN"}},
    "framework's own importer": {"model": {"type": "mmengine.utils.import_modules_from_strings"}},
    "scope before a path": {"model": {"type": "mmdet.os.system"}},
    "scope of a module on the path": {"model": {"type": "evil_scope.Model"}},
    "expression of an nms": {
        "model": {"test_cfg": {"nms": {"type": "__import__('os').system('true')"}}}
    },
    "name of an nms": {"model": {"test_cfg": {"nms": {"type": "exec"}}}},
    "scope": {"model": {"type": "MaskRCNN", "_scope_": "evil_scope"}},
    "default scope": {"default_scope": "evil_scope"},
    "imports": {"custom_imports": {"imports": ["evil_of_config"]}},
    "one import": {"custom_imports": {"imports": "evil_of_config"}},
    "import that may fail": {
        "custom_imports": {"imports": ["os", "evil_of_config"], "allow_failed_imports": True}
    },
    "import of a program": {"custom_imports": {"imports": ["sparsevit.__main__"]}},
    "relative import": {"custom_imports": {"imports": [".evil_of_config"]}},
    "imports without a mapping": {"custom_imports": ["evil_of_config"]},
    "constructor": {"optim_wrapper": {"constructor": "subprocess.getoutput"}},
    "constructor on the path": {"optim_wrapper": {"constructor": "evil_of_config.run"}},
    "type of a resize": {
        "train_pipeline": [{"type": "RandomChoiceResize", "resize_type": "subprocess.getoutput"}]
    },
    "type of an average": {"custom_hooks": [{"type": "EMAHook", "ema_type": "os.system"}]},
    "type of a convolution": {"model": {"neck": {"type": "FPN", "conv_type": "os.system"}}},
    "padding": {"model": {"neck": {"type": "FPN", "padding_mode": "os.system"}}},
    "runner": {"runner_type": "evil_of_config.run"},
    "collate": {"train_dataloader": {"collate_fn": {"type": "os.system"}}},
    "collate by name": {"train_dataloader": {"collate_fn": "evil_of_config.run"}},
    "worker": {"train_dataloader": {"worker_init_fn": {"type": "evil_of_config.run"}}},
    "sampler": {"train_dataloader": {"sampler": {"type": "evil_of_config.run"}}},
    "batch sampler": {"train_dataloader": {"batch_sampler": {"type": "subprocess.Popen"}}},
    "augment": {"model": {"data_preprocessor": {"batch_augments": [{"type": "os.system"}]}}},
    "initialiser": {"model": {"init_cfg": {"type": "subprocess.getoutput", "cmd": "true"}}},
    "visualiser": {"visualizer": {"type": "subprocess.getoutput"}},
    "writer": {"visualizer": {"vis_backends": [{"type": "subprocess.getoutput"}]}},
    "wrapper": {"model_wrapper_cfg": {"type": "subprocess.getoutput"}},
    "loop": {"train_cfg": {"type": "subprocess.getoutput"}},
    "metric": {"val_evaluator": [{"type": "subprocess.getoutput"}]},
    "storage": {"backend_args": {"backend": "memcached", "sys_path": "."}},
    "motion": {"tracker": {"warp_mode": "__import__('os').system('true')"}},
    "numpy's pickle": {"val_dataloader": {"dataset": {"hierarchy_file": "x.np"}}},
    "pickle of tags": {"model": {"tag_list": "x.np"}},
    "number format": {"train_pipeline": [{"dtype": "float32 or __import__('os').system('true')"}]},
    "code of a model": {"model": {"kwargs": {"trust_remote_code": True}}},
    "compiler": {"compile": {"options": {"cpp.cxx": ["./evil"]}}},
}


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
@pytest.mark.parametrize("what", RUNS)
def test_a_config_that_is_data_runs_nothing(what, suffix, tmp_path, trace):
    text = json.dumps(RUNS[what]).replace("{trace}", str(trace))
    with pytest.raises(UserError) as refused:
        load_config(written(tmp_path, json.loads(text), suffix))
    assert f"config{suffix}" in refused.value.problem
    assert refused.value.remedy
    assert not trace.exists()


@pytest.mark.parametrize("what", RUNS)
def test_set_runs_nothing_in_a_config_that_is_data(what, tmp_path, trace):
    path = written(tmp_path, {"a": 1})
    overrides = [f"{key}={value!r}" for key, value in RUNS[what].items()]
    with pytest.raises(UserError):
        load_config(path, overrides)
    assert not trace.exists()


@pytest.mark.parametrize(
    "override",
    [
        "custom_hooks=[{'type':'subprocess.getoutput','cmd':'true'}]",
        "model.backbone.type=subprocess.getoutput",
        "optim_wrapper.constructor='os.system'",
    ],
)
def test_set_takes_no_path_to_code_in_a_program(override, tiny_config):
    with pytest.raises(UserError, match="is a path to code"):
        load_config(tiny_config, [override])
    assert load_config(tiny_config, ["model.backbone.type=mmdet.SwinTransformer"])


PROGRAM = "open({trace!r}, 'w').close()\nmodel = dict(type='MaskRCNN')\n"


@pytest.mark.parametrize(
    "base",
    [
        "evil.py",
        "./evil.py",
        "sub/../evil.py",
        "{folder}/evil.py",
        ["data.json", "evil.py"],
        "link.py",
        "between.yaml",
        "sparsevit::../../../{folder}/evil.py",
        "sparsevit::{folder}/evil.py",
        "mmdet::{folder}/evil.py",
        "mmdet::../../../../../../../../../../{folder}/evil.py",
    ],
)
def test_a_config_that_is_data_inherits_from_no_program(base, tmp_path, trace):
    (tmp_path / "sub").mkdir()
    (tmp_path / "evil.py").write_text(PROGRAM.format(trace=str(trace)))
    (tmp_path / "link.py").symlink_to(tmp_path / "evil.py")
    (tmp_path / "data.json").write_text("{}")
    (tmp_path / "between.yaml").write_text("_base_: evil.py\n")
    text = json.dumps({"_base_": base}).replace("{folder}", str(tmp_path))
    with pytest.raises(UserError):
        load_config(written(tmp_path, json.loads(text)))
    assert not trace.exists()


@pytest.mark.parametrize(
    "text",
    [
        "_base_: evil.py\n",
        "hook: {type: subprocess.getoutput, cmd: touch was-run}\n",
        "custom_imports: {imports: [evil_of_config]}\n",
    ],
)
def test_a_program_that_inherits_from_data_is_brought_no_code_by_it(text, tmp_path, trace):
    (tmp_path / "evil.py").write_text(PROGRAM.format(trace=str(trace)))
    (tmp_path / "data.yaml").write_text(text)
    (tmp_path / "mine.py").write_text("_base_ = 'data.yaml'\n")
    with pytest.raises(UserError):
        load_config(tmp_path / "mine.py")
    assert not trace.exists()


@pytest.mark.parametrize(
    "name",
    [
        SWIN,
        "sparsevit/sparsevit_cfg1_42ms.py",
        "demo/mask_rcnn_swin_shapes.py",
        "mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py",
        "mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py",
        "mmdet::rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py",
        "mmdet::fpg/faster-rcnn_r50_fpg_crop640-50e_coco.py",
        "mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py",
        "mmdet::soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py",
        "mmpretrain::deit/deit-tiny_4xb256_in1k.py",
        "demo/classifier_swin_shapes.py",
    ],
)
def test_what_the_frameworks_configs_say_may_be_said_as_data(name, tmp_path):
    before = load_config(name)
    path = tmp_path / ("same.yaml" if name == SWIN else "same.json")
    mmengine.dump(before.to_dict(), path)
    after = load_config(path)
    assert after.model.type == before.model.type
    assert dump_config(load_config(path, ["train_dataloader.batch_size=3"]))


def test_a_config_that_is_data_inherits_from_data_and_from_what_is_installed(tmp_path):
    (tmp_path / "first.json").write_text(json.dumps({"_base_": f"sparsevit::{SWIN}"}))
    text = "_base_: [first.json, 'mmdet::_base_/datasets/voc0712.py']\nx: {{_base_.model.type}}\n"
    (tmp_path / "config.yaml").write_text("_base_: first.json\nx: {{_base_.model.type}}\n")
    assert load_config(tmp_path / "config.yaml").x == "MaskRCNN"
    (tmp_path / "other.yaml").write_text(text.replace("first.json, ", "").partition("x:")[0])
    assert load_config(tmp_path / "other.yaml").dataset_type == "VOCDataset"


@pytest.mark.parametrize(
    "content",
    [
        {"ann_file": "test.json", "img": "os.png", "names": ["json.txt", "subprocess.pkl"]},
        {"data_root": "data.v2", "note": "e.g. this", "by": "backbone.stages.1"},
        {"save_best": "coco/bbox_mAP", "model": {"type": "mmdet.MaskRCNN", "_scope_": "mmdet"}},
        {"custom_imports": {"imports": ["sparsevit.models"], "allow_failed_imports": False}},
        {"nms": {"type": "soft_nms"}, "roi_layer": {"type": "RoIAlign"}, "type": None},
        {"optimizer": {"type": "AdamW"}, "norm": {"type": "LN"}, "hook": {"type": "EMAHook"}},
    ],
)
def test_what_only_looks_like_code_is_taken(content, tmp_path):
    assert load_config(written(tmp_path, content))


def test_a_python_config_is_a_program(tmp_path, trace):
    (tmp_path / "mine.py").write_text(
        "custom_imports = dict(imports=['evil_of_config'])\n"
        "model = dict(type='evil_of_config.run')\n"
    )
    cfg = load_config(tmp_path / "mine.py", ["model.type=evil_of_config.run"])
    assert cfg.model.type == "evil_of_config.run"
    assert trace.exists()


def test_aliases_that_stand_for_too_much_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(data_files, "MAX_VALUES", 10_000)
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    (tmp_path / "bomb.yaml").write_text("\n".join(lines))
    with pytest.raises(UserError, match="10,000 values"):
        load_config(tmp_path / "bomb.yaml")
    (tmp_path / "circle.yaml").write_text("a: &a [*a]\n")
    with pytest.raises(UserError):
        load_config(tmp_path / "circle.yaml")
    (tmp_path / "deep.json").write_text('{"a": ' + "[" * 5000 + "]" * 5000 + "}")
    with pytest.raises(UserError):
        load_config(tmp_path / "deep.json")


def test_names_that_no_registry_has_are_those_of_mmcv_and_mmdet():
    assert all(_is_known(name) for name in _CHOSEN)
    assert not any(_is_known(name) for name in ("", "exec", "Popen", "__name__", "_private"))


# --- pickles -------------------------------------------------------------------------------------


class _Call:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


def _functions() -> list[Any]:
    import builtins
    import os
    import subprocess

    return [os.system, subprocess.getoutput, builtins.eval, builtins.exec, builtins.getattr, print]


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("function", _functions())
def test_a_pickle_that_a_dataset_reads_calls_nothing(function, protocol, tmp_path):
    (tmp_path / "proposals.pkl").write_bytes(pickle.dumps([_Call(function, "1")], protocol))
    with reading_data(), pytest.raises(UserError, match="pickle that the config names"):
        mmengine.load(tmp_path / "proposals.pkl")


def test_proposals_are_read_from_a_pickle(tmp_path):
    boxes = InstanceData(bboxes=torch.ones(2, 4), scores=torch.zeros(2))
    content = {"a.jpg": boxes, "b.jpg": np.arange(3.0), "c": {1, 2}, "d": (np.float32(1), b"\xff")}
    for name, protocol in {"a.pkl": 2, "b.pickle": 4}.items():
        (tmp_path / name).write_bytes(pickle.dumps(content, protocol))
        with reading_data():
            found = mmengine.load(tmp_path / name)
        assert torch.equal(found["a.jpg"].bboxes, boxes.bboxes)
        assert found["b.jpg"].tolist() == [0, 1, 2]
        assert found["c"] == {1, 2}
        assert found["d"] == (1.0, b"\xff")


def test_once_a_model_is_built_files_of_datasets_are_data(tmp_path, trace):
    make_loading_safe()
    (tmp_path / "a.yaml").write_text(f"!!python/object/apply:os.system ['touch {trace}']\n")
    with pytest.raises(yaml.YAMLError):
        mmengine.load(tmp_path / "a.yaml")
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(_Call(print, "x")))
    with pytest.raises(UserError):
        mmengine.load(tmp_path / "a.pkl")
    assert not trace.exists()
