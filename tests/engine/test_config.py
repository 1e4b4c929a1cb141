"""Configs by name, overrides as mmengine reads them, errors with their place, text that lasts."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
from mmdet.registry import MODELS
from mmengine.config import Config, DictAction
from mmengine.config import config as mmengine_config
from mmengine.utils import get_installed_path
from torch import nn

from sparsevit.engine.config import (
    apply_sparsity,
    check_config,
    dump_config,
    load_config,
    resolve_config,
    set_sparsity,
    shipped_configs,
    sparsify_config,
)
from sparsevit.engine.config_check import VALIDATION
from sparsevit.errors import UserError
from sparsevit.sparsity.handle import SparsityHandle

CFG1 = "sparsevit/sparsevit_cfg1_42ms.py"
SMALL = {
    "model": {
        "type": "MaskRCNN",
        "backbone": {"type": "SwinTransformer", "depths": [2, 2, 2, 2], "out_indices": (0, 1)},
        "neck": {"type": "FPN", "in_channels": [96, 192], "out_channels": 8, "num_outs": 2},
    },
    "train_pipeline": [{"type": "LoadImageFromFile"}, {"type": "RandomFlip", "prob": 0.5}],
    "default_scope": "mmdet",
}


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def small(folder: Path, *overrides: str) -> Config:
    text = "".join(f"{key} = {value!r}\n" for key, value in SMALL.items())
    return load_config(write(folder / "small.py", text), overrides)


def refusal(name, *overrides) -> UserError:
    with pytest.raises(UserError) as refused:
        load_config(name, overrides)
    return refused.value


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        f"sparsevit::{CFG1}",
        CFG1,
        "sparsevit/sparsevit_cfg1_42ms",
        "sparsevit_cfg1_42ms.py",
        "sparsevit_cfg1_42ms",
        f"configs/{CFG1}",
    ],
)
def test_a_shipped_config_is_found_by_every_spelling_from_anywhere(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve_config(name).name == "sparsevit_cfg1_42ms.py"


def test_a_file_of_the_user_comes_before_a_shipped_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / CFG1, "model = dict(type='Mine')\n")
    assert load_config(CFG1).model.type == "Mine"


def test_a_config_of_mmdet_is_found_by_name():
    cfg = load_config("mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py")
    assert cfg.model.backbone.type == "SwinTransformer"


def test_no_list_of_all_models_is_read_for_a_config_that_is_inherited_by_name(
    tmp_path, monkeypatch
):
    def read(package, name):
        raise AssertionError(f"{package} was searched for {name}")

    monkeypatch.setattr(mmengine_config, "_get_external_cfg_path", read)
    name = "mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py"
    cfg = load_config(write(tmp_path / "mine.py", f"_base_ = '{name}'\ntrain_cfg = dict(x=1)\n"))
    assert cfg.model.backbone.type == "SwinTransformer"
    assert cfg.train_cfg.x == 1
    assert mmengine_config._get_external_cfg_path is read


def test_sparsevit_configs_can_be_inherited_by_name(tmp_path):
    path = write(tmp_path / "mine.py", f"_base_ = 'sparsevit::{CFG1}'\ntrain_cfg = dict(x=1)\n")
    cfg = load_config(path)
    assert cfg.model.backbone.pruning_ratios[0] == [0.3, 0.3]
    assert cfg.train_cfg.x == 1


def test_mmengine_finds_the_configs_where_the_package_is_installed():
    folder = Path(get_installed_path("sparsevit")) / ".mim"
    assert (folder / "configs" / CFG1).is_file()
    assert (folder / "model-index.yml").is_file()


@pytest.mark.parametrize(
    ("name", "says", "helps"),
    [
        ("sparsevit_cfg1_41ms", "no config", "sparsevit/sparsevit_cfg1_42ms.py"),
        ("sparsevit::sparsevit/mask_rcnn_sparsvit.py", "no config", "mask_rcnn_sparsevit.py"),
        ("mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_2x_coco.py", "no config", "_1x_coco.py"),
        ("mmdett::swin/x.py", "does not know the package", "mmdet"),
        ("mmaction::a/b.py", "not installed", "pip install"),
        ("sparsevit::../../pyproject.toml", "no config", ""),
        ("/nowhere/at/all.py", "no config", ""),
    ],
)
def test_a_name_that_is_none_is_answered_with_what_comes_near(name, says, helps):
    error = refusal(name)
    assert says in error.problem
    assert helps in error.remedy


def test_a_missing_file_is_answered_with_its_neighbours(tmp_path):
    write(tmp_path / "detector.py", "")
    assert "detector.py" in refusal(tmp_path / "detecter.py").remedy
    assert "folder" in refusal(tmp_path).problem
    assert "one of the suffixes" in refusal(write(tmp_path / "config.txt", "")).remedy


# --- errors in a config --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a = 1\nmodel = dict(type='X'\n", "line 2: '(' was never closed"),
        ("a = 1\nb = c\n", "line 2 has an error (NameError: name 'c'"),
        ("_base_ = './none.py'\n", "inherits from a config that does not exist"),
        ("_base_ = 'mmdet::swin/none.py'\n", "inherits from a config that does not exist"),
        ("_base_ = 'nothing::a/b.py'\n", "does not support to load nothing"),
        ("import no_such_module\n", "imports a module that is not installed"),
        (
            "custom_imports = dict(imports=['no.such.module'])\n",
            "imports a module that is not installed",
        ),
        ("filename = 'x'\n", "reserved"),
        ("raise BaseException('x')\n", "line 1 has an error (BaseException: x)"),
        ("import sys\nsys.exit('bye')\n", "line 2 has an error (SystemExit: bye)"),
        ("import sys\nsys.exit(0)\n", "line 2 has an error (SystemExit: 0)"),
        (
            "class E(Exception):\n    def __str__(self):\n        raise ValueError\nraise E\n",
            "line 4 has an error (E: it cannot be shown)",
        ),
        ("x = " + "+".join(["1"] * 50_000), "nested too deeply"),
        ("_base_ = './base.py'\na = dict(b=1)\n", "cannot inherit"),
        ("a = '{{$UNSET_HERE:}}'\n", "UNSET_HERE"),
    ],
)
def test_an_error_in_a_config_is_told_with_its_place(tmp_path, text, says):
    write(tmp_path / "base.py", "a = 1\n")
    error = refusal(write(tmp_path / "broken.py", text))
    assert "broken.py" in error.problem
    assert says in error.problem
    assert "sys.path" not in error.problem


def test_yaml_and_json_configs_are_data(tmp_path):
    trace = tmp_path / "was-run"
    text = f"a: !!python/object/apply:os.system ['touch {trace}']\n"
    assert "could not determine a constructor" in refusal(write(tmp_path / "e.yaml", text)).problem
    refusal(write(tmp_path / "child.py", "_base_ = './e.yaml'\n"))
    refusal(write(tmp_path / "child.yml", "_base_: e.yaml\n"))
    assert not trace.exists()
    assert load_config(write(tmp_path / "c.json", json.dumps({"a": [1]}))).a == [1]
    assert "JSONDecodeError" in refusal(write(tmp_path / "d.json", "{")).problem


def test_yaml_that_mmengine_wrote_is_read_with_its_tuples(tmp_path):
    path = tmp_path / "mmengine.yaml"
    Config({"a": (1, 2), "b": {"c": [(3, 4)]}}).dump(path)
    assert "python/tuple" in path.read_text()
    assert load_config(path).to_dict() == {"a": (1, 2), "b": {"c": [(3, 4)]}}


def test_a_config_without_a_model_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"data\.py has no model"):
        check_config(load_config(write(tmp_path / "data.py", "data_root = 'x'\n")))


@pytest.mark.parametrize(
    ("override", "where", "helps"),
    [
        ("model.type=MaskRCN", "model.type='MaskRCN'", "'MaskRCNN'"),
        ("model.backbone.type=SparseVit", "model.backbone.type='SparseVit'", "'SparseViT'"),
        ("model.neck.type=mmdet.FPNN", "model.neck.type='mmdet.FPNN'", "'FPN'"),
        ("model.neck=[{'type':'FPN'},{'type':'Foo'}]", "model.neck.1.type='Foo'", "custom_imports"),
        ("model.roi_head.bbox_head.type=Bbox", "model.roi_head.bbox_head.type", "custom_imports"),
    ],
)
def test_a_type_that_is_not_registered_is_named_with_the_nearest(tmp_path, override, where, helps):
    with pytest.raises(UserError) as refused:
        check_config(small(tmp_path, override))
    assert where in refused.value.problem
    assert helps in refused.value.remedy


def test_a_sound_config_passes_the_check(tmp_path):
    check_config(small(tmp_path))
    check_config(sparsify_config(small(tmp_path)))


# --- overrides -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "5",
        "-3",
        "0.1",
        "1e-5",
        ".6",
        "true",
        "False",
        "None",
        "name",
        "a/b.pth",
        "1,2,3",
        "[1,2]",
        "(1,2)",
        "(1,)",
        "[(1,2),(3,4)]",
        "[a,b]",
        "[[.6,.6],[0,0]]",
        "[(a,1),b]",
        "inf",
        "https://example.com/x.pth",
        "a,b",
        "[]",
        "()",
    ],
)
def test_values_are_read_as_mmengine_reads_them(tmp_path, text):
    assert repr(small(tmp_path, f"x={text}").x) == repr(DictAction._parse_iterable(text))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("'5'", "5"),
        ("'a, b'", "a, b"),
        ('"[1,2]"', "[1,2]"),
        ("/my data/coco", "/my data/coco"),
        ("['a b', 'c']", ["a b", "c"]),
        ("[1, 2]", [1, 2]),
        ("a=b", "a=b"),
        ("", ""),
    ],
)
def test_quoted_values_are_text_and_spaces_are_kept(tmp_path, text, value):
    assert small(tmp_path, f"x={text}").x == value


def test_overrides_reach_nested_keys_list_items_and_new_keys(tmp_path):
    cfg = small(
        tmp_path,
        "model.backbone.depths=[2,2,6,2]",
        "model.backbone.depths.0=4",
        "train_pipeline.1.prob=0.25",
        "new.deep.key=(1,2)",
        "model.backbone={'type': 'SparseViT'}",
        "model.neck={'_delete_': True, 'type': 'FPN'}",
    )
    assert cfg.model.backbone.depths == [4, 2, 6, 2]
    assert cfg.model.backbone.out_indices == (0, 1)
    assert cfg.model.backbone.type == "SparseViT"
    assert cfg.model.neck == {"type": "FPN"}
    assert cfg.train_pipeline[1].prob == 0.25
    assert cfg.new.deep.key == (1, 2)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("model.type", "key=value"),
        ("=3", "key=value"),
        ("model..type=3", "key=value"),
        ("model.type.x=3", "model.type is 'MaskRCNN'"),
        ("model.backbone.out_indices.0=1", "has no keys of its own"),
        ("train_pipeline.2.type=X", "a list of 2"),
        ("train_pipeline.first=X", "'first' is not an index of it"),
        ("x=[(1,2]", "brackets"),
        ("filename=x", "reserved by mmengine"),
    ],
)
def test_an_override_that_leads_nowhere_is_refused(tmp_path, override, says):
    with pytest.raises(UserError) as refused:
        small(tmp_path, override)
    assert says in refused.value.problem


def test_a_model_that_makes_no_batches_of_images_is_refused_where_data_is_used(tiny_config):
    cfg = load_config(tiny_config, ["model.data_preprocessor=None"])
    check_config(cfg)
    with pytest.raises(UserError, match="data_preprocessor"):
        check_config(cfg, VALIDATION)


# --- sparsity ------------------------------------------------------------------------------------


def test_any_swin_config_becomes_a_sparse_one_and_stays_as_it_was(tmp_path):
    cfg = small(tmp_path, "model.backbone.frozen_stages=1")
    cfg.custom_imports = {"imports": "os.path"}
    sparse = sparsify_config(cfg)
    assert cfg.model.backbone.type == "SwinTransformer"
    assert sparse.model.backbone.type == "SparseViT"
    assert sparse.model.backbone.frozen_stages == 1
    assert sparse.custom_imports.imports == ["os.path", "sparsevit.models"]
    assert sparse.model.backbone.pruning_ratios == 0.0
    assert sparsify_config(sparse).to_dict() == sparse.to_dict()


def test_a_swin_of_another_scope_becomes_one_of_mmdets(tmp_path):
    cfg = small(tmp_path, "model.backbone.type=mmdet.SwinTransformer", "default_scope=mmseg")
    assert sparsify_config(cfg).model.backbone.type == "mmdet.SparseViT"


def test_a_config_that_names_classes_becomes_a_sparse_one(tmp_path):
    # mmengine's new style: types are imported, not named
    text = """
from mmdet.models.backbones import SwinTransformer
from mmdet.models.detectors import MaskRCNN
model = dict(type=MaskRCNN, backbone=dict(type=SwinTransformer, depths=[2, 2]))
"""
    sparse = sparsify_config(load_config(write(tmp_path / "new_style.py", text)))
    check_config(sparse)
    again = load_config(write(tmp_path / "text.py", dump_config(sparse)))
    assert again.model.backbone.type == "mmdet.SparseViT"
    assert again.model.backbone.depths == [2, 2]
    check_config(again)


def test_a_backbone_that_is_no_swin_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"\(ResNet\) cannot be made sparse"):
        sparsify_config(small(tmp_path, "model.backbone={'_delete_': True, 'type': 'ResNet'}"))


def built(cfg):
    model = nn.ModuleDict({"backbone": MODELS.build(cfg.model.backbone)})
    apply_sparsity(cfg, model)
    return SparsityHandle(model).get()


RATIOS = {
    "backbone.stages.0": 0.5,
    "backbone.stages.1": 0.0,
    "backbone.stages.2_1": 0.1,
    "backbone.stages.2_2": 0.1,
    "backbone.stages.2_3": 0.1,
    "backbone.stages.3": 0.0,
}
NESTED = [[0.5, 0.5], [0.0, 0.0], [0.1] * 6, [0.0, 0.0]]


@pytest.mark.parametrize("nested", [NESTED, None])
def test_setting_ratios_replaces_random_ones_and_leaves_the_rest(tmp_path, nested):
    random = load_config("mask_rcnn_sparsevit_saa", ["custom_hooks.0.seed=1"])
    random.custom_hooks.append({"type": "NumClassCheckHook"})
    random.sparsity = {"backbone.stages.0": 0.8}
    before = copy.deepcopy(random.to_dict())
    fixed = set_sparsity(random, RATIOS, nested)
    assert [hook.type for hook in fixed.custom_hooks] == ["NumClassCheckHook"]
    assert random.to_dict() == before
    # once, and where plain tools look for it if the method has such a place
    assert fixed.model.backbone.get("pruning_ratios", 0.0) == (nested or 0.0)
    assert fixed.get("sparsity") == (None if nested else RATIOS)
    again = load_config(write(tmp_path / "text.py", dump_config(fixed)))
    assert dict(built(again)) == RATIOS


def test_a_config_sets_the_knobs_that_it_names_by_the_names_of_the_whole_model(tmp_path):
    named = {"backbone.stages.0": 0.3, "backbone.stages.3": 0.6}
    cfg = sparsify_config(small(tmp_path, f"sparsity={named}", "model.backbone.frozen_stages=-1"))
    cfg.model.backbone.pruning_ratios = [[0.1, 0.1], [0.2, 0.2], 0.0, 0.0]
    set_to = built(cfg)
    assert {knob: ratio for knob, ratio in set_to.items() if ratio} == {
        **named,
        "backbone.stages.1": 0.2,
    }


@pytest.mark.parametrize(
    ("sparsity", "says"),
    [("0.5", "not a ratio for each knob"), ("{'backbone.stages.9': 0.5}", "stages.9")],
)
def test_a_sparsity_that_does_not_suit_the_model_is_refused(tmp_path, sparsity, says):
    cfg = sparsify_config(small(tmp_path, f"sparsity={sparsity}"))
    with pytest.raises(UserError, match=says):
        built(cfg)


# --- text ----------------------------------------------------------------------------------------


def test_every_shipped_config_reads_back_from_its_text_alone(tmp_path):
    for name in shipped_configs():
        cfg = load_config(name)
        text = dump_config(cfg)
        again = Config.fromfile(write(tmp_path / "alone.py", text), import_custom_modules=False)
        assert "_base_" not in text
        assert again.to_dict() == cfg.to_dict()
        assert dump_config(again) == text


def test_awkward_values_read_back(tmp_path):
    content = {
        "limits": [float("inf"), -float("inf"), 1e-30, -0.0],
        "empty": [{}, [], (), "", None],
        "one": (1,),
        "keys": {"a.b": 1, "class": 2, 3: {"x y": (1, [2])}},
        "words": 'it\'s "quoted"\n\\ and {braces}',
        "long": list(range(100)),
        "where": tmp_path,
        "kind": dict,
    }
    again = Config.fromfile(write(tmp_path / "c.py", dump_config(Config(content)))).to_dict()
    assert again == {**content, "where": str(tmp_path), "kind": "builtins.dict"}


def test_what_has_no_text_is_refused_by_its_name():
    with pytest.raises(UserError, match=r"model\.hook of the config is a function"):
        dump_config(Config({"model": {"hook": lambda: None}}))
    with pytest.raises(UserError, match="cannot be written as text and read back"):
        dump_config(Config({"model": {"path": "{{ fileBasename }}"}}))


def test_importing_the_models_alone_lets_mmengine_find_the_configs():
    code = (
        "import sparsevit.models; from mmengine.config import Config; from mmengine.hub import *;"
        f"print(get_config('sparsevit::{CFG1}').model.backbone.type)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "SparseViT"
