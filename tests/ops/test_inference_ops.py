"""Operations for inference: products with packed weights, and attention, against PyTorch's."""

from __future__ import annotations

import gc

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsevit.ops import inference_ops
from sparsevit.ops.attention import heads_apart, window_attention
from sparsevit.ops.inference_ops import (
    packed_linear,
    packed_linear_add,
    usable,
    whole_window_attention,
)

TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 3e-2}
DTYPES = [
    pytest.param(
        dtype, marks=pytest.mark.skipif(not usable(dtype), reason=f"no packed {dtype} here")
    )
    for dtype in TOLERANCES
]


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.integers(1, 60), min_size=1, max_size=2),
    inputs=st.integers(1, 50),
    outputs=st.integers(1, 50),
    biased=st.booleans(),
    gelu=st.booleans(),
)
def test_packed_products_are_pytorchs(dtype, rows, inputs, outputs, biased, gelu):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(outputs, inputs, generator=generator) / inputs**0.5
    bias = torch.randn(outputs, generator=generator) if biased else None
    x = torch.randn(*rows, inputs, generator=generator).to(dtype)
    other = torch.randn(*rows, outputs, generator=generator).to(dtype)
    in_fp32 = F.linear(x.float(), weight.to(dtype).float(), bias)

    got = packed_linear(x, weight, bias, gelu)
    assert got.dtype == dtype
    expected = F.gelu(in_fp32) if gelu else in_fp32
    scale = 1 + in_fp32.abs().max()
    assert (got.float() - expected).abs().max() < TOLERANCES[dtype] * scale
    summed = packed_linear_add(x, weight, bias, other)
    assert (summed.float() - in_fp32 - other.float()).abs().max() < TOLERANCES[dtype] * scale


@pytest.mark.skipif(not usable(torch.float32), reason="no packed products here")
class TestPackedWeights:
    def test_a_changed_weight_is_packed_anew(self):
        linear = torch.nn.Linear(16, 8).requires_grad_(False)
        x = torch.randn(5, 16)
        before = packed_linear(x, linear.weight, linear.bias)
        linear.load_state_dict({name: 2 * t for name, t in linear.state_dict().items()})
        torch.testing.assert_close(packed_linear(x, linear.weight, linear.bias), 2 * before)

    def test_they_are_packed_once_and_go_with_the_weight(self):
        gc.collect()
        held = len(inference_ops._packed)
        weight = torch.randn(8, 16)
        for _ in range(3):
            packed_linear(torch.randn(5, 16), weight, None)
        assert len(inference_ops._packed) == held + 1
        (_, packed) = inference_ops._packed[weight][torch.float32]
        packed_linear(torch.randn(7, 16), weight, None)
        assert inference_ops._packed[weight][torch.float32][1] is packed
        del weight
        gc.collect()
        assert len(inference_ops._packed) == held

    def test_under_inference_mode(self):
        with torch.inference_mode():
            weight, x = torch.randn(8, 16), torch.randn(5, 16)
            torch.testing.assert_close(packed_linear(x, weight, None), F.linear(x, weight))

    def test_a_graph_sees_their_shapes(self):
        x, weight = torch.randn(3, 4, 16), torch.randn(16, 16)
        ops = torch.ops.sparsevit
        with torch.no_grad():
            torch.library.opcheck(ops.packed_linear, (x, weight, weight[0].clone(), True))
            torch.library.opcheck(ops.packed_linear_add, (x, weight, None, x.clone()))


@pytest.mark.parametrize("edges", [0, 2, 5])
def test_attention_as_one_operation(edges):
    qkv, bias = torch.randn(5, 9, 3 * 8), torch.randn(2, 9, 9)
    masks = torch.randn(edges, 9, 9) if edges else None
    got = whole_window_attention(qkv, bias, 2, 0.5, masks)
    assert got.is_contiguous()
    q, k, v = heads_apart(qkv, 6).chunk(3, dim=1)
    torch.testing.assert_close(got, window_attention(q, k, v, bias, 0.5, masks))
    with torch.no_grad():
        torch.library.opcheck(torch.ops.sparsevit.window_attention, (qkv, bias, 2, 0.5, masks))


def test_other_numbers_and_other_builds_go_without(monkeypatch):
    assert not usable(torch.float16)
    assert not usable(torch.float64)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not usable.__wrapped__(torch.float32)


@pytest.mark.parametrize(
    "fault", [RuntimeError("not in this build"), None], ids=["raises", "wrong"]
)
def test_products_that_fail_a_trial_are_not_used(monkeypatch, fault):
    def trial(x, *_, **__):
        if fault:
            raise fault
        return x

    monkeypatch.setattr(inference_ops, "_linear", trial)
    assert not usable.__wrapped__(torch.float32)
