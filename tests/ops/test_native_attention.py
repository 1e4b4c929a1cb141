"""Native attention of Sparsifiner against PyTorch's, which the equations check in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsevit.methods.attention import forward, routes
from sparsevit.methods.attention.predictor import MaskPredictor
from sparsevit.models.sparsifiner import SparsifinerConfig, build_sparsifiner
from sparsevit.ops.native import attention, build

pytestmark = pytest.mark.skipif(not attention.usable(), reason="no native code here")


@pytest.fixture(scope="module", params=["native", "narrow"], autouse=True)
def vectors(request):
    """As this CPU has them, and the narrower ones of a CPU without AVX-512."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "narrow":
            patch.setattr(build, "FLAGS", [*build.FLAGS, "-mno-avx512f"])
            forget_the_library()
            if not attention.usable():
                pytest.skip("no such option of this compiler")
            assert attention._library().sparsevit_lanes() == 8
        yield
    forget_the_library()


def forget_the_library():
    build.load.cache_clear()
    attention._library.cache_clear()


def lively(N, d, H, **options):
    """A predictor whose coefficients differ."""
    predictor = MaskPredictor(N, d, H, **options).eval()
    with torch.no_grad():
        predictor.proj_n.normal_(0, 2 * N**-0.5)
        for layer in (predictor.proj_c_q, predictor.proj_c_k):
            layer.weight.normal_(0, d**-0.5)
    return predictor


@torch.no_grad()
def difference(predictor, n, batch=1, threads=1):
    """The largest between both routes, of queries that choose by a margin."""
    N, d = predictor.num_tokens, predictor.proj_c_q.in_features
    H = round(predictor.scale**-2)
    tokens = None
    if n < N:
        drawn = [torch.randperm(N - 1)[: n - 1].sort().values + 1 for _ in range(batch)]
        tokens = torch.nn.functional.pad(torch.stack(drawn), (1, 0))
    q, k, v = torch.randn(3, batch, n, H, d).transpose(2, 3)
    assert routes.serves(predictor, q)
    torch.set_num_threads(threads)
    try:
        got = routes.sparse_attention(predictor, q, k, v, tokens)
    finally:
        torch.set_num_threads(1)
    predictor.double()
    q, k, v = q.double(), k.double(), v.double()
    assert not routes.serves(predictor, q)
    expected = routes.sparse_attention(predictor, q, k, v, tokens)
    apart = (got - expected).abs().amax(-1)
    apart[..., 1:].masked_fill_(close_calls(predictor, q, k, tokens), 0)
    return apart.max().item()


def close_calls(predictor, q, k, tokens):
    """Queries whose choice rounding may change: a number passes the next one, or the threshold."""
    choice = predictor.choice(k.shape[2])
    reduced, mixed = predictor.reduced(q, k, tokens)
    weights = forward.coefficients(reduced, mixed, choice)
    close = is_close_call((reduced @ mixed).softmax(-1), choice.coefficients)
    basis = predictor.basis(tokens)
    if not choice.blocks:
        return close | is_close_call(weights @ basis, choice.keep)
    R, tile = weights.shape[2], forward.TILE
    tiles = torch.nn.functional.pad(weights, (0, 0, 0, -R % tile)).unflatten(2, (-1, tile)).sum(3)
    of_tile = is_close_call(tiles @ forward.sum_tiles(basis), choice.tiles(k.shape[2]))
    padded = torch.nn.functional.pad(close, (0, -R % tile)).unflatten(2, (-1, tile))
    of_tile |= padded.any(-1)  # what one of them weighs is in the sum
    return of_tile.repeat_interleave(tile, 2)[..., :R]


def is_close_call(numbers, keep):
    if keep < 1:
        return ((numbers - keep).abs() < 1e-4 * keep).any(-1)
    if keep >= numbers.shape[-1]:
        return torch.zeros_like(numbers[..., 0], dtype=torch.bool)
    last, first = numbers.topk(int(keep) + 1, dim=-1).values[..., -2:].unbind(-1)
    return (last > first) & (last - first < 1e-4 * last)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(8, 300),
    st.sampled_from([8, 20, 32, 64, 72]),
    st.integers(1, 3),
    st.sampled_from([1.0, 0.6]),
    st.floats(0.02, 0.98),
    st.sampled_from(["topk", "blocks", 0.001, 0.05]),
    st.sampled_from([1, 3, 8, 16, 30, 100, 0.02, 0.2]),
    st.sampled_from([0.0, 0.02, 0.04, 0.2]),
    st.integers(0, 2**31),
)
def test_it_computes_what_pytorch_does(
    N, d, heads, share, keep_rate, connections, coefficients, threshold, seed
):
    torch.manual_seed(seed)
    predictor = lively(
        *(N, d, heads),
        keep_rate=keep_rate,
        connections=connections,
        coefficients=coefficients,
        basis_threshold=threshold,
    )
    n = max(3, int(N * share))
    if not predictor.is_dense(n):
        assert difference(predictor, n, batch=1 + seed % 2, threads=1 + seed % 3) < 1e-5


@pytest.mark.parametrize("connections", ["topk", "blocks"])
def test_keys_in_more_ranges_than_one(connections):
    torch.manual_seed(0)
    assert difference(lively(1600, 64, 1, connections=connections), 1600) < 1e-5


def test_of_equal_weights_the_first_are_kept():
    """A basis of ones and zeros: all weights of a query tie."""
    torch.manual_seed(0)
    for threshold in (0.0, 0.5, 2.0):
        predictor = lively(100, 16, 2, keep_rate=0.3, basis_threshold=threshold)
        with torch.no_grad():
            predictor.proj_back_n.copy_((torch.arange(100) % 3 == 0).unsqueeze(1).float())
        assert difference(predictor, 100) < 1e-5


def test_numbers_that_are_none_end_it_in_none():
    predictor = lively(100, 16, 2)
    for connections in ("topk", "blocks"):
        predictor.connections = connections
        q, k, v = torch.randn(3, 1, 2, 100, 16)
        k[0, 0, 5] = float("nan")
        with torch.no_grad():
            assert routes.sparse_attention(predictor, q, k, v)[:, 0].isnan().any()


@torch.no_grad()
def test_a_basis_that_was_changed_is_packed_again():
    torch.manual_seed(0)
    predictor = lively(65, 16, 2)
    q, k, v = torch.randn(3, 1, 2, 65, 16)
    before = routes.sparse_attention(predictor, q, k, v)
    predictor.proj_back_n.copy_(predictor.proj_back_n.flip(0))
    assert not torch.equal(routes.sparse_attention(predictor, q, k, v), before)
    predictor.proj_back_n.copy_(predictor.proj_back_n.flip(0))
    assert torch.equal(routes.sparse_attention(predictor, q, k, v), before)


@torch.no_grad()
@pytest.mark.parametrize("connections", ["topk", "blocks"])
def test_a_whole_model_in_float32(connections, monkeypatch):
    torch.manual_seed(0)
    config = SparsifinerConfig(
        *("deit", 64, 4, 5, 32, 2, 2, 4), connections=connections, prune_tokens={0: 0.7}
    )
    model, images = build_sparsifiner(config).eval(), torch.randn(2, 3, 64, 64)
    natively = model(images)
    monkeypatch.setattr(routes, "serves", lambda *_: False)
    torch.testing.assert_close(natively, model(images), rtol=1e-4, atol=1e-5)
