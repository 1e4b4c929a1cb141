"""Wrong values in a config: refused before anything is built, or named by their key when it is."""

from __future__ import annotations

import copy
import functools

import pytest
import tiny
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import HOOKS, init_default_scope
from mmengine.runner import Runner

from sparsevit.engine.config import apply_overrides, check_config, dump_config, load_config
from sparsevit.engine.config_check import TRAINING
from sparsevit.engine.mistakes import config_mistakes, overridden_mistake
from sparsevit.engine.overrides import given_overrides
from sparsevit.engine.runner import build_model
from sparsevit.errors import UserError

LARGE = "9" * 23


@functools.cache
def _base(tmp):
    path = tmp / "tiny.py"
    path.write_text(tiny.CONFIG)
    return load_config(path)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return _base(tmp_path_factory.mktemp("config"))


@pytest.fixture
def cfg(base):
    return copy.deepcopy(base)


def checked(cfg, *overrides):
    apply_overrides(cfg, overrides)
    check_config(cfg, TRAINING)


def refused(cfg, *overrides):
    with pytest.raises(UserError) as caught:
        checked(cfg, *overrides)
    said = str(caught.value)
    assert len(said) < 1500
    return said


@pytest.mark.parametrize(
    ("override", "says"),
    [
        # form and keys
        ("=", "key=value"),
        ("a..b=3", "key=value"),
        (".a=3", "key=value"),
        ("_base_=x", "reserved"),
        ("model._delete_=True", "reserved"),
        ("print('x');a=3", "cannot be the name"),
        ("x\nimport os=3", "cannot be the name"),
        ("1=2", "cannot be the name"),
        ("\x1b[31m=3", "cannot be the name"),
        ("model.\udcff=3", "cannot be the name"),
        ("a." * 1000 + "b=3", "2001 characters"),
        ("model.backbone.depths.9=3", "not an index"),
        ("model.backbone.depths.-1=3", "not an index"),
        ("model.backbone.depths.²=3", "not an index"),
        (f"model.backbone.depths.{'9' * 400}=3", "not an index"),
        ("model.backbone.embed_dims.x=3", "no keys of its own"),
        ("trian_cfg.max_iters=3", "Did you mean train_cfg?"),
        ("optim_wraper.optimizer.lr=1", "Did you mean optim_wrapper?"),
        ("model.test_cfg.rcnn.score_th=0.5", "Did you mean model.test_cfg.rcnn.score_thr?"),
        ("env_cfg.mp_cgf.mp_start_method=fork", "Did you mean env_cfg.mp_cfg?"),
        # values
        (f"a={LARGE}", "too large"),
        ("a=" + "9" * 5000, "too large"),
        ("a=1e5000", "too large"),
        (f"a=[1,{LARGE}]", "too large"),
        ("a=" + "[" * 5000, "nested brackets"),
        ("a=" + "[" * 100 + "]" * 100, "nested brackets"),
        ("a=" + "x" * 200_000, "200000 characters"),
        ("a={1:2}", "Keys of a config are text"),
        ("a={'b':{3:4}}", "Keys of a config are text"),
        ("a=[{1,2}]", "the type set"),
        ("a=[b'x']", "the type bytes"),
        ("a=[1,2", "do not match"),
        ("model={'backbone':{'neck':{'_delete_':True}},'type':{'a':1}}", "model"),
        # plain values
        ("model=3", "must be a dict"),
        ("model.backbone.drop_path_rate=-1", "from 0 to 1"),
        ("model.backbone.norm_cfg.type={}", "is not a name"),
        ("model.init_cfg.checkpoint=https://me:secret@host/x.pth", "an address with a password"),
        ("train_dataloader=[1]", "must be a dict"),
        ("train_dataloader.batch_size=0", "1 or more"),
        ("train_dataloader.batch_size=-1", "1 or more"),
        ("train_dataloader.batch_size=abc", "1 or more"),
        ("train_dataloader.batch_size=nan", "1 or more"),
        ("train_dataloader.batch_size=True", "1 or more"),
        ("val_dataloader.batch_size=None", "1 or more"),
        ("train_dataloader.num_workers=100000", "from 0 to"),
        ("train_dataloader.num_workers=-1", "from 0 to"),
        ("train_dataloader.persistent_workers=maybe", "true or false"),
        ("train_dataloader.prefetch_factor=0", "from 1 to"),
        ("train_dataloader.sampler=[]", "must be a dict"),
        ("train_dataloader.dataset=abc", "must be a dict"),
        ("train_dataloader.dataset.ann_file=None", "must be text"),
        ("train_dataloader.dataset.pipeline=abc", "a list of dicts"),
        ("train_dataloader.dataset.pipeline.0=3", "a list of dicts"),
        ("train_cfg=3", "must be a dict"),
        ("train_cfg=None", "training needs"),
        ("train_cfg.max_iters=0", "from 1 to"),
        ("train_cfg.max_iters=2.5", "from 1 to"),
        ("train_cfg.max_iters=100000000000", "from 1 to"),
        ("train_cfg.val_interval=x", "1 or more"),
        ("val_evaluator=-1", "a dict or a list of dicts"),
        ("optim_wrapper=None", "training needs"),
        ("optim_wrapper.optimizer=7", "must be a dict"),
        ("optim_wrapper.optimizer.lr=-1", "0 or more"),
        ("optim_wrapper.optimizer.lr=None", "0 or more"),
        ("optim_wrapper.optimizer.lr=nan", "0 or more"),
        ("optim_wrapper.optimizer.lr=inf", "0 or more"),
        ("optim_wrapper.clip_grad=abc", "must be a dict"),
        ("optim_wrapper.accumulative_counts=0", "1 or more"),
        ("param_scheduler=3", "a dict or a list of dicts"),
        ("param_scheduler.0.begin=-1", "0 or more"),
        ("default_hooks=[]", "must be a dict"),
        ("default_hooks.logger=3", "must be a dict"),
        ("custom_hooks=[1]", "a list of dicts"),
        ("custom_hooks={}", "a list of dicts"),
        ("log_processor.window_size=0", "1 or more"),
        ("log_level=LOUD", "one of DEBUG"),
        ("custom_imports.imports=[5]", "Write custom_imports into the config"),
        ("default_scope=3", "must be text"),
        ("env_cfg=True", "must be a dict"),
        ("env_cfg.mp_cfg.mp_start_method=foo", "one of None"),
        ("env_cfg.mp_cfg.opencv_num_threads=-3", "from 0 to"),
        ("randomness=[]", "must be a dict"),
        ("randomness.seed=x", "from 0 to"),
        ("auto_scale_lr.base_batch_size=0", "1 or more"),
        ("data_root=7", "must be text"),
        ("phases=3", "must be a dict"),
        ("phases.adapt=3", "must be a dict"),
        ("embedded_dataset=3", "must be a dict"),
        # types and their arguments
        ("model.type=MaskRCNNN", "Did you mean 'MaskRCNN'"),
        ("model.neck.type=FPNN", "Did you mean 'FPN'"),
        ("model.neck.in_chanels=[1]", "Did you mean 'in_channels'"),
        ("model.rpn_head.loss_cls.loss_weigth=1", "Did you mean 'loss_weight'"),
        ("model.neck.type=[1]", "is not a name"),
        ("train_dataloader.dataset.type=CocoDatasett", "Did you mean 'CocoDataset'"),
        ("train_dataloader.dataset.pipeline.2.type=Resizee", "Did you mean 'Resize'"),
        ("val_dataloader.dataset.pipeline.1.typo=1", "pipeline.1"),
        ("train_dataloader.sampler.type=NoSampler", "train_dataloader.sampler.type"),
        ("train_dataloader.sampler.shufle=True", "Did you mean 'shuffle'"),
        ("optim_wrapper.type=OptimWraper", "Did you mean 'OptimWrapper'"),
        ("optim_wrapper.optimizer.type=AdamWW", "Did you mean 'AdamW'"),
        ("optim_wrapper.optimizer.lrr=0.1", "Did you mean 'lr'"),
        ("param_scheduler.0.type=LinearLRR", "Did you mean 'LinearLR'"),
        ("train_cfg.type=IterBasedTrainLop", "Did you mean 'IterBasedTrainLoop'"),
        ("custom_hooks=[{'type':'EMAHok'}]", "Did you mean 'EMAHook'"),
        ("default_hooks.checkpoint.type=CheckpointHok", "Did you mean 'CheckpointHook'"),
        ("val_evaluator.type=CocoMetricc", "Did you mean 'CocoMetric'"),
        ("val_evaluator={'type':'CocoMetric','metrik':'bbox','_delete_':True}", "'metric'"),
        ("log_processor.type=LogProcesor", "Did you mean 'LogProcessor'"),
    ],
    ids=lambda value: value[:60].encode("ascii", "backslashreplace").decode(),
)
def test_a_wrong_value_is_refused_before_anything_is_built(cfg, override, says):
    assert says in refused(cfg, override)


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("completely.new.key=3", "completely", {"new": {"key": 3}}),
        ("a=__import__('os').getcwd()", "a", "__import__('os').getcwd()"),
        ("a={'x':__import__('os')}", "a", "{'x':__import__('os')}"),
        ("a=٣", "a", "٣"),
        ("a=inf", "a", float("inf")),
        ("custom_hooks=[{'type':'EMAHook','priority':49}]", "custom_hooks", None),
        ("train_cfg.max_iters=1e3", "train_cfg", None),
        ("optim_wrapper.paramwise_cfg={'norm_decay_mult':0.0}", "optim_wrapper", None),
        ("val_dataloader=None", "val_dataloader", None),
    ],
    ids=str,
)
def test_what_a_config_may_hold_is_taken(cfg, override, key, value):
    apply_overrides(cfg, [override])
    check_config(cfg, TRAINING)
    if value is not None:
        assert cfg[key] == value
    assert given_overrides(copy.deepcopy(cfg)) == (override,)


def test_a_key_that_would_be_code_in_a_configs_text_is_never_written(tmp_path):
    cfg = Config({"print('run')\na": 3})
    with pytest.raises(UserError, match="cannot be the name"):
        dump_config(cfg)


# --- what frameworks raise -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("model.backbone.depths=[2,2]", ["model.backbone of the config cannot be built"]),
        (
            "model.neck.in_channels=7",
            ["model.neck of the config cannot be built", "AssertionError"],
        ),
        ("model.rpn_head.anchor_generator.scales=abc", ["model.rpn_head.anchor_generator"]),
        ("model.data_preprocessor.mean=abc", ["model.data_preprocessor"]),
    ],
)
def test_what_cannot_be_built_is_named_by_its_key(cfg, override, says):
    checked(cfg, override)
    with pytest.raises(UserError) as caught:
        build_model(cfg)
    for words in says:
        assert words in str(caught.value)


def test_a_model_that_fails_while_it_runs_is_named_by_its_part(cfg):
    override = "model.neck.in_channels=[8,16,32,9]"
    apply_overrides(cfg, [override])
    model, _ = build_model(cfg)
    with pytest.raises(UserError) as caught, config_mistakes(cfg, "The model"):
        model.extract_feat(torch.zeros(1, 3, 64, 64))
    assert f"model.neck of the config failed, with --set {override}." in caught.value.problem
    assert "RuntimeError: Given groups=1" in caught.value.problem
    # no config in reach but the model's own, as in `latency`
    try:
        model.extract_feat(torch.zeros(1, 3, 64, 64))
    except RuntimeError as error:
        found = overridden_mistake(error)
    assert found is not None
    assert "model.neck" in found.problem


def images(root, transform, workers=0):
    """A loader over one image, with a pipeline of this transform alone."""
    (root / "data.json").write_text(
        '{"metainfo": {}, "data_list": [{"img_path": "x.png", "height": 8, "width": 8}]}'
    )
    dataset = {"type": BaseDataset, "ann_file": str(root / "data.json")}
    return {
        "batch_size": 1,
        "num_workers": workers,
        "sampler": {"type": "DefaultSampler", "shuffle": False},
        "dataset": {**dataset, "pipeline": [transform]},
    }


@pytest.mark.parametrize("workers", [0, 1])
def test_a_transform_that_fails_is_named_by_its_place_in_the_pipeline(cfg, tmp_path, workers):
    init_default_scope("mmdet")
    cfg.train_dataloader = images(tmp_path, {"type": "PackDetInputs", "meta_keys": 3}, workers)
    with pytest.raises(UserError) as caught, config_mistakes(cfg, "The training"):
        list(Runner.build_dataloader(cfg.train_dataloader))
    assert "train_dataloader.dataset.pipeline.0 of the config failed" in caught.value.problem
    assert "TypeError: 'int' object is not iterable" in caught.value.problem
    assert "Traceback" not in caught.value.problem


def test_a_missing_file_is_named_by_its_key(cfg, tmp_path):
    init_default_scope("mmdet")
    cfg.train_dataloader = images(tmp_path, {"type": "LoadImageFromFile"})
    with pytest.raises(UserError, match=r"missing: x\.png"), config_mistakes(cfg, "The training"):
        list(Runner.build_dataloader(cfg.train_dataloader))


def test_a_long_message_is_cut_to_a_screen(cfg):
    class Loud:
        def __init__(self):
            raise ValueError("a line of words " * 50 + "\nanother" * 100)

    with pytest.raises(UserError) as caught, config_mistakes(cfg, "The training"):
        HOOKS.build({"type": Loud})
    assert "ValueError: a line of words" in caught.value.problem
    assert len(caught.value.problem.splitlines()) < 15


def test_an_error_of_the_package_itself_stays_as_it_is(cfg, monkeypatch):
    def broken(*args):
        raise TypeError("a bug")

    monkeypatch.setattr("sparsevit.engine.runner.apply_sparsity", broken)
    apply_overrides(cfg, ["model.neck.num_outs=5"])
    with pytest.raises(TypeError, match="a bug"):
        build_model(cfg)
