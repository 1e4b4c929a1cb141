"""Multiplications counted are those that a pencil counts."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from mmdet_backbones import small_swin
from torch import nn

from sparsevit.latency.cost import gmacs, parameters


def test_a_linear_layer_costs_its_weights_times_its_rows():
    layer = nn.Linear(64, 128)
    assert gmacs(lambda: layer(torch.randn(10, 64))) == pytest.approx(10 * 64 * 128 / 1e9)


def test_a_convolution_costs_its_kernel_times_its_pixels():
    layer = nn.Conv2d(3, 16, 4, stride=4)
    expected = 2 * 8 * 8 * 16 * 3 * 4 * 4 / 1e9
    assert gmacs(lambda: layer(torch.randn(2, 3, 32, 32))) == pytest.approx(expected)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_costs_two_products(masked):
    q, k, v = torch.randn(3, 6, 2, 49, 16).unbind(0)
    mask = torch.zeros(6, 2, 49, 49) if masked else None
    expected = 2 * 6 * 2 * 49 * 49 * 16 / 1e9
    with torch.no_grad():
        got = gmacs(lambda: F.scaled_dot_product_attention(q, k, v, mask))
    assert got == pytest.approx(expected)


def test_a_swin_costs_what_its_layers_cost_together():
    swin = small_swin("SparseViT", depths=[2, 2, 2, 2])
    expected = 56 * 56 * 16 * 3 * 16
    side, width = 56, 16
    for stage in range(4):
        tokens = side * side
        # qkv and proj, the two products of attention, the FFN
        block = tokens * (4 * width**2 + 2 * 49 * width + 8 * width**2)
        expected += 2 * block
        if stage < 3:
            expected += tokens // 4 * 4 * width * 2 * width
            side, width = side // 2, width * 2
    x = torch.randn(1, 3, 224, 224)
    assert gmacs(lambda: swin(x)) == pytest.approx(expected / 1e9)


def test_parameters_count_the_frozen_too():
    layer = nn.Linear(3, 5)
    layer.weight.requires_grad_(False)
    assert parameters(layer) == 20
