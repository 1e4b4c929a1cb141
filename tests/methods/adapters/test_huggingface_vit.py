"""The windowed blocks of ViTDet and of SAM's image encoder, of Hugging Face transformers."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

pytest.importorskip("transformers")

from huggingface_models import (
    assert_alike,
    grads,
    sam,
    set_by_pairs,
    skipping,
    tensors,
    twin,
    vit_place,
    vitdet,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsevit import densify, sparsify
from sparsevit.errors import UserError
from sparsevit.sparsity.handle import SparsityHandle

VITS = {"vitdet": vitdet, "sam": sam}
RATIO = st.sampled_from([0.0, 0.2, 0.5, 0.8, 0.9])


def runs(model):
    """The blocks between global ones."""
    layers = model.encoder.layer if hasattr(model, "encoder") else model.vision_encoder.layers
    return [list(layers[:2]), list(layers[3:5])]


def picture(size=44, batch=1):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", VITS)
@pytest.mark.parametrize("size", [64, 44, 12])
def test_at_ratio_0_outputs_and_what_is_kept_of_every_layer_are_the_library_s(name, size):
    # maps of 16, 11 and 3 tokens: a multiple of the window, none, and smaller than a window
    model = VITS[name](size)
    x = picture(size, batch=2)
    with torch.no_grad():
        expected = twin(model)(x, output_hidden_states=True)
        assert_alike(sparsify(model)(x, output_hidden_states=True), expected)


def test_vitdet_takes_other_sizes_than_it_was_built_for():
    model = vitdet(44)
    x = torch.randn(2, 3, 40, 56)
    with torch.no_grad():
        expected = twin(model)(x)
        assert_alike(sparsify(model)(x), expected)


@pytest.mark.parametrize(
    "model",
    [
        lambda: vitdet(use_relative_position_embeddings=False),
        lambda: sam(use_rel_pos=False),
        lambda: sam(attention="eager"),
    ],
    ids=["vitdet without positions", "sam without positions", "sam, eager attention"],
)
def test_other_settings_agree_at_ratio_0(model):
    model = model()
    with torch.no_grad():
        expected = twin(model)(picture())
        assert_alike(sparsify(model)(picture()), expected)


@pytest.mark.parametrize("name", VITS)
@settings(max_examples=4)
@given(first=RATIO, second=RATIO, batch=st.integers(1, 2))
def test_at_ratios_outputs_and_what_is_kept_of_every_layer_are_the_reference_s(
    name, first, second, batch
):
    model = VITS[name]()
    dense = twin(model)
    ratios = set_by_pairs(sparsify(model), [[first], [second]])
    x = picture(batch=batch)
    with torch.no_grad():
        with skipping(runs(dense), ratios, vit_place):
            expected = dense(x, output_hidden_states=True)
        assert_alike(model(x, output_hidden_states=True), expected)


@pytest.mark.parametrize("name", VITS)
def test_gradients_are_the_reference_s(name):
    model = VITS[name]().train()
    dense = twin(model)
    ratios = set_by_pairs(sparsify(model), [[0.5], [0.8]])
    sum(t.square().sum() for t in tensors(model(picture(batch=2)))).backward()
    with skipping(runs(dense), ratios, vit_place):
        sum(t.square().sum() for t in tensors(dense(picture(batch=2)))).backward()
    expected = grads(dense)
    assert grads(model).keys() == expected.keys()
    for key, grad in grads(model).items():
        near = 1e-4 * max(1.0, float(expected[key].abs().max()))
        torch.testing.assert_close(grad, expected[key], atol=near, rtol=1e-4, msg=key)


def test_stochastic_depth_draws_as_in_the_dense_model():
    model = vitdet(drop_path_rate=0.5).train()
    dense = twin(model)
    sparsify(model)
    for seed in range(2):
        torch.manual_seed(seed)
        expected = dense(picture(batch=2))
        torch.manual_seed(seed)
        assert_alike(model(picture(batch=2)), expected)


@pytest.mark.parametrize("name", VITS)
def test_gradient_checkpointing_changes_no_gradient(name):
    model = sparsify(VITS[name](), 0.5).train()
    other = twin(model)
    other.gradient_checkpointing_enable()
    for one in (model, other):
        # two pictures pass before any gradient is asked for
        first, second = one(picture()), one(picture().flip(-1))
        sum(t.square().sum() for out in (first, second) for t in tensors(out)).backward()
    assert grads(model).keys() == grads(other).keys()
    for key, grad in grads(model).items():
        torch.testing.assert_close(grads(other)[key], grad)


def test_attention_weights_of_vitdet_are_refused():
    with pytest.raises(UserError, match="attention weights"):
        sparsify(vitdet(), 0.5)(picture(), output_attentions=True)


def test_attention_weights_of_sam_are_those_of_global_blocks():
    model = sam(attention="eager")
    assert len(twin(model)(picture(), output_attentions=True).attentions) == 6
    assert len(sparsify(model, 0.5)(picture(), output_attentions=True).attentions) == 2


@pytest.mark.parametrize("name", VITS)
def test_keys_stay_copies_work_and_densify_undoes_it(name, tmp_path):
    model = VITS[name]()
    dense = twin(model)
    sparsify(model, 0.5)
    assert list(model.state_dict()) == list(dense.state_dict())
    with torch.no_grad():
        half, full = model(picture()), dense(picture())
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert_alike(other(picture()), half)
        model.save_pretrained(tmp_path)
        assert_alike(type(model).from_pretrained(tmp_path).eval()(picture()), full)
        densify(model)
        pairs = zip(tensors(model(picture())), tensors(full), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("name", VITS)
def test_a_knob_stands_for_a_run_of_blocks_and_is_named_after_its_first(name):
    knobs = list(SparsityHandle(sparsify(VITS[name]())).get())
    assert [knob.rpartition(".")[2] for knob in knobs] == ["0", "3"]
