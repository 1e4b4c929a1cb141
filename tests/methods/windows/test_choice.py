"""Scores of windows, and which of them a ratio keeps."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsevit.methods.windows.forward import (
    num_kept,
    rank_windows,
    token_magnitudes,
    window_scores,
)
from sparsevit.methods.windows.routes import parts

CHOICES = [round(i / 10, 1) for i in range(10)]


@given(windows=st.integers(1, 10_000), ratio=st.floats(0, 1, exclude_max=True))
def test_a_ratio_keeps_the_rest_rounded_down(windows, ratio):
    kept = num_kept(windows, ratio)
    assert 0 <= kept <= windows
    assert kept == math.floor(windows * (1 - ratio))


@given(st.integers(1, 10_000))
def test_zero_keeps_all_and_a_higher_ratio_never_more(windows):
    counts = [num_kept(windows, ratio) for ratio in CHOICES]
    assert counts[0] == windows
    assert counts == sorted(counts, reverse=True)


def test_counts_are_those_of_the_papers_code():
    # int(n * (1 - r)) in floating point: 0.9 of 10 windows leaves 0, not 1
    assert [num_kept(576, r) for r in (0.3, 0.6, 0.7)] == [403, 230, 172]
    assert num_kept(10, 0.9) == 0


@settings(max_examples=30, deadline=None)
@given(
    shape=st.lists(st.integers(1, 40), min_size=2, max_size=3),
    part=st.integers(1, 4000),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)
def test_magnitudes_are_means_of_absolute_values_however_they_are_cut(shape, part, dtype):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = x.double().abs().mean(-1)
    whole, parts.SCORED_BYTES = parts.SCORED_BYTES, part
    try:
        with torch.no_grad():
            got = parts.token_magnitudes_in_parts(x)
    finally:
        parts.SCORED_BYTES = whole
    assert got.dtype == (torch.float32 if dtype == torch.bfloat16 else dtype)
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 3),
    windows=st.integers(1, 12),
    tokens=st.integers(1, 9),
    padding=st.booleans(),
    seed=st.integers(0, 999),
)
def test_a_score_is_the_norm_of_the_magnitudes_and_padding_weighs_nothing(
    batch, windows, tokens, padding, seed
):
    generator = torch.Generator().manual_seed(seed)
    length = windows * tokens - int(padding)
    x = torch.randn(batch, length, 5, generator=generator)
    # in any order; the last place is padding where the map is one short
    places = torch.randperm(windows * tokens, generator=generator).view(windows, tokens)
    magnitudes = token_magnitudes(x)
    assert torch.allclose(magnitudes, x.abs().sum(-1) / 5)
    scores = window_scores(magnitudes, places)
    assert scores.shape == (batch, windows)
    for b in range(batch):
        for w in range(windows):
            inside = [magnitudes[b, p].item() ** 2 for p in places[w].tolist() if p < length]
            assert math.isclose(scores[b, w].item(), sum(inside) ** 0.5, abs_tol=1e-5)


@given(
    scores=st.lists(st.integers(-50, 50), min_size=1, max_size=40, unique=True),
    share=st.floats(0, 1),
)
def test_the_best_come_first_and_fewer_are_a_prefix_of_more(scores, share):
    few, all_of_them = int(len(scores) * share), len(scores)
    table = torch.tensor([scores, scores[::-1]], dtype=torch.float)
    ranked = rank_windows(table, all_of_them)
    for row, order in zip(table, ranked, strict=True):
        assert row[order].tolist() == sorted(scores, reverse=True)
    assert torch.equal(rank_windows(table, few), ranked[:, :few])
