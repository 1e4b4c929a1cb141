"""timm's Swin and Swin V2, made sparse."""

from __future__ import annotations

import copy
import subprocess
import sys
import textwrap
from pathlib import Path

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

SMALL = {"embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4), "num_classes": 5}


@pytest.fixture(scope="module", autouse=True)
def timm():
    with vision_libraries.visible():
        import timm

        yield timm


def swin(**settings):
    from timm.models.swin_transformer import SwinTransformer

    return checks.randomised(SwinTransformer(**{**SMALL, "window_size": 4, **settings}))


def swin_v2(**settings):
    from timm.models.swin_transformer_v2 import SwinTransformerV2

    return checks.randomised(SwinTransformerV2(**{**SMALL, "window_size": 4, **settings}))


MAKERS = {"swin": swin, "swin_v2": swin_v2}
any_version = pytest.mark.parametrize("make", MAKERS.values(), ids=list(MAKERS))


def stages(model):
    return [list(layer.blocks) for layer in model.layers]


def blocks(model):
    return [block for stage in stages(model) for block in stage]


def place(block, x, args, kwargs):
    window, shift = block.window_size, block.shift_size
    return Place(tuple(x.shape[1:3]), tuple(window), tuple(shift), roll_first=True)


@any_version
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("size", [(64, 64), (72, 100), (40, 52), (12, 100), (8, 8)])
def test_at_ratio_0_a_model_of_any_size_gives_what_timm_gives(make, size, batch):
    model = make(img_size=64, strict_img_size=False)
    checks.check_dense(model, checks.images(batch, size))


@any_version
@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({"window_size": 7, "img_size": 56}, (56, 56)),
        ({"window_size": 7, "img_size": 60}, (60, 60)),
        ({"window_size": (4, 6), "img_size": (72, 60)}, (72, 60)),
        ({"window_size": 7, "img_size": (24, 100)}, (24, 100)),
        ({"window_size": 7, "img_size": (24, 100), "always_partition": True}, (24, 100)),
        ({"window_size": 7, "img_size": 16, "always_partition": True}, (16, 16)),
        ({"img_size": 64, "patch_size": 2}, (64, 64)),
    ],
)
def test_at_ratio_0_a_model_of_one_size_gives_what_timm_gives(make, settings, size):
    checks.check_dense(make(**settings), checks.images(2, size))


def test_at_ratio_0_heads_of_any_width_give_what_timm_gives():
    checks.check_dense(swin(img_size=60, head_dim=12), checks.images(2, (60, 60)))


@pytest.mark.parametrize("bias", ["none", "separate"])
def test_at_ratio_0_biases_of_any_kind_give_what_timm_gives(bias):
    model = swin_v2(img_size=60, qkv_bias=bias != "none")
    for block in blocks(model):
        block.attn.qkv_bias_separate = bias == "separate"
    checks.check_dense(model, checks.images(2, (60, 60)))


def test_at_ratio_0_attention_that_reaches_over_its_masks_gives_what_timm_gives():
    model = swin_v2(img_size=60, window_size=2, num_heads=(8, 16)).double()
    for block in blocks(model):
        block.attn.logit_scale.data.uniform_(4, 6)
    checks.check_dense(model, checks.images(2, (60, 60)).double())


@any_version
def test_at_ratio_0_a_model_whose_input_size_was_set_gives_what_timm_gives(make):
    model = make(img_size=64)
    sparse = sparsify(copy.deepcopy(model))
    for each in (model, sparse):
        each.set_input_size(img_size=(72, 100), window_size=(3, 5))
    x = checks.images(2, (72, 100))
    with torch.no_grad():
        checks.assert_same(sparse(x), model(x))


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"])
def test_at_ratio_0_a_model_of_features_gives_what_timm_gives(timm, name):
    model = timm.create_model(
        name, features_only=True, img_size=64, **{**SMALL, "num_classes": 0, "out_indices": (0, 1)}
    )
    checks.check_dense(checks.randomised(model), checks.images(2, (64, 64)))


@any_version
@settings(max_examples=8)
@given(
    size=st.tuples(*[st.integers(3, 26).map(lambda tokens: 4 * tokens)] * 2),
    window=st.sampled_from([4, 7, (3, 5)]),
    ratios=st.tuples(*[st.sampled_from([0.0, 0.2, 0.5, 0.6, 0.8])] * 2),
    batch=st.integers(1, 2),
    seed=st.integers(0, 99),
)
def test_at_ratios_outputs_and_gradients_are_those_of_dense_blocks_on_kept_windows(
    make, size, window, ratios, batch, seed
):
    model = make(img_size=64, window_size=window, strict_img_size=False)
    checks.check_skipping(model, stages, place, ratios, checks.images(batch, size, seed))


@any_version
def test_stochastic_depth_drops_the_same_images_as_in_the_dense_model(make):
    checks.check_training_draws(make(img_size=64, drop_path_rate=0.6), checks.images(4, (64, 64)))


@any_version
def test_densify_gives_back_the_model(make):
    checks.check_undone(make(img_size=64), checks.images(2, (64, 64)))


@any_version
def test_copies_and_saved_models_are_models_of_their_own(make):
    checks.check_copies(make(img_size=64), checks.images(2, (64, 64)))


@any_version
def test_a_second_sparsify_sets_the_ratios(make):
    checks.check_set_again(make(img_size=64), checks.images(2, (64, 64)))


@any_version
def test_hooks_see_maps_that_nothing_overwrites(make):
    model = make(img_size=60)
    checks.check_hooks(model, blocks(model), checks.images(1, (60, 60)))


@any_version
def test_the_knobs_are_named_after_the_stages(make):
    model = sparsify(make(img_size=64, depths=(2, 4)), 0.5)
    assert SparsityHandle(model).get() == {"layers.0": 0.5, "layers.1_1": 0.5, "layers.1_2": 0.5}


@any_version
@pytest.mark.parametrize("ratios", [(0.5, 0.5), (0.0, 0.6)])
def test_checkpointing_changes_no_gradient_also_of_a_pass_before_the_last(make, ratios):
    model = make(img_size=64, depths=(2, 4))
    knobs = dict(zip(("layers.1_1", "layers.1_2"), ratios, strict=True))
    sparsify(model, {"layers.0": 0.5, **knobs})
    x, other = checks.images(2, (64, 64)), checks.images(2, (64, 64), seed=5)

    def gradients():
        model.zero_grad()
        first = model(x)
        model(other)
        first.square().sum().backward()
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    kept = gradients()
    model.set_grad_checkpointing()
    computed_again = gradients()
    assert kept.keys() == computed_again.keys()
    for name, value in kept.items():
        scale = max(1.0, float(value.abs().max()))
        torch.testing.assert_close(computed_again[name] / scale, value / scale, msg=name)


def test_a_model_without_window_attention_is_an_error_that_names_those_with_it(timm):
    vit = timm.create_model("vit_tiny_patch16_224", depth=1)
    with pytest.raises(UserError, match="VisionTransformer has no window attention") as error:
        sparsify(vit)
    for library in ("timm", "torchvision", "mmdetection"):
        assert library in error.value.remedy


def test_torch_and_timm_are_all_that_is_needed():
    program = """
        import sys

        class Hidden:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in ("mmdet", "mmcv", "mmengine"):
                    raise ImportError(name)

        sys.meta_path.insert(0, Hidden())
        import torch
        import vision_libraries
        from sparsevit import sparsify
        from sparsevit.sparsity.handle import SparsityHandle

        with vision_libraries.visible():
            from timm.models.swin_transformer import SwinTransformer

            model = SwinTransformer(img_size=64, embed_dim=16, depths=(2, 2), num_heads=(2, 4))
            model = sparsify(model, ratios=0.5).eval()
            with torch.no_grad():
                model(torch.rand(1, 3, 64, 64))
            print(SparsityHandle(model).get())
    """
    shared = Path(vision_libraries.__file__).parent
    environment_path = [str(shared), str(Path(__file__).parents[3])]
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys; sys.path[:0] = {environment_path!r}\n" + textwrap.dedent(program),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "layers.0=0.5,layers.1=0.5"
