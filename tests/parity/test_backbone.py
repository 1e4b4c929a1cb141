"""SparseViT against mmdet's Swin at ratio 0, and against the paper's forward at every other."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet_backbones import make_pair, small_swin
from plain_forward import plain_forward

from sparsevit.methods.windows.forward import Route

SIZES = [(224, 224), (225, 190), (96, 160), (33, 257), (64, 64), (32, 32)]


def largest_difference(a, b):
    return max((x - y).abs().max().item() for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("batch", [1, 2])
def test_ratio_zero_equals_mmdet_swin(size, batch):
    sparse, swin = make_pair()
    images = torch.randn(batch, 3, *size)
    with torch.no_grad():
        assert largest_difference(sparse(images), swin(images)) < 1e-5


@pytest.mark.parametrize("size", SIZES)
def test_plain_reference_at_ratio_zero_equals_mmdet_swin(size):
    _, swin = make_pair()
    images = torch.randn(2, 3, *size)
    ratios = [[0.0] * len(s.blocks) for s in swin.stages]
    with torch.no_grad():
        assert largest_difference(plain_forward(swin, images, ratios), swin(images)) < 1e-5


ratio_lists = st.lists(
    st.lists(st.integers(0, 9).map(lambda r: r / 10), min_size=1, max_size=3).map(sorted),
    min_size=4,
    max_size=4,
)


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(29, 200),
    width=st.integers(29, 200),
    batch=st.integers(1, 3),
    pairs=ratio_lists,
    pad_before_norm=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_every_ratio_and_size_equals_the_papers_forward(
    height, width, batch, pairs, pad_before_norm, seed
):
    depths = [2 * len(p) for p in pairs]
    ratios = [[r for r in p for _ in range(2)] for p in pairs]
    torch.manual_seed(seed)
    sparse = small_swin(
        "SparseViT", depths=depths, pruning_ratios=ratios, pad_before_norm=pad_before_norm
    )
    images = torch.randn(batch, 3, height, width)
    with torch.no_grad():
        ours = sparse(images)
        plain = plain_forward(sparse, images, ratios, pad_before_norm)
    assert largest_difference(ours, plain) < 1e-5


@pytest.mark.parametrize(
    "ratios",
    [
        [[0.0, 0.5], [0.3, 0.6], [0.0, 0.0, 0.4, 0.2, 0.4, 0.6], [0.0, 0.8]],
        [[0.5, 0.0], [0.9, 0.95], [0.0, 0.3, 0.0, 0.3, 0.9, 0.3], [0.99, 0.99]],
    ],
    ids=["within-a-pair", "falling-and-nearly-all"],
)
def test_ratios_by_block_equal_the_papers_forward(ratios):
    torch.manual_seed(0)
    sparse = small_swin("SparseViT", depths=[2, 2, 6, 2], pruning_ratios=ratios)
    images = torch.randn(2, 3, 160, 224)
    with torch.no_grad():
        assert largest_difference(sparse(images), plain_forward(sparse, images, ratios)) < 1e-5


def test_pad_before_norm_differs_where_padding_matters():
    torch.manual_seed(0)
    sparse = small_swin("SparseViT")
    images = torch.randn(1, 3, 100, 100)
    with torch.no_grad():
        plain = sparse(images)
        sparse.pad_before_norm = True
        assert largest_difference(sparse(images), plain) > 1e-3


@pytest.mark.parametrize("pad_before_norm", [False, True])
@pytest.mark.parametrize("size", [(112, 112), (100, 120)])
@pytest.mark.parametrize("with_cp", [False, True])
def test_gradients_equal_those_of_the_plain_forward(size, with_cp, pad_before_norm):
    ratios = [[0.3, 0.3], [0.0, 0.5], [0.2, 0.2, 0.4, 0.4], [0.6, 0.6]]
    torch.manual_seed(0)
    sparse = small_swin(
        "SparseViT",
        depths=[2, 2, 4, 2],
        pruning_ratios=ratios,
        with_cp=with_cp,
        pad_before_norm=pad_before_norm,
        drop_path_rate=0.0,
    )
    sparse.train()
    images = torch.randn(2, 3, *size)

    def gradients(outs):
        sparse.zero_grad()
        sum((o * torch.linspace(-1, 1, o.numel()).view_as(o)).sum() for o in outs).backward()
        return {k: p.grad.clone() for k, p in sparse.named_parameters() if p.grad is not None}

    ours = gradients(sparse(images))
    plain = gradients(plain_forward(sparse, images, ratios, pad_before_norm))
    assert ours.keys() == plain.keys()
    for name, grad in plain.items():
        scale = grad.abs().max().item() + 1e-6
        assert (ours[name] - grad).abs().max().item() < 1e-4 * max(scale, 1.0), name


def test_stochastic_depth_drops_the_same_images_as_mmdet():
    sparse, swin = make_pair(drop_path_rate=0.5)
    sparse.train(), swin.train()
    images = torch.randn(3, 3, 64, 64)
    torch.manual_seed(7)
    ours = sparse(images)
    torch.manual_seed(7)
    assert largest_difference(ours, swin(images)) < 1e-5


@pytest.mark.parametrize("pad_before_norm", [False, True])
def test_without_any_faster_route_the_plain_forward_is_the_papers(pad_before_norm):
    ratios = [[0.0, 0.0], [0.5, 0.5], [0.3, 0.6], [0.0, 0.0]]
    sparse = small_swin("SparseViT", pruning_ratios=ratios, pad_before_norm=pad_before_norm)
    sparse.pieces = replace(sparse.pieces, route=Route())
    images = torch.randn(2, 3, 130, 97)
    with torch.no_grad():
        expected = plain_forward(sparse, images, ratios, pad_before_norm)
        assert largest_difference(sparse(images), expected) < 1e-5
