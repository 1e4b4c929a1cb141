"""torchvision's Swin and Swin V2, made sparse."""

from __future__ import annotations

import adapter_checks as checks
import pytest
import torch
import vision_libraries
from hypothesis import given, settings
from hypothesis import strategies as st
from skipping_reference import Place

from sparsevit import sparsify
from sparsevit.errors import UserError
from sparsevit.sparsity.handle import SparsityHandle


@pytest.fixture(scope="module", autouse=True)
def torchvision():
    with vision_libraries.visible():
        import torchvision

        yield torchvision


def build(block, merging, **settings):
    from torchvision.models import swin_transformer as library

    shape = {"embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": [4, 4]}
    blocks = {"block": getattr(library, block), "downsample_layer": getattr(library, merging)}
    model = library.SwinTransformer([4, 4], **{**shape, "num_classes": 5, **settings, **blocks})
    return checks.randomised(model)


def swin(**settings):
    return build("SwinTransformerBlock", "PatchMerging", **settings)


def swin_v2(**settings):
    return build("SwinTransformerBlockV2", "PatchMergingV2", **settings)


MAKERS = {"swin": swin, "swin_v2": swin_v2}
any_version = pytest.mark.parametrize("make", MAKERS.values(), ids=list(MAKERS))


def stages(model):
    return [list(model.features[at]) for at in range(1, len(model.features), 2)]


def blocks(model):
    return [block for stage in stages(model) for block in stage]


def place(block, x, args, kwargs):
    hw = tuple(x.shape[1:3])
    window = tuple(block.attn.window_size)
    padded = [size + -size % side for size, side in zip(hw, window, strict=True)]
    shift = tuple(
        0 if side >= size else by
        for by, side, size in zip(block.attn.shift_size, window, padded, strict=True)
    )
    return Place(hw, window, shift)


@any_version
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("size", [(64, 64), (72, 100), (40, 52), (12, 100), (100, 16), (8, 8)])
@pytest.mark.parametrize("window", [[4, 4], [7, 7], [4, 6]])
def test_at_ratio_0_a_model_of_any_size_gives_what_torchvision_gives(make, window, size, batch):
    checks.check_dense(make(window_size=window), checks.images(batch, size))


@any_version
def test_at_ratio_0_layers_without_biases_give_what_torchvision_gives(make):
    model = make()
    for block in blocks(model):
        block.attn.qkv.bias = None
        block.attn.proj.bias = None
    checks.check_dense(model, checks.images(2, (60, 60)))


def test_at_ratio_0_attention_that_reaches_over_its_masks_gives_what_torchvision_gives():
    model = swin_v2(window_size=[2, 2], num_heads=[8, 16]).double()
    for block in blocks(model):
        block.attn.logit_scale.data.uniform_(4, 6)
    checks.check_dense(model, checks.images(2, (60, 60)).double())


@any_version
@settings(max_examples=8)
@given(
    size=st.tuples(*[st.integers(12, 104)] * 2),
    window=st.sampled_from([[4, 4], [7, 7], [3, 5]]),
    ratios=st.tuples(*[st.sampled_from([0.0, 0.2, 0.5, 0.6, 0.8])] * 2),
    batch=st.integers(1, 2),
    seed=st.integers(0, 99),
)
def test_at_ratios_outputs_and_gradients_are_those_of_dense_blocks_on_kept_windows(
    make, size, window, ratios, batch, seed
):
    model = make(window_size=window, stochastic_depth_prob=0.0)
    checks.check_skipping(model, stages, place, ratios, checks.images(batch, size, seed))


@any_version
def test_stochastic_depth_drops_the_same_images_as_in_the_dense_model(make):
    checks.check_training_draws(make(stochastic_depth_prob=0.6), checks.images(4, (64, 64)))


@any_version
def test_dropout_of_the_projection_acts_in_training_alone(make):
    model = sparsify(make(dropout=0.5, stochastic_depth_prob=0.0), 0.5)
    for block in blocks(model):
        block.mlp.eval()
    x = checks.images(1, (64, 64))
    with torch.no_grad():
        assert torch.equal(model(x), model(x))
        for block in blocks(model):
            block.attn.train()
        assert not torch.allclose(model(x), model(x))


@any_version
def test_densify_gives_back_the_model(make):
    checks.check_undone(make(), checks.images(2, (64, 64)))


@any_version
def test_copies_and_saved_models_are_models_of_their_own(make):
    checks.check_copies(make(), checks.images(2, (64, 64)))


@any_version
def test_a_second_sparsify_sets_the_ratios(make):
    checks.check_set_again(make(), checks.images(2, (64, 64)))


@any_version
def test_hooks_see_maps_that_nothing_overwrites(make):
    model = make()
    checks.check_hooks(model, blocks(model), checks.images(1, (60, 60)))


@any_version
def test_the_knobs_are_named_after_the_stages(make):
    model = sparsify(make(depths=[2, 4]), 0.5)
    expected = {"features.1": 0.5, "features.3_1": 0.5, "features.3_2": 0.5}
    assert SparsityHandle(model).get() == expected


def test_a_model_without_window_attention_is_an_error_that_names_those_with_it(torchvision):
    with pytest.raises(UserError, match="ResNet has no window attention") as error:
        sparsify(torchvision.models.resnet18())
    assert "torchvision" in error.value.remedy
