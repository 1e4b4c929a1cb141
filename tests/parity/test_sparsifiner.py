"""Sparsifiner against its equations written out: logits, masks, gradients, every switch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from sparsifiner_reference import reference

from sparsevit.methods.attention import forward
from sparsevit.models.sparsifiner import SparsifinerConfig, build_sparsifiner

DEIT = SparsifinerConfig("deit", (24, 36), 4, 7, 16, 3, 2, 4, keep_rate=0.25)
LVVIT = replace(DEIT, architecture="lvvit", mlp_ratio=3)
SWITCHES = {
    "plain": {},
    "much": {"keep_rate": 0.9},
    "little": {"keep_rate": 0.01},
    "by layer": {"keep_rate": [1, 0.5, 0.1]},
    "reductions": {"reduce_n": 4, "reduce_c": 4},
    "all of the basis": {"basis_threshold": 0.0},
    "little of the basis": {"basis_threshold": 0.05, "keep_rate": 0.6},
    "three coefficients": {"coefficients": 3},
    "more coefficients than rows": {"coefficients": 100},
    "coefficients by threshold": {"coefficients": 0.07},
    "connections by threshold": {"connections": 0.02},
    "no connections": {"connections": 0.99},
    "blocks": {"connections": "blocks"},
    "blocks, much": {"connections": "blocks", "keep_rate": 0.7},
    "shared": {"share_projection": True},
    "pruned": {"prune_tokens": {0: 0.7, 1: 0.31}},
    "pruned below the kept": {"prune_tokens": {0: 0.2}, "keep_rate": 0.5},
    "pruned, blocks": {"prune_tokens": {0: 0.7}, "connections": "blocks"},
    "pruned, threshold": {"prune_tokens": {1: 0.7}, "connections": 0.02, "coefficients": 0.05},
}


@pytest.fixture(params=["whole", "in parts"])
def part_sizes(request, monkeypatch):
    """Few tokens need no parts: make them small."""
    if request.param == "in parts":
        small_parts(monkeypatch)


def small_parts(monkeypatch):
    monkeypatch.setattr(forward, "PART_BYTES", 1)
    monkeypatch.setattr(forward, "TRAINED_BYTES", 1)


def model_of(config, seed=0):
    """With weights that make predictions differ, in float64."""
    torch.manual_seed(seed)
    model = build_sparsifiner(config).double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "proj_n" not in name and "proj_back" not in name:
                parameter.normal_(0, 2 * parameter[0].numel() ** -0.5)
            elif "norm" in name or "bn" in name:
                parameter.normal_(1, 0.2)
            elif "mask_predictor" in name:
                parameter.normal_(0, 0.5 if name.endswith("proj_n") else 0.03)
        for name, buffer in model.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 2)
            elif name.endswith("running_mean"):
                buffer.normal_(0, 0.2)
    return model


def images_for(config, count=2):
    return torch.randn(count, 3, *config.image_size, dtype=torch.float64)


@pytest.mark.parametrize("base", [DEIT, LVVIT], ids=["deit", "lvvit"])
@pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES)
def test_logits_masks_and_coefficients_are_those_of_the_equations(base, switches, monkeypatch):
    config = replace(base, **switches)
    model = model_of(config)
    images = images_for(config)
    expected = reference(config, model.state_dict(), images)
    with torch.no_grad():
        torch.testing.assert_close(model(images), expected.logits, rtol=1e-9, atol=1e-9)
        small_parts(monkeypatch)
        torch.testing.assert_close(model(images), expected.logits, rtol=1e-9, atol=1e-9)
    seen = model.explain(images)
    torch.testing.assert_close(seen["logits"], expected.logits, rtol=1e-9, atol=1e-9)
    for layer in range(config.depth):
        assert torch.equal(seen["masks"][layer], expected.masks[layer])
        torch.testing.assert_close(seen["coefficients"][layer], expected.coefficients[layer])
        share = 1 - seen["masks"][layer].double().mean().item()
        assert seen["sparsity"]["masks"][layer] == pytest.approx(share)


@pytest.mark.parametrize("base", [DEIT, LVVIT], ids=["deit", "lvvit"])
@pytest.mark.usefixtures("part_sizes")
@pytest.mark.parametrize(
    "name", ["plain", "by layer", "connections by threshold", "no connections", "blocks", "pruned"]
)
def test_gradients_are_those_of_the_masked_product_and_the_mask_has_none(base, name):
    config = replace(base, **SWITCHES[name])
    model = model_of(config)
    images = images_for(config)
    weights = torch.randn(2, config.num_classes, dtype=torch.float64)
    (model(images) * weights).sum().backward()
    state = {
        k: v.detach().clone().requires_grad_(v.is_floating_point())
        for k, v in model.state_dict().items()
    }
    (reference(config, state, images).logits * weights).sum().backward()
    for key, parameter in model.named_parameters():
        if "mask_predictor" in key:
            assert parameter.grad is None
            continue
        torch.testing.assert_close(parameter.grad, state[key].grad, rtol=1e-7, atol=1e-9)
