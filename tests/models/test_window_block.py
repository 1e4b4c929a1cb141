"""The parts of a forward: lists of windows cut up, patches merged, the form for other runtimes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.models.layers import PatchEmbed, PatchMerging
from mmdet_backbones import small_swin

from sparsevit.models import window_block
from sparsevit.models.exported import exported
from sparsevit.models.sparsevit import StageTokens
from sparsevit.models.window_block import (
    all_windows,
    embed_patches,
    feature_map,
    in_parts,
    merge_patches,
)
from sparsevit.ops.windows import window_layout

CPU = torch.device("cpu")
HIDDEN = 64 * 49 * 4  # bytes that one window takes in the FFN of the first stage


def images(batch=2, size=(224, 208), seed=0):
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(seed))


def largest_difference(a, b):
    return max((x - y).abs().max().item() for x, y in zip(a, b, strict=True))


@settings(deadline=None)
@given(
    batch=st.integers(1, 3),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    channels=st.integers(1, 20),
    rows_bytes=st.sampled_from([1, 300, 2**22]),
    gradients=st.booleans(),
)
def test_a_feature_map_is_the_normalised_map_with_channels_first(
    batch, height, width, channels, rows_bytes, gradients
):
    norm = torch.nn.LayerNorm(channels).requires_grad_(False)
    x_BLC = torch.arange(batch * height * width * channels).float().view(batch, -1, channels) ** 2
    whole, window_block.CACHED_BYTES = window_block.CACHED_BYTES, rows_bytes
    try:
        with torch.set_grad_enabled(gradients):
            out = feature_map(norm, x_BLC, (height, width))
    finally:
        window_block.CACHED_BYTES = whole
    assert out.is_contiguous()
    expected = norm(x_BLC).transpose(1, 2).reshape(batch, channels, height, width)
    torch.testing.assert_close(out, expected)


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 3),
    height=st.integers(1, 30),
    width=st.integers(1, 30),
    normed=st.booleans(),
    part_bytes=st.sampled_from([16, 2**14, 2**22]),
    gradients=st.booleans(),
)
def test_patches_are_embedded_as_mmdet_does(batch, height, width, normed, part_bytes, gradients):
    norm = {"type": "LN"} if normed else None
    embedding = PatchEmbed(3, 24, kernel_size=4, stride=4, norm_cfg=norm).requires_grad_(False)
    x = images(batch, (height, width))
    whole, window_block.CACHED_BYTES = window_block.CACHED_BYTES, part_bytes
    try:
        with torch.set_grad_enabled(gradients):
            got, grid = embed_patches(embedding, x)
    finally:
        window_block.CACHED_BYTES = whole
    expected, size = embedding(x)
    assert grid == tuple(size)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("options", [{"stride": 2}, {"padding": 1}, {"padding": "same"}], ids=str)
def test_other_embeddings_are_mmdets(options):
    embedding = PatchEmbed(3, 24, **{"kernel_size": 4, "stride": 4, **options})
    x = images(2, (31, 30))
    with torch.no_grad():
        got, grid = embed_patches(embedding, x)
        expected, size = embedding(x)
    assert grid == tuple(size)
    assert torch.equal(got, expected)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.sampled_from([0, 3]), st.integers(1, 3))
def test_parts_hold_each_window_once_and_stay_within_the_limit(most, shift, batch):
    block = small_swin("SparseViT").stages[0].blocks[0]
    windows = all_windows(window_layout(28, 21, 7, shift, CPU), batch)
    limit = window_block.PART_BYTES
    window_block.PART_BYTES = most * HIDDEN
    try:
        with torch.no_grad():
            parts = in_parts(windows, block)
    finally:
        window_block.PART_BYTES = limit
    assert torch.equal(torch.cat([part.row_MN for part in parts]), windows.row_MN)
    assert torch.equal(torch.cat([part.image_M for part in parts]), windows.image_M)
    assert all(len(part.row_MN) <= most for part in parts)
    masks = [part.edge_masks_ENN for part in parts if part.edge_masks_ENN is not None]
    if shift:
        assert torch.equal(torch.cat(masks), windows.edge_masks_ENN)


@pytest.mark.parametrize("ratios", [0.0, [[0.3, 0.3], [0, 0.5], 0.0, 0.0]])
@pytest.mark.parametrize("windows", [1, 5])
def test_maps_are_the_same_in_parts(monkeypatch, ratios, windows):
    sparse = small_swin("SparseViT", pruning_ratios=ratios)
    with torch.no_grad():
        whole = sparse(images())
        monkeypatch.setattr(window_block, "PART_BYTES", windows * HIDDEN)
        monkeypatch.setattr(window_block, "CACHED_BYTES", windows * 1000)
        assert largest_difference(sparse(images()), whole) < 1e-5


def test_what_gradients_are_wanted_of_is_one_part(monkeypatch):
    monkeypatch.setattr(window_block, "PART_BYTES", HIDDEN)
    block = small_swin("SparseViT").stages[0].blocks[0]
    windows = all_windows(window_layout(28, 21, 7, 0, CPU), 1)
    assert len(in_parts(windows, block)) == 1
    with torch.no_grad():
        assert len(in_parts(windows, block)) == 12
        assert len(in_parts(windows, block.train())) == 1


@pytest.mark.parametrize("hw", [(8, 6), (7, 6), (8, 5), (7, 5)])
@pytest.mark.parametrize("options", [{}, {"bias": True}, {"kernel_size": 3}, {"norm_cfg": None}])
@pytest.mark.parametrize(("rows_bytes", "gradients"), [(1, False), (3000, False), (2**22, True)])
def test_patches_merge_as_mmdets_do(hw, options, rows_bytes, gradients, monkeypatch):
    merging = PatchMerging(16, 32, **options)
    for parameter in merging.parameters():
        torch.nn.init.normal_(parameter)
    x_BLC = torch.randn(2, hw[0] * hw[1], 16)
    monkeypatch.setattr(window_block, "CACHED_BYTES", rows_bytes)
    with torch.set_grad_enabled(gradients):
        ours, size = merge_patches(merging, x_BLC, hw)
    theirs, expected_size = merging(x_BLC, hw)
    assert tuple(size) == tuple(expected_size)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-5)


def test_gradients_of_merged_patches_are_mmdets():
    merging = PatchMerging(16, 32)
    x_BLC = torch.randn(1, 48, 16, requires_grad=True)
    given_by = {}
    for name, call in (("ours", lambda x: merge_patches(merging, x, (8, 6))[0]), ("theirs", None)):
        out = call(x_BLC) if call else merging(x_BLC, (8, 6))[0]
        wanted = [x_BLC, *merging.parameters()]
        given_by[name] = torch.autograd.grad(out.square().sum(), wanted)
    for ours, theirs in zip(*given_by.values(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@settings(max_examples=10, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 0.3, 0.8, 0.99]), min_size=4, max_size=4),
    st.sampled_from([(224, 224), (96, 128), (200, 136)]),
    st.booleans(),
)
def test_the_form_for_export_computes_the_same(ratios, size, pad_before_norm):
    sparse = small_swin("SparseViT", pruning_ratios=ratios, pad_before_norm=pad_before_norm)
    with torch.no_grad():
        ours, eager = exported(sparse)(images(size=size)), sparse(images(size=size))
    assert largest_difference(ours, eager) < 1e-5


def test_tokens_come_back_in_the_order_of_the_map():
    layout = window_layout(10, 9, 7, 3, CPU)
    x_BLC = torch.arange(2 * 90 * 3, dtype=torch.float32).view(2, 90, 3)
    tokens = StageTokens.of(x_BLC, layout)
    windows = all_windows(layout, 2)
    listed = StageTokens(2, layout, tokens.x_RC[windows.row_MN.flatten()], windows.place_R)
    assert torch.equal(tokens.by_image(tokens.x_RC), x_BLC)
    assert torch.equal(listed.by_image(listed.x_RC), x_BLC)
    assert torch.equal(listed.rows().view(2, -1, 3)[:, :90], x_BLC)
