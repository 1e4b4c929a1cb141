"""The shipped configs say what the paper's do, and build."""

from __future__ import annotations

from itertools import pairwise

import pytest
from mmdet.registry import MODELS
from mmengine.registry import HOOKS

from sparsevit.engine.config import check_config, load_config, shipped_configs
from sparsevit.engine.config_check import TRAINING
from sparsevit.engine.runner import build_model
from sparsevit.sparsity.handle import SparsityHandle
from sparsevit.tasks import task_of

PAPER = {
    "sparsevit_cfg1_42ms": [[0.3, 0.3], [0, 0], [0.1, 0.1, 0.2, 0.2, 0.2, 0.2], [0, 0]],
    "sparsevit_cfg2_35ms": [[0.6, 0.6], [0, 0], [0.2, 0.2, 0.4, 0.4, 0.5, 0.5], [0, 0]],
    "sparsevit_cfg3_33ms": [[0.7, 0.7], [0, 0], [0.2, 0.2, 0.4, 0.4, 0.5, 0.5], [0, 0]],
}
SPARSE = ["mask_rcnn_sparsevit", "mask_rcnn_sparsevit_saa", *PAPER]
DENSE = {
    "mask_rcnn_swin-t_1x": ([2, 2, 6, 2], 12, "OptimWrapper"),
    "mask_rcnn_swin-t_3x": ([2, 2, 6, 2], 36, "AmpOptimWrapper"),
    "mask_rcnn_swin-s_3x": ([2, 2, 18, 2], 36, "AmpOptimWrapper"),
}


def backbone_of(cfg):
    part = cfg.model[task_of(cfg).backbone]
    part.init_cfg = None
    scope = "mmpretrain" if cfg.default_scope == "mmpretrain" else "mmdet"
    with MODELS.switch_scope_and_registry(scope) as registry:
        return registry.build(part)


def crops(cfg):
    """Whether training sees many scales and crops."""
    pipeline = cfg.train_dataloader.dataset.pipeline
    return any(step.type == "RandomChoice" for step in pipeline)


@pytest.mark.parametrize("name", shipped_configs())
def test_every_shipped_config_is_sound_and_its_backbone_builds(name):
    cfg = load_config(f"sparsevit::{name}")
    check_config(cfg)
    assert "sparsevit.models" in cfg.custom_imports.imports
    assert type(backbone_of(cfg)).__name__ == cfg.model[task_of(cfg).backbone].type


def test_the_base_for_imagenet_is_deits_and_takes_a_model():
    heir = (
        *("model.backbone.type=VisionTransformer", "model.backbone.arch=deit-tiny"),
        *("model.head.type=VisionTransformerClsHead", "model.head.num_classes=1000"),
        "model.head.in_channels=192",
    )
    cfg = load_config("sparsevit::_base_/imagenet_deit.py", heir)
    assert task_of(cfg).name == "classification"
    cfg.train_cfg = {"by_epoch": True, "max_epochs": 600}
    cfg.optim_wrapper = {"optimizer": {"type": "AdamW", "lr": 5e-4}}
    check_config(cfg, TRAINING)
    steps = [step.type for step in cfg.train_dataloader.dataset.pipeline]
    assert {"RandomResizedCrop", "RandAugment", "RandomErasing"} <= set(steps)
    assert cfg.train_dataloader.sampler.type == "RepeatAugSampler"
    assert [one.type for one in cfg.model.train_cfg.augments] == ["Mixup", "CutMix"]
    assert cfg.model.head.loss.label_smooth_val == 0.1
    assert cfg.model.data_preprocessor.num_classes == 1000
    model, _ = build_model(cfg)
    batch = task_of(cfg).random_batch(4, (224, 224))
    for label, sample in enumerate(batch["data_samples"]):
        sample.set_gt_label(label)
    mixed = model.data_preprocessor(batch, training=True)["data_samples"]
    assert {len(sample.gt_score) for sample in mixed} == {1000}


@pytest.mark.parametrize("name", DENSE)
def test_dense_configs_are_mmdets_own(name):
    cfg = load_config(name)
    depths, epochs, wrapper = DENSE[name]
    assert cfg.model.backbone.type == "SwinTransformer"
    assert cfg.model.backbone.depths == depths
    assert cfg.train_cfg.max_epochs == epochs
    assert cfg.optim_wrapper.type == wrapper
    assert cfg.optim_wrapper.optimizer.lr == 1e-4
    assert crops(cfg) == (epochs == 36)


@pytest.mark.parametrize("name", SPARSE)
def test_sparse_configs_keep_what_the_papers_have_in_common(name):
    cfg = load_config(name)
    assert cfg.model.type == "MaskRCNN"
    assert cfg.model.backbone.init_cfg is None
    assert cfg.model.backbone.depths == [2, 2, 6, 2]
    assert cfg.model.neck.in_channels == [96, 192, 384, 768]
    assert cfg.optim_wrapper.type == "AmpOptimWrapper"
    assert cfg.optim_wrapper.optimizer == {
        "type": "AdamW",
        "lr": 1e-5,
        "betas": (0.9, 0.999),
        "weight_decay": 0.05,
    }
    assert set(cfg.optim_wrapper.paramwise_cfg.custom_keys) == {
        "absolute_pos_embed",
        "relative_position_bias_table",
        "norm",
    }
    kept = {k: v for k, v in cfg.default_hooks.checkpoint.items() if k != "_scope_"}
    assert kept == {
        "type": "CheckpointHook",
        "interval": 1,
        "max_keep_ckpts": 1,
    }
    assert crops(cfg)


@pytest.mark.parametrize("name", SPARSE)
def test_sparse_configs_are_tested_at_672(name):
    cfg = load_config(name)
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        steps = {step.type: step for step in loader.dataset.pipeline}
        assert list(steps) == ["LoadImageFromFile", "Resize", "LoadAnnotations", "PackDetInputs"]
        assert steps["Resize"] == {"type": "Resize", "scale": (672, 672), "keep_ratio": False}
        assert loader.dataset.ann_file == "annotations/instances_val2017.json"


@pytest.mark.parametrize("name", SPARSE)
def test_schedules_are_the_papers(name):
    cfg = load_config(name)
    epochs, steps = (12, [8, 11]) if name.endswith("saa") else (36, [27, 33])
    warmup, decay = cfg.param_scheduler
    assert (warmup.type, warmup.by_epoch, warmup.end) == ("LinearLR", False, 1000)
    assert warmup.start_factor == 0.001
    assert (decay.type, decay.milestones, decay.gamma) == ("MultiStepLR", steps, 0.1)
    assert cfg.train_cfg.max_epochs == decay.end == epochs


@pytest.mark.parametrize("name", PAPER)
def test_configurations_are_the_papers_and_the_model_has_them(name):
    cfg = load_config(name)
    assert cfg.model.backbone.pruning_ratios == PAPER[name]
    handle = SparsityHandle(backbone_of(cfg))
    assert list(handle.get().values()) == [r for stage in PAPER[name] for r in stage[::2]]
    assert not cfg.get("custom_hooks")


def test_adaptation_draws_ratios_at_every_iteration():
    cfg = load_config("mask_rcnn_sparsevit_saa")
    assert cfg.model.backbone.get("pruning_ratios", 0.0) == 0.0
    hooks = [HOOKS.build(hook) for hook in cfg.custom_hooks]
    assert [type(hook).__name__ for hook in hooks] == ["RandomSparsityHook"]
    assert not hooks[0].shared


def test_each_phase_starts_from_the_one_before():
    dense, adapted = (load_config(n).load_from for n in SPARSE[1:3])
    assert "mask_rcnn_swin-t-p4-w7_fpn_fp16_ms-crop-3x_coco" in dense
    assert adapted == "work_dirs/mask_rcnn_sparsevit_saa/epoch_12.pth"
    assert all(load_config(a).load_from == load_config(b).load_from for a, b in pairwise(PAPER))


SVITE = [name for name in shipped_configs() if name.startswith("svite/")]


def test_sparse_trainings_of_deit_are_the_papers():
    sizes = {"t": ("deit-tiny", 20000, 5e-4), "s": ("deit-small", 15000, 5e-4)}
    sizes["b"] = ("deit-base", 7000, 1e-3)
    assert len(SVITE) == len(sizes) * (4 + 4 + 2)
    for name in SVITE:
        cfg = load_config(f"sparsevit::{name}")
        size = name.partition("_deit-")[2][0]
        backbone, options = cfg.model.backbone, cfg.model.backbone.svite
        assert (backbone.type, backbone.arch) == ("SViTE", sizes[size][0])
        assert options.update_interval == sizes[size][1]
        assert cfg.optim_wrapper.optimizer.lr == sizes[size][2]
        assert (cfg.train_cfg.max_epochs, cfg.param_scheduler[0].end) == (600, 5)
        assert cfg.custom_hooks[0].momentum == pytest.approx(1 - 0.99996)
        share = 1 - int(name.removesuffix(".py").split("_")[2]) / 100
        if name.startswith("svite/s2vite"):
            assert options.neurons == pytest.approx(share)
        else:
            assert options.density == pytest.approx(share)
        if "tokens" in name:
            assert options.tokens == pytest.approx(1 - int(name[:-3].partition("tokens")[2]) / 100)
