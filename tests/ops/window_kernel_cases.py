"""The Triton kernels against PyTorch. Not collected by itself: test_window_kernels.py runs it in a
process of its own, under Triton's interpreter (which has to be chosen before Triton is imported),
and on a GPU where there is one."""

from __future__ import annotations

import os

import pytest
import torch
from mmdet_backbones import small_swin
from torch import nn

from sparsevit.models import kernel_block
from sparsevit.models.window_block import all_windows, locate, run_block
from sparsevit.ops import attention
from sparsevit.ops.window_kernels import launch
from sparsevit.ops.windows import window_layout

INTERPRETED = bool(os.environ.get("TRITON_INTERPRET"))
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}
# the interpreter multiplies bfloat16 as if its bits were integers
DTYPES = [dtype for dtype in TOLERANCE if not (INTERPRETED and dtype is torch.bfloat16)]


@pytest.fixture(autouse=True)
def _inference():
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = False
    with torch.inference_mode():
        yield


def close(got: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> bool:
    scale = max(1.0, expected.abs().max().item())
    return (got.float() - expected.float()).abs().max().item() <= TOLERANCE[dtype] * scale


def lively(module: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Parameters of which none is 0 or 1, so that none can be left out unseen."""
    for parameter in module.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 10
        parameter.normal_(0, fan_in**-0.5)
    return module.to(DEVICE, dtype).eval()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("C", "F"), [(96, 288), (64, 64), (16, 80), (192, 48)])
def test_gather_norm_linear_is_its_parts_one_after_another(C, F, dtype):
    norm, linear = lively(nn.LayerNorm(C), dtype), lively(nn.Linear(C, F), dtype)
    x = (torch.randn(40, C, device=DEVICE) * 3 + 1).to(dtype)
    rows = torch.randperm(40, device=DEVICE)[:27].view(3, 9)
    got = launch.gather_norm_linear(x, rows, norm, linear)
    expected = linear.float()(norm.float()(x.float()[rows]))
    assert got.dtype == dtype
    assert close(got, expected, dtype)


def test_statistics_survive_a_mean_far_from_zero():
    norm, linear = lively(nn.LayerNorm(192)), lively(nn.Linear(192, 16))
    x = torch.randn(9, 192, device=DEVICE) + 1000
    rows = torch.arange(9, device=DEVICE).view(1, 9)
    expected = linear.double()(norm.double()(x.double()[rows])).float()
    got = launch.gather_norm_linear(x, rows, norm.float(), linear.float())
    assert (got - expected).abs().max() < 1e-3


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("gelu", [True, False])
def test_gather_norm_linear_with_and_without_bias_and_gelu(bias, gelu):
    norm, linear = lively(nn.LayerNorm(32)), lively(nn.Linear(32, 40, bias=bias))
    x, rows = torch.randn(9, 32, device=DEVICE), torch.arange(9, device=DEVICE).view(1, 9)
    expected = linear(norm(x[rows]))
    expected = nn.functional.gelu(expected) if gelu else expected
    assert close(launch.gather_norm_linear(x, rows, norm, linear, gelu=gelu), expected, x.dtype)


@pytest.mark.parametrize("pad_before_norm", [True, False])
def test_padding_is_zeros_before_or_after_the_norm(pad_before_norm):
    norm, linear = lively(nn.LayerNorm(32)), lively(nn.Linear(32, 48))
    x, rows = torch.randn(10, 32, device=DEVICE), torch.arange(10, device=DEVICE).view(1, 10)
    x[7:] = float("nan")  # what lies in the spare row must not matter
    padding = (rows >= 7).unsqueeze(-1)
    t = x[rows].masked_fill(padding, 0)
    y = norm(t) if pad_before_norm else norm(t).masked_fill(padding, 0)
    got = launch.gather_norm_linear(x, rows, norm, linear, padding, pad_before_norm=pad_before_norm)
    assert close(got, linear(y), x.dtype)


def biased(table: torch.Tensor, window: int) -> torch.Tensor:
    """(heads, N, N), spelled out: entry by the offset of two tokens."""
    N, H = window * window, table.shape[1]
    bias = torch.empty(H, N, N, device=DEVICE)
    for i in range(N):
        for j in range(N):
            down, right = i // window - j // window, i % window - j % window
            bias[:, i, j] = table[(down + window - 1) * (2 * window - 1) + right + window - 1]
    return bias


def attention_case(heads, head_dim, window, dtype, windows=4):
    qkv = torch.randn(windows, window**2, 3 * heads * head_dim, device=DEVICE).to(dtype)
    table = torch.randn((2 * window - 1) ** 2, heads, device=DEVICE)
    return qkv, table.to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("heads", "head_dim", "window", "shift"),
    [(3, 32, 7, 0), (3, 32, 7, 3), (2, 16, 7, 3), (1, 64, 4, 2), (2, 16, 3, 1)],
)
def test_attention_of_each_kind_of_window(heads, head_dim, window, shift, dtype):
    qkv, table = attention_case(heads, head_dim, window, dtype)
    layout = window_layout(window * 2, window * 2, window, shift, DEVICE)
    kinds = torch.tensor([2, 0, 3, 1], device=DEVICE) if shift else None
    masks = None if kinds is None else layout.region_masks_KNN[kinds]
    expected = attention.window_attention(
        qkv.float(), biased(table.float(), window), heads, 0.2, masks
    )
    got = launch.window_attention(qkv, table, 0.2, window, shift, kinds)
    assert got.dtype == dtype
    assert close(got, expected, dtype)


def test_a_shifted_partition_needs_the_kinds():
    qkv, table = attention_case(1, 16, 3, torch.float32)
    with pytest.raises(ValueError, match="edge_kind_M"):
        launch.window_attention(qkv, table, 0.2, 3, 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("heads", [3, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_attention_to_the_map_adds_the_projection_to_the_rows(heads, bias, dtype):
    window, C = 3, heads * 16
    proj = lively(nn.Linear(C, C, bias=bias), dtype)
    qkv, table = attention_case(heads, 16, window, dtype)
    kinds = torch.tensor([2, 0, 3, 1], device=DEVICE)
    x = torch.randn(50, C, device=DEVICE).to(dtype)
    rows = torch.randperm(49, device=DEVICE)[:36].view(4, 9)
    padding = torch.zeros(4, 9, 1, dtype=torch.bool, device=DEVICE)
    padding[1, 4:] = True
    rows[1, 4:] = 49
    added = launch.window_attention(qkv, table, 0.2, window, 1, kinds).float()
    added = nn.functional.linear(
        added, proj.weight.float(), None if proj.bias is None else proj.bias.float()
    )
    expected = x.float()
    expected[rows[~padding[..., 0]]] += added[~padding[..., 0]]
    got = launch.window_attention_to_map(x, rows, qkv, proj, table, 0.2, window, 1, kinds, padding)
    assert got is x
    assert close(got, expected, dtype)
    assert torch.equal(got[49].float(), expected[49])


@pytest.mark.parametrize("C", [16, 96])
def test_add_rows_adds_to_the_rows_listed_and_to_no_other(C):
    x, y = torch.randn(30, C, device=DEVICE), torch.randn(2, 9, C, device=DEVICE)
    rows = torch.randperm(30, device=DEVICE)[:18].view(2, 9)
    expected = x.clone()
    expected[rows] += y
    assert torch.equal(launch.add_rows(x, rows, y), expected)


def test_float32_is_multiplied_as_pytorch_does():
    assert launch._precision() == "ieee"
    torch.backends.cuda.matmul.allow_tf32 = True
    assert launch._precision() == "tf32"


def test_no_window_is_no_work():
    rows = torch.empty(0, 9, dtype=torch.long, device=DEVICE)
    x, qkv = torch.randn(9, 16, device=DEVICE), torch.empty(0, 9, 48, device=DEVICE)
    norm, linear, table = nn.LayerNorm(16), nn.Linear(16, 48), torch.zeros(25, 1)
    before = x.clone()
    assert launch.gather_norm_linear(x, rows, norm, linear).shape == (0, 9, 48)
    assert launch.window_attention(qkv, table, 1.0, 3).shape == (0, 9, 16)
    assert launch.add_rows(x, rows, x.new_empty(0, 9, 16)) is x
    assert launch.window_attention_to_map(x, rows, qkv, nn.Linear(16, 16), table, 1.0, 3) is x
    assert torch.equal(x, before)


# whether the projection is fused with the attention, and the backbone
ROUTES = {"projection fused": (True, {}), "projection apart": (False, {"embed_dims": 32})}


def block_case(backbone, hw, shifted, kept, batch, dtype):
    swin = small_swin("SparseViT", **backbone).to(DEVICE)
    block = swin.stages[0].blocks[int(shifted)]
    layout = window_layout(*hw, 7, block.attn.shift_size, DEVICE)
    windows = all_windows(layout, batch)
    if kept is not None:
        order = torch.stack([torch.randperm(layout.num_windows) for _ in range(batch)])
        windows = locate(layout, order[:, :kept].to(DEVICE))
    rows = batch * (hw[0] * hw[1] + int(layout.padded))
    x = torch.randn(rows, swin.num_features[0], device=DEVICE).to(dtype)
    return block, windows, x


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(
    ("hw", "kept", "pad_before_norm"),
    [((14, 21), None, False), ((14, 21), 3, False), ((13, 9), None, False), ((13, 9), 2, True)],
)
def test_a_block_by_kernels_is_the_block(
    monkeypatch, route, hw, shifted, kept, pad_before_norm, dtype
):
    fused, backbone = ROUTES[route]
    monkeypatch.setattr(kernel_block, "projection_is_fused", lambda *_: fused)
    block, windows, x = block_case(backbone, hw, shifted, kept, 2, dtype)
    rows = windows.row_MN.flatten()
    t = x.float()[rows].view(*windows.row_MN.shape, -1)
    t = run_block(block, t, windows, 2, pad_before_norm)
    expected = x.float().index_copy(0, rows, t.flatten(0, 1))
    assert kernel_block.fits(block.to(dtype), dtype)
    got = kernel_block.run_block_by_kernels(block, x, windows, pad_before_norm)
    L = hw[0] * hw[1]
    tokens = torch.arange(len(x), device=DEVICE).view(2, -1)[:, :L].flatten()
    assert got is x
    assert close(got[tokens], expected[tokens], dtype)
    untouched = torch.ones(len(x), dtype=torch.bool, device=DEVICE)
    untouched[rows] = False
    assert torch.equal(got[untouched].float(), expected[untouched])


@pytest.mark.parametrize("pad_before_norm", [False, True])
def test_a_backbone_by_kernels_is_the_backbone(monkeypatch, pad_before_norm):
    swin = small_swin("SparseViT", pad_before_norm=pad_before_norm).to(DEVICE)
    swin.pruning_ratios = [[0.5, 0.5], [0.25, 0.5], [0.0, 0.0], [0.0, 0.0]]
    images = torch.randn(1, 3, 60, 90, device=DEVICE)
    monkeypatch.setenv("SPARSEVIT_KERNELS", "off")
    expected = swin(images)
    calls = []

    def by_kernels(block, x_RC, *rest):
        calls.append(block)
        return kernel_block.run_block_by_kernels(block, x_RC, *rest)

    monkeypatch.setattr("sparsevit.models.sparsevit.window_block_kernels_usable", lambda *_: True)
    monkeypatch.setattr("sparsevit.models.sparsevit.run_block_by_kernels", by_kernels)
    got = swin(images)
    assert len(calls) == sum(swin.depths)
    assert all(close(a, b, torch.float32) for a, b in zip(got, expected, strict=True))
