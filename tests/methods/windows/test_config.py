"""Where a config of a Swin has its ratios."""

from __future__ import annotations

import pytest
from mmdet_backbones import small_swin
from mmengine.config import Config
from torch import nn

from sparsevit.errors import UserError
from sparsevit.methods.windows import Windows
from sparsevit.methods.windows.config import has_windows, write_pruning_ratios


def config_of(*backbones):
    parts = {f"part{n}": {"backbone": {"type": kind}} for n, kind in enumerate(backbones)}
    return Config({"model": {"type": "Some", **parts}})


def test_ratios_of_a_dense_config_are_refused():
    cfg = config_of("SwinTransformer")
    assert not has_windows(cfg)
    with pytest.raises(UserError, match="no SparseViT backbone"):
        write_pruning_ratios(cfg, 0.5)


def test_ratios_without_names_are_refused_where_they_could_mean_several_backbones():
    cfg = config_of("SparseViT", "mmdet.SparseViT")
    assert has_windows(cfg)
    with pytest.raises(UserError, match="2 SparseViT backbones"):
        write_pruning_ratios(cfg, 0.5)
    twins = nn.ModuleDict({"one": small_swin("SparseViT"), "two": small_swin("SparseViT")})
    assert Windows(twins).nested({}) is None


def test_the_nested_form_is_of_the_backbones_own_knobs():
    model = nn.ModuleDict({"deep": nn.ModuleDict({"backbone": small_swin("SparseViT")})})
    space = model["deep"]["backbone"].sparsity_space()
    ratios = {f"deep.backbone.{name}": 0.1 * n for n, name in enumerate(space.names)}
    nested = Windows(model).nested({**ratios, "head.heads": 0.7})
    assert nested == space.to_nested({name: 0.1 * n for n, name in enumerate(space.names)})
