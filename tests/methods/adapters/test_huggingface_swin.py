"""Swin of Hugging Face transformers, and the copies that other models carry."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import pytest
import torch

pytest.importorskip("transformers")

from huggingface_models import (
    SWINS,
    assert_alike,
    grads,
    set_by_pairs,
    skipping,
    swin_like,
    swin_place,
    tensors,
    twin,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsevit import densify, sparsify
from sparsevit.errors import UserError
from sparsevit.sparsity.handle import SparsityHandle

RATIO = st.sampled_from([0.0, 0.2, 0.5, 0.8, 0.9])
PAIRS = st.tuples(st.lists(RATIO, min_size=1, max_size=1), st.lists(RATIO, min_size=2, max_size=2))
SMALLER_MAPS = ("swin backbone", "swinv2", "maskformer")


def stages(model):
    encoder = next(m for name, m in model.named_modules() if name.split(".")[-1] == "encoder")
    return [list(stage.blocks) for stage in encoder.layers]


def picture(height, width, batch=1):
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", SWINS)
@pytest.mark.parametrize("size", [(48, 48), (29, 46), (12, 12)])
def test_at_ratio_0_all_outputs_are_the_library_s(name, size):
    model = swin_like(name)
    x = picture(*size, batch=2)
    with torch.no_grad():
        expected = twin(model)(x, output_hidden_states=True)
        assert_alike(sparsify(model)(x, output_hidden_states=True), expected)


@pytest.mark.parametrize("name", SMALLER_MAPS)
def test_at_ratio_0_maps_smaller_than_a_window_are_padded(name):
    model = swin_like(name)
    with torch.no_grad():
        expected = twin(model)(picture(4, 18))
        assert_alike(sparsify(model)(picture(4, 18)), expected)


@pytest.mark.parametrize("name", ["swin", "donut"])
def test_a_small_map_changes_later_windows_as_in_the_library(name):
    # these layers shrink their window for good once they have seen a map no larger than it
    model = swin_like(name)
    dense = twin(model)
    sparsify(model)
    with torch.no_grad():
        for size in (48, 12, 48):
            assert_alike(model(picture(size, size)), dense(picture(size, size)))


def test_v2_built_for_a_map_smaller_than_its_window_runs_on_others_too():
    model = swin_like("swinv2", image_size=8, window_size=5)
    with torch.no_grad():
        for size in ((8, 8), (26, 40)):
            assert_alike(sparsify(twin(model))(picture(*size)), model(picture(*size)))


@settings(max_examples=4)
@pytest.mark.parametrize("name", SWINS)
@given(pairs=PAIRS, height=st.integers(12, 50), width=st.integers(12, 50), batch=st.integers(1, 2))
def test_at_ratios_outputs_and_what_the_encoder_keeps_are_the_reference_s(
    name, pairs, height, width, batch
):
    pairs = [sorted(group) for group in pairs]
    model = swin_like(name)
    dense = twin(model)
    ratios = set_by_pairs(sparsify(model), pairs)
    x = picture(height, width, batch)
    with torch.no_grad():
        with skipping(stages(dense), ratios, swin_place):
            expected = dense(x, output_hidden_states=True)
        assert_alike(model(x, output_hidden_states=True), expected)


@pytest.mark.parametrize("name", SWINS)
def test_gradients_are_the_reference_s(name):
    model = swin_like(name).train()
    dense = twin(model)
    ratios = set_by_pairs(sparsify(model), [[0.5], [0.2, 0.8]])
    x = picture(46, 34, batch=2)
    next(tensors(model(x))).square().sum().backward()
    with skipping(stages(dense), ratios, swin_place):
        next(tensors(dense(x))).square().sum().backward()
    expected = grads(dense)
    assert grads(model).keys() == expected.keys()
    for key, grad in grads(model).items():
        near = 1e-4 * max(1.0, float(expected[key].abs().max()))
        torch.testing.assert_close(grad, expected[key], atol=near, rtol=1e-4, msg=key)


@pytest.mark.parametrize("name", SWINS)
def test_stochastic_depth_and_dropout_of_ffn_draw_as_in_the_dense_model(name):
    model = swin_like(name, drop_path_rate=0.5).train()
    dense = twin(model)
    sparsify(model)
    for seed in range(2):
        torch.manual_seed(seed)
        expected = dense(picture(46, 34, batch=2))
        torch.manual_seed(seed)
        assert_alike(model(picture(46, 34, batch=2)), expected)


@pytest.mark.parametrize("name", SWINS)
def test_gradient_checkpointing_changes_no_gradient(name):
    model = swin_like(name).train()
    set_by_pairs(sparsify(model), [[0.5], [0.2, 0.8]])
    other = twin(model)
    other.gradient_checkpointing_enable()
    for one in (model, other):
        # two pictures pass before any gradient is asked for
        outputs = [next(tensors(one(picture(*size)))) for size in ((46, 34), (40, 48))]
        sum(output.square().sum() for output in outputs).backward()
    assert grads(model).keys() == grads(other).keys()
    for key, grad in grads(model).items():
        torch.testing.assert_close(grads(other)[key], grad)


@pytest.mark.parametrize("name", ["swinv2", "maskformer", "donut"])
def test_attention_weights_are_refused_where_a_layer_is_asked_for_them(name):
    model = sparsify(swin_like(name), 0.5)
    with pytest.raises(UserError, match="attention weights"):
        model(picture(48, 48), output_attentions=True)
    assert densify(model)(picture(48, 48), output_attentions=True).attentions


def test_attention_weights_of_swin_are_left_out():
    model = sparsify(swin_like("swin"), 0.5)
    assert not model(picture(48, 48), output_attentions=True).attentions


@pytest.mark.parametrize("name", SWINS)
def test_keys_stay_and_densify_undoes_it(name):
    model = swin_like(name)
    dense = twin(model)
    classes = [type(module) for module in model.modules()]
    sparsify(model, 0.5)
    assert list(model.state_dict()) == list(dense.state_dict())
    with torch.no_grad():
        assert not torch.equal(
            next(tensors(model(picture(48, 48)))), next(tensors(dense(picture(48, 48))))
        )
        densify(model)
        assert [type(module) for module in model.modules()] == classes
        for one, other in zip(
            tensors(model(picture(48, 48))), tensors(dense(picture(48, 48))), strict=True
        ):
            assert torch.equal(one, other)


@pytest.mark.parametrize("name", SWINS)
def test_a_model_that_has_run_can_be_copied_and_pickled(name):
    model = sparsify(swin_like(name), 0.5).train()
    expected = model(picture(46, 34))
    copies = [copy.deepcopy(model)]
    if name != "swin backbone":
        # transformers leaves hooks in this one, which cannot be pickled in the dense model either
        copies.append(pickle.loads(pickle.dumps(model)))
    for other in copies:
        sparsify(model, 0.8)
        assert set(SparsityHandle(other).get().values()) == {0.5}
        assert_alike(other(picture(46, 34)), expected)


@pytest.mark.parametrize("name", SWINS)
def test_a_saved_sparse_model_is_loaded_as_a_dense_one(name, tmp_path):
    model = swin_like(name)
    dense = twin(model)
    sparsify(model, 0.5).save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert_alike(loaded(picture(48, 48)), dense(picture(48, 48)))


def test_each_stage_is_a_group_with_a_knob_for_each_pair_of_blocks():
    knobs = list(SparsityHandle(sparsify(swin_like("swin"))).get())
    assert knobs == ["encoder.layers.0", "encoder.layers.1_1", "encoder.layers.1_2"]


def test_a_hook_on_a_block_sees_its_input_as_it_came():
    model = sparsify(swin_like("swin"), 0.5)
    second, seen = model.encoder.layers[0].blocks[1], []
    second.register_forward_pre_hook(lambda block, args: seen.append((args[0], args[0].clone())))
    with torch.no_grad():
        model(picture(48, 48))
    assert torch.equal(*seen[0])


NO_OTHER_LIBRARY = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("mmdet", "mmcv", "mmengine"):
            raise ImportError(f"{name} is hidden")

sys.meta_path.insert(0, Hidden())
from sparsevit import densify, sparsify
import torch
from transformers import SwinConfig, SwinModel

model = SwinModel(SwinConfig(embed_dim=8, depths=[2], num_heads=[2], image_size=32))
sparsify(model, 0.5)(torch.zeros(1, 3, 64, 64))
densify(model)
names = ("maskformer", "donut", "swinv2", "vitdet", "sam")
assert not [n for n in names if f"transformers.models.{n}" in sys.modules]
assert not [n for n in ("mmdet", "mmcv", "mmengine") if n in sys.modules]
"""


def test_sparsify_needs_torch_and_transformers_alone():
    done = subprocess.run(
        [sys.executable, "-c", NO_OTHER_LIBRARY], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
