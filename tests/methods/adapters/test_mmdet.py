"""mmdet's own Swin made sparse in place, against the paper's forward and mmdet's."""

from __future__ import annotations

import copy

import pytest
import torch
from adapter_checks import (
    check_copies,
    check_hooks,
    check_set_again,
    check_undone,
    gradients,
    images,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet_backbones import small_swin
from plain_forward import plain_forward

from sparsevit import sparsify
from sparsevit.errors import UserError
from sparsevit.sparsity.handle import SparsityHandle


def largest_difference(a, b):
    return max((x - y).abs().max().item() for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("size", [(112, 112), (97, 130), (33, 61)])
@pytest.mark.parametrize("batch", [1, 2])
def test_at_ratio_0_it_gives_what_mmdet_gives(size, batch):
    swin = small_swin("SwinTransformer")
    sparse = sparsify(copy.deepcopy(swin))
    x = images(batch, size)
    with torch.no_grad():
        assert largest_difference(sparse(x), swin(x)) < 1e-5


@settings(max_examples=15, deadline=None)
@given(
    height=st.integers(40, 130),
    width=st.integers(40, 130),
    batch=st.integers(1, 2),
    ratios=st.lists(st.sampled_from([0.0, 0.3, 0.6, 0.9]), min_size=4, max_size=4),
)
def test_at_ratios_it_gives_what_the_papers_forward_gives(height, width, batch, ratios):
    swin = small_swin("SwinTransformer")
    sparse = sparsify(copy.deepcopy(swin), {f"stages.{i}": r for i, r in enumerate(ratios)})
    x = images(batch, (height, width))
    with torch.no_grad():
        expected = plain_forward(swin, x, [[r, r] for r in ratios])
        assert largest_difference(sparse(x), expected) < 1e-4


@pytest.mark.parametrize("with_cp", [False, True])
def test_gradients_are_those_of_the_backbone_of_our_own(with_cp):
    ours = small_swin("SparseViT", pruning_ratios=[[0.0, 0.0], [0.5, 0.5], [0.3, 0.3], 0.0])
    theirs = small_swin("SwinTransformer", with_cp=with_cp)
    theirs.load_state_dict(ours.state_dict())
    knobs = {"stages.0": 0.0, "stages.1": 0.5, "stages.2": 0.3, "stages.3": 0.0}
    sparsify(theirs, knobs)
    x = images(2, (96, 112))
    expected, found = gradients(ours, x), gradients(theirs, x)
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        scale = max(1.0, gradient.abs().max().item())
        assert (gradient - found[name]).abs().max() < 1e-4 * scale, name


def test_a_detectors_knobs_have_the_names_of_its_modules():
    swin = small_swin("SwinTransformer", depths=[2, 2, 4, 3])
    model = sparsify(torch.nn.ModuleDict({"backbone": swin}), 0.5)
    names = SparsityHandle(model).space.names
    assert names == (
        "backbone.stages.0",
        "backbone.stages.1",
        "backbone.stages.2_1",
        "backbone.stages.2_2",
        "backbone.stages.3_1",
        "backbone.stages.3_2",
    )
    assert set(SparsityHandle(model).get().values()) == {0.5}


@pytest.mark.parametrize("kind", ["SparseViT", "SwinTransformer"])
def test_parts_that_are_sparse_already_get_the_ratios(kind):
    model = torch.nn.ModuleDict({"backbone": small_swin(kind)})
    sparsify(model["backbone"])
    classes = [type(module) for module in model.modules()]
    sparsify(model, 0.4)
    assert set(SparsityHandle(model).get().values()) == {0.4}
    assert [type(module) for module in model.modules()] == classes


def test_a_model_without_windows_names_the_families():
    with pytest.raises(UserError, match="no window attention") as caught:
        sparsify(torch.nn.Conv2d(3, 3, 1))
    for library in ("mmdetection", "timm", "torchvision", "transformers", "SAM", "ViTDet"):
        assert library in caught.value.remedy


@pytest.mark.parametrize("ratios", [-0.1, 1.0, "half", {"stages.9": 0.5}])
def test_wrong_ratios_leave_the_model_as_it_was(ratios):
    swin = small_swin("SwinTransformer")
    classes = [type(module) for module in swin.modules()]
    with pytest.raises(UserError):
        sparsify(swin, ratios)
    assert [type(module) for module in swin.modules()] == classes


def test_it_is_undone_copied_set_again_and_watched():
    x = images(1, (96, 112))
    check_undone(small_swin("SwinTransformer"), x)
    check_set_again(small_swin("SwinTransformer"), x)
    check_copies(small_swin("SwinTransformer"), x)
    swin = small_swin("SwinTransformer")
    check_hooks(swin, [block for stage in swin.stages for block in stage.blocks], x)


def test_maps_that_a_loop_keeps_are_not_overwritten_by_the_next_block():
    swin = sparsify(small_swin("SwinTransformer"), 0.5)
    kept = []
    with torch.no_grad():
        x, hw = swin.patch_embed(images(1, (112, 112)))
        for block in swin.stages[0].blocks:
            x = block(x, hw)
            kept.append((x, x.clone()))
    assert all(torch.equal(now, then) for now, then in kept)


def test_a_sparse_model_exports_and_gives_the_same():
    swin = sparsify(small_swin("SwinTransformer", depths=[2, 2, 2, 2]), 0.5)
    x = images(1, (96, 96))
    with torch.no_grad():
        expected = swin(x)
        program = torch.export.export(swin, (x,), strict=False)
        assert largest_difference(program.module()(x), expected) < 1e-4
        assert largest_difference(program.module()(x.flip(-1)), swin(x.flip(-1))) < 1e-4


def test_a_compiled_block_leaves_the_map_that_it_is_given_as_it_is():
    swin = sparsify(small_swin("SwinTransformer"), 0.5)
    block = swin.stages[0].blocks[0]
    with torch.no_grad():
        x, hw = swin.patch_embed(images(1, (112, 112)))
        before, expected = x.clone(), block(x, hw)
        found = torch.compile(block, backend="eager")(x, hw)
    assert torch.equal(x, before)
    assert torch.allclose(found, expected, atol=1e-5)
