"""Native code of Swin's parts against PyTorch's, for all shapes and in both orders of work."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparsevit.ops.attention import heads_apart, window_attention
from sparsevit.ops.native import build, swin
from sparsevit.ops.windows import region_masks

pytestmark = pytest.mark.skipif(not swin.usable(), reason="no native code here")
CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["native", "narrow"], autouse=True)
def vectors(request):
    """As this CPU has them, and the narrower ones of a CPU without AVX-512."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "narrow":
            patch.setattr(build, "FLAGS", [*build.FLAGS, "-mno-avx512f"])
            forget_the_library()
            if not swin.usable():
                pytest.skip("no such option of this compiler")
            assert swin._columns() == 16
        yield
    forget_the_library()


def forget_the_library():
    for cached in (build.load, swin._library, swin._columns):
        cached.cache_clear()


@pytest.fixture(params=[1, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


class Block:
    """A Swin block's parameters, and what they compute by PyTorch, in float64."""

    def __init__(self, heads, head_dim, hidden, window, shift, biased=True):
        C = heads * head_dim
        self.heads, self.scale, self.window, self.shift = heads, head_dim**-0.5, window, shift
        self.norms = [lively(nn.LayerNorm(C, eps=1e-3)) for _ in range(2)]
        self.linears = [
            lively(nn.Linear(inputs, outputs, bias=biased))
            for inputs, outputs in ((C, 3 * C), (C, C), (C, hidden), (hidden, C))
        ]
        self.bias_HNN = torch.randn(heads, window**2, window**2)
        self.masks_KNN = region_masks((window, window), (shift, shift), CPU) if shift else None

    def packed(self):
        return swin.PackedBlock(
            tuple(self.norms),
            tuple(self.linears),
            self.heads,
            self.scale,
            self.bias_HNN,
            self.masks_KNN,
        )

    @torch.no_grad()
    def expected(self, x_RC, row_MN, padding_MN1, kind_M, pad_before_norm):
        norm1, norm2, qkv, proj, grow, shrink = (
            copy.deepcopy(module).double() for module in (*self.norms, *self.linears)
        )
        t = x_RC.double()[row_MN]
        if padding_MN1 is not None:
            t = t.masked_fill(padding_MN1, 0)
        y = norm1(t)
        if padding_MN1 is not None and not pad_before_norm:
            y = y.masked_fill(padding_MN1, 0)
        masks = None if kind_M is None else self.masks_KNN.double()[kind_M]
        q, k, v = heads_apart(qkv(y), 3 * self.heads).chunk(3, dim=1)
        y = window_attention(q, k, v, self.bias_HNN.double(), self.scale, masks)
        t = t + proj(y)
        t = t + shrink(F.gelu(grow(norm2(t))))
        out = x_RC.double()
        real = ... if padding_MN1 is None else ~padding_MN1[..., 0]
        out[row_MN[real]] = t[real]
        return out


def lively(module):
    """Parameters of which none is 0 or 1, so that none can be left out unseen."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 1)
    return module


def some_windows(M, N, rows, padded, shifted):
    """M windows on rows of their own, some of their tokens padding, of any kind."""
    row_MN = torch.randperm(rows)[: M * N].view(M, N)
    padding_MN1 = (torch.rand(M, N, 1) < 0.3) if padded else None
    if padded:
        row_MN = row_MN.masked_fill(padding_MN1[..., 0], rows)  # a row that they share
    return row_MN, padding_MN1, torch.randint(4, (M,)) if shifted else None


def assert_close(got, expected):
    torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=2e-5)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 3),
    st.sampled_from([4, 16, 17, 32, 40]),
    st.sampled_from([16, 48, 400, 790]),
    st.sampled_from([2, 3, 4, 7, 8]),
    st.sampled_from([0, 1]),
    st.integers(0, 9),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_a_block_of_any_shape(
    heads, head_dim, hidden, window, shift, M, padded, pad_before_norm, biased, seed
):
    torch.manual_seed(seed)
    block = Block(heads, head_dim, hidden, window, shift, biased)
    rows = M * window**2 + 5
    x_RC = torch.randn(rows + 1, heads * head_dim)
    listed = some_windows(M, window**2, rows, padded, shift > 0)
    expected = block.expected(x_RC, *listed, pad_before_norm)
    swin.run_block(block.packed(), x_RC, *listed, pad_before_norm)
    assert_close(x_RC, expected)


@pytest.mark.parametrize("cache", [1, 2**17, 2**26])
@pytest.mark.parametrize("M", [1, 2, 7, 100, 333])
def test_both_orders_of_work(M, cache, threads, monkeypatch):
    torch.manual_seed(M)
    monkeypatch.setattr(swin, "_cache_bytes", lambda: cache)
    block = Block(heads=2, head_dim=8, hidden=64, window=3, shift=1)
    x_RC = torch.randn(M * 9 + 1, 16)
    listed = some_windows(M, 9, M * 9, True, True)
    expected = block.expected(x_RC, *listed, False)
    swin.run_block(block.packed(), x_RC, *listed)
    assert_close(x_RC, expected)


def test_rows_that_are_not_listed_stay():
    block = Block(heads=1, head_dim=16, hidden=32, window=2, shift=0)
    x_RC = torch.randn(40, 16)
    before = x_RC.clone()
    swin.run_block(block.packed(), x_RC, torch.arange(8, 16).view(2, 4))
    changed = (x_RC != before).any(1).nonzero().flatten()
    assert changed.tolist() == list(range(8, 16))


def test_logits_far_apart():
    """Weights of 0 and 1, and none that is not a number."""
    torch.manual_seed(0)
    block = Block(heads=2, head_dim=16, hidden=32, window=7, shift=3)
    with torch.no_grad():
        block.linears[0].weight *= 100
    x_RC = torch.randn(49 * 4, 32)
    listed = some_windows(4, 49, 49 * 4, False, True)
    expected = block.expected(x_RC, *listed, False)
    swin.run_block(block.packed(), x_RC, *listed)
    # in exact arithmetic the largest logit decides; nearly equal ones may decide otherwise in fp32
    assert ((x_RC - expected).abs().amax(1) < 1e-2).float().mean() > 0.9
    assert x_RC.isfinite().all()


def test_what_is_not_a_number_stays_in_its_window():
    block = Block(heads=1, head_dim=16, hidden=32, window=2, shift=0)
    x_RC = torch.randn(16, 16)
    x_RC[5, 3] = float("nan")
    swin.run_block(block.packed(), x_RC, torch.arange(16).view(4, 4))
    assert x_RC.isnan().any(1).nonzero().flatten().tolist() == [4, 5, 6, 7]


def test_gelu_everywhere():
    """From where it is 0 to where it is the identity, by a block that adds nothing else."""
    C = 1024
    block = Block(heads=1, head_dim=C, hidden=C, window=1, shift=0)
    values = torch.linspace(-9, 9, C)
    with torch.no_grad():
        for module in (*block.norms, *block.linears):
            for parameter in module.parameters():
                parameter.zero_()
        block.linears[2].bias.copy_(values)
        block.linears[3].weight.copy_(torch.eye(C))
    x_RC = torch.zeros(3, C)
    swin.run_block(block.packed(), x_RC, torch.arange(3)[:, None])
    expected = F.gelu(values.double()).expand(3, -1)
    torch.testing.assert_close(x_RC.double(), expected, rtol=1e-6, atol=6e-7)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 40),
    st.sampled_from([5, 32, 70]),
    st.booleans(),
)
def test_merging(B, H, W, C, outputs, biased):
    norm, reduction = lively(nn.LayerNorm(4 * C)), lively(nn.Linear(4 * C, outputs, bias=biased))
    x_BHWC = torch.randn(B, H, W, C)
    packed = swin.PackedMerging(norm.weight, norm.bias, norm.eps, reduction.weight, reduction.bias)
    even = F.pad(x_BHWC, (0, 0, 0, W % 2, 0, H % 2))
    patches = torch.cat([even[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], -1)
    with torch.no_grad():
        expected = reduction.double()(norm.double()(patches.double()))
    got = swin.merge_patches(packed, x_BHWC)
    assert got.shape == expected.shape
    assert_close(got, expected)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 2),
    st.sampled_from([1, 3, 4]),
    st.integers(1, 21),
    st.integers(1, 21),
    st.sampled_from([1, 2, 4, 7]),
    st.sampled_from([5, 16, 96]),
    st.booleans(),
    st.booleans(),
)
def test_embedding(B, channels, H, W, side, outputs, normed, biased):
    projection = lively(nn.Conv2d(channels, outputs, side, side, bias=biased))
    norm = lively(nn.LayerNorm(outputs)) if normed else None
    images = torch.randn(B, channels, H, W)
    packed = swin.PackedEmbedding(projection, norm)
    got, hw = swin.embed(packed, images)
    whole = F.pad(images, (0, -W % side, 0, -H % side)).double()
    with torch.no_grad():
        tokens = projection.double()(whole)
        assert hw == tuple(tokens.shape[2:])
        expected = tokens.flatten(2).transpose(1, 2)
        if norm is not None:
            expected = norm.double()(expected)
    assert_close(got, expected) if outputs > 5 else torch.testing.assert_close(
        got.double(), expected, rtol=1e-3, atol=1e-3
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 200), st.integers(1, 70))
def test_feature_map(B, L, C):
    norm = lively(nn.LayerNorm(C))
    x_BLC = torch.randn(B, L, C) + 3
    got = swin.feature_map(swin.PackedNorm(norm), x_BLC)
    with torch.no_grad():
        expected = norm.double()(x_BLC.double()).transpose(1, 2)
    torch.testing.assert_close(got.double(), expected, rtol=1e-3, atol=1e-4)


SHORT_OF_MEMORY = """
import resource
import torch
from sparsevit.ops.native import swin

norm, reduction = torch.nn.LayerNorm(4096), torch.nn.Linear(4096, 1)
packed = swin.PackedMerging(norm.weight, norm.bias, norm.eps, reduction.weight, None)
x_BHWC = torch.zeros(1, 64, 64, 1024)
swin._cache_bytes = lambda: 2**40
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**22, used + 2**22))
try:
    swin.merge_patches(packed, x_BHWC)
except MemoryError as error:
    print(error)
"""


def test_no_memory_is_an_error_and_no_crash():
    done = subprocess.run(
        [sys.executable, "-c", SHORT_OF_MEMORY], capture_output=True, text=True, check=True
    )
    assert "could not allocate memory" in done.stdout
