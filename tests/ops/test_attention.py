"""Window attention against attention spelled out, with and without masks at the end."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsevit.ops.attention import heads_apart, window_attention


def joined(qkv, bias, heads, scale=None, masks=None, dropout=0.0):
    q, k, v = heads_apart(qkv, 3 * heads).chunk(3, dim=1)
    return window_attention(q, k, v, bias, scale, masks, dropout)


def spelled_out(qkv, bias, heads, scale=None, masks=None):
    """Attention of each window by itself, with a mask for each of the last ones."""
    M, N, C = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    out = torch.empty(M, N, C, dtype=qkv.dtype)
    first_masked = M - (0 if masks is None else len(masks))
    for m in range(M):
        for h in range(heads):
            d = C // heads
            q, k, v = (qkv[m, :, i * C + h * d : i * C + (h + 1) * d] for i in range(3))
            logits = q @ k.T * (d**-0.5 if scale is None else scale) + bias[h]
            if m >= first_masked:
                logits = logits + masks[m - first_masked]
            out[m, :, h * d : (h + 1) * d] = logits.softmax(-1) @ v
    return out


@settings(max_examples=60, deadline=None)
@given(
    M=st.integers(1, 6),
    N=st.integers(1, 9),
    heads=st.integers(1, 4),
    d=st.integers(1, 8),
    edges=st.integers(0, 6),
    scaled=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_it_is_attention_spelled_out(M, N, heads, d, edges, scaled, seed):
    generator = torch.Generator().manual_seed(seed)
    qkv = torch.randn(M, N, 3 * heads * d, generator=generator)
    bias = torch.randn(heads, N, N, generator=generator)
    masks = torch.randn(min(edges, M), N, N, generator=generator) * 10 if edges else None
    scale = 0.3 if scaled else None
    got = joined(qkv, bias, heads, scale, masks)
    assert got.shape == (M, N, heads * d)
    assert torch.allclose(got, spelled_out(qkv, bias, heads, scale, masks), atol=1e-5)


@pytest.mark.parametrize("edges", [0, 2, 5])
def test_gradients_are_those_of_attention_spelled_out(edges):
    torch.manual_seed(0)
    qkv = torch.randn(5, 9, 24, requires_grad=True)
    bias = torch.randn(2, 9, 9, requires_grad=True)
    masks = torch.randn(edges, 9, 9) if edges else None
    way = torch.randn(5, 9, 8)
    got = torch.autograd.grad((joined(qkv, bias, 2, None, masks) * way).sum(), (qkv, bias))
    plain = torch.autograd.grad((spelled_out(qkv, bias, 2, None, masks) * way).sum(), (qkv, bias))
    for ours, expected in zip(got, plain, strict=True):
        assert torch.allclose(ours, expected, atol=1e-5)


def test_no_window_gives_none():
    empty = joined(torch.randn(0, 9, 24), torch.randn(2, 9, 9), 2)
    assert empty.shape == (0, 9, 8)


def test_dropout_drops_in_training_alone():
    torch.manual_seed(0)
    qkv, bias = torch.randn(4, 9, 24), torch.randn(2, 9, 9)
    kept = joined(qkv, bias, 2)
    assert torch.equal(kept, joined(qkv, bias, 2, dropout=0.0))
    assert not torch.allclose(kept, joined(qkv, bias, 2, dropout=0.5))
