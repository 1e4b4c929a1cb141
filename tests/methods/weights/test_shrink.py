"""Heads and neurons that are dead, taken out of the tensors."""

from __future__ import annotations

import pytest
import svite_models
import torch
from svite_models import Training, classifier
from torch import nn

import sparsevit.models.svite as svite
from sparsevit.errors import UserError
from sparsevit.methods.weights.shrink import shrink

STRUCTURED = {"heads": 0.5, "neurons": 0.6, "update_interval": 3}


def zeroed(model):
    """Some heads and neurons dead, in each way that they can be; biases stay."""
    for n, layer in enumerate(model.backbone.layers):
        rows = layer.attn.qkv.weight.data.view(3, 4, 4, 16)
        rows[:, n] = 0
        rows[2, 3] = 0  # its values alone
        layer.ffn.layers[0][0].weight.data[: 5 + n] = 0
        layer.ffn.layers[1].weight.data[:, 20:22] = 0
    return model


@pytest.mark.parametrize("kind", [svite.VisionTransformer, svite.DistilledVisionTransformer])
def test_a_smaller_model_gives_out_the_same(kind):
    model = zeroed(classifier(kind)).eval()
    images, _ = svite_models.batch(0)
    with torch.no_grad():
        expected = model(images)
        before = sum(p.numel() for p in model.parameters())
        assert shrink(model) == {"heads": [2, 2], "neurons": [25, 24]}
        torch.testing.assert_close(model(images), expected, rtol=1e-5, atol=1e-5)
    assert model.backbone.layers[0].attn.qkv.weight.shape == (3 * 8, 16)
    assert model.backbone.layers[0].attn.proj.weight.shape == (16, 8)
    assert sum(p.numel() for p in model.parameters()) < before


def test_what_was_trained_sparse_shrinks_to_what_was_kept():
    model = Training(classifier(svite=STRUCTURED), total=20).run(20).model.eval()
    images, _ = svite_models.batch(0)
    with torch.no_grad():
        expected = model(images)
        assert shrink(model) == {"heads": [2, 2], "neurons": [19, 19]}
        torch.testing.assert_close(model(images), expected, rtol=1e-5, atol=1e-5)


def test_a_model_without_dead_units_stays_as_it_is():
    model = classifier()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert shrink(model) == {"heads": [4, 4], "neurons": [32, 32]}
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_layer_that_is_wholly_dead_keeps_one():
    model = classifier().eval()
    model.backbone.layers[0].attn.qkv.weight.data.zero_()
    model.backbone.layers[1].ffn.layers[1].weight.data.zero_()
    images, _ = svite_models.batch(0)
    with torch.no_grad():
        expected = model(images)
        assert shrink(model) == {"heads": [1, 4], "neurons": [32, 1]}
        torch.testing.assert_close(model(images), expected, rtol=1e-5, atol=1e-5)


def test_without_biases_behind_them_only_what_gives_nothing_goes():
    model = classifier(svite.VisionTransformer).eval()
    for layer in model.backbone.layers:
        layer.attn.proj.bias = None
        layer.ffn.layers[1].bias = None
    zeroed(model)
    images, _ = svite_models.batch(0)
    with torch.no_grad():
        expected = model(images)
        assert shrink(model) == {"heads": [4, 4], "neurons": [30, 30]}
        torch.testing.assert_close(model(images), expected, rtol=1e-5, atol=1e-5)


def test_a_model_built_with_its_widths_takes_its_weights():
    model = zeroed(classifier()).eval()
    widths = shrink(model)
    built = classifier(widths=widths)
    built.load_state_dict(model.state_dict())
    images, _ = svite_models.batch(0)
    with torch.no_grad():
        assert torch.equal(built.eval()(images), model(images))


def test_plain_mmpretrain_takes_them_in_a_few_lines():
    model = zeroed(classifier()).eval()
    shrink(model)
    plain = classifier(svite.VisionTransformer).eval()
    # as docs/sparse_weights.md has it
    state = model.state_dict()
    for name, module in plain.named_modules():
        if isinstance(module, nn.Linear):
            module.weight = nn.Parameter(state[f"{name}.weight"])
            module.bias = nn.Parameter(state[f"{name}.bias"])
        if name.endswith("attn"):
            module.embed_dims = len(state[f"{name}.qkv.weight"]) // 3
            module.num_heads = module.embed_dims // module.head_dims
    plain.load_state_dict(state)
    images, _ = svite_models.batch(0)
    with torch.no_grad():
        assert torch.equal(plain(images), model(images))


@pytest.mark.parametrize(
    "widths",
    [
        {"heads": [2], "neurons": [8, 8]},
        {"heads": [2, 0], "neurons": [8, 8]},
        {"heads": [2, 2], "neurons": [8, 33]},
    ],
)
def test_widths_of_another_model_are_refused(widths):
    with pytest.raises(UserError, match=r"widths\.(heads|neurons) is .*, for blocks that have"):
        classifier(widths=widths)
