"""What the kernels compute, as functions of tensors. Each says its equal in PyTorch.

Importing this imports Triton; ask :func:`sparsevit.ops.window_kernels.available` first.
"""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton
from torch import Tensor, nn

from sparsevit.ops.window_kernels import kernels

# Rows, features, warps, stages of a tile: the autotuner takes the fastest for each width and dtype.
TILES = ((64, 64, 4, 3), (128, 64, 4, 3), (64, 128, 4, 3), (128, 128, 8, 3))


def gather_norm_linear(
    x_RC: Tensor,
    row_MN: Tensor,
    norm: nn.LayerNorm,
    linear: nn.Linear,
    is_padding_MN1: Tensor | None = None,
    *,
    pad_before_norm: bool = False,
    gelu: bool = False,
) -> Tensor:
    """``gelu(linear(norm(x_RC[row_MN])))``, without writing what is in between.

    Args:
        x_RC: (rows, C) map, contiguous; C a multiple of 16.
        row_MN: (M, N) int64 rows to take.
        norm, linear: layers of C features, with parameters of the map's dtype.
        is_padding_MN1: (M, N, 1) bool, which rows to take as zeros: before the norm if
            ``pad_before_norm``, else after it. None where there are none.
        gelu: whether a GELU (the exact one) follows.

    Returns:
        (M, N, F) in the map's dtype.
    """
    M, N = row_MN.shape
    F, C = linear.weight.shape
    out_MNF = x_RC.new_empty(M, N, F)
    if M == 0:
        return out_MNF

    def grid(tile: dict[str, int]) -> tuple[int]:
        return (triton.cdiv(M * N, tile["BLOCK_R"]) * triton.cdiv(F, tile["BLOCK_F"]),)

    with _on(x_RC):
        _tuned_gather_norm_linear()[grid](
            x_RC,
            row_MN,
            _bytes(is_padding_MN1, row_MN),
            norm.weight,
            norm.bias,
            linear.weight,
            linear.weight if linear.bias is None else linear.bias,
            out_MNF,
            M * N,
            F,
            norm.eps,
            C=C,
            HAS_PADDING=is_padding_MN1 is not None,
            PAD_BEFORE_NORM=pad_before_norm,
            HAS_BIAS=linear.bias is not None,
            GELU=gelu,
            PRECISION=_precision(),
            BLOCK_C=next(width for width in (64, 32, 16) if C % width == 0),
        )
    return out_MNF


def window_attention(
    qkv_MNC: Tensor,
    table_TH: Tensor,
    scale: float,
    window: int,
    shift: int = 0,
    edge_kind_M: Tensor | None = None,
) -> Tensor:
    """Attention in M windows; :func:`sparsevit.ops.attention.window_attention` without a bias or
    a mask in memory.

    Args:
        qkv_MNC: (M, N, 3 * C) queries, keys and values side by side, contiguous;
            N = window ** 2, at most 64; C / heads is 16, 32 or 64.
        table_TH: ((2 * window - 1) ** 2, heads) bias by relative position.
        scale: factor on the logits.
        window: side of a window in tokens.
        shift: cyclic shift of the partition in tokens.
        edge_kind_M: (M,) int64, each window's kind in
            :class:`~sparsevit.ops.windows.WindowLayout`; needed where ``shift`` is not 0.

    Returns:
        (M, N, C).
    """
    M, N, C3 = qkv_MNC.shape
    H = table_TH.shape[1]
    out_MNC = qkv_MNC.new_empty(M, N, C3 // 3)
    if M == 0:
        return out_MNC
    with _on(qkv_MNC):
        kernels.window_attention[(M * H,)](
            qkv_MNC,
            table_TH.t().contiguous(),
            _kinds(edge_kind_M, shift, qkv_MNC),
            out_MNC,
            scale,
            **_window_constants(qkv_MNC, H, window, shift),
            # float32 has no matrix unit to feed; with fewer warps its registers spill
            num_warps=8 if qkv_MNC.dtype == torch.float32 else 4,
        )
    return out_MNC


def window_attention_to_map(
    x_RC: Tensor,
    row_MN: Tensor,
    qkv_MNC: Tensor,
    proj: nn.Linear,
    table_TH: Tensor,
    scale: float,
    window: int,
    shift: int = 0,
    edge_kind_M: Tensor | None = None,
    is_padding_MN1: Tensor | None = None,
) -> Tensor:
    """``x_RC[row_MN] += proj(window_attention(...))``, in place, padding left out.

    Args: see :func:`window_attention` and :func:`gather_norm_linear`. C is at most 256.

    Returns:
        ``x_RC``.
    """
    M = row_MN.shape[0]
    if M == 0:
        return x_RC
    H, C = table_TH.shape[1], proj.weight.shape[0]
    with _on(x_RC):
        kernels.window_attention_to_map[(M,)](
            x_RC,
            row_MN,
            _bytes(is_padding_MN1, row_MN),
            qkv_MNC,
            table_TH.t().contiguous(),
            _kinds(edge_kind_M, shift, qkv_MNC),
            proj.weight,
            proj.weight if proj.bias is None else proj.bias,
            scale,
            **_window_constants(qkv_MNC, H, window, shift),
            HAS_PADDING=is_padding_MN1 is not None,
            HAS_BIAS=proj.bias is not None,
            BLOCK_C=triton.next_power_of_2(C),
            num_warps=4 if C <= 128 else 8,
            # two windows fit on a multiprocessor then, which hides more than a deeper pipeline
            num_stages=2,
        )
    return x_RC


def add_rows(
    x_RC: Tensor, row_MN: Tensor, y_MNC: Tensor, is_padding_MN1: Tensor | None = None
) -> Tensor:
    """``x_RC[row_MN] += y_MNC``, in place, padding left out; no row but padding occurs twice.

    Returns:
        ``x_RC``.
    """
    rows, C = row_MN.numel(), x_RC.shape[1]
    if rows == 0:
        return x_RC
    BLOCK_C = triton.next_power_of_2(C)
    BLOCK_R = max(1, 4096 // BLOCK_C)
    with _on(x_RC):
        kernels.add_rows[(triton.cdiv(rows, BLOCK_R),)](
            x_RC,
            row_MN,
            _bytes(is_padding_MN1, row_MN),
            y_MNC.contiguous(),
            rows,
            C=C,
            HAS_PADDING=is_padding_MN1 is not None,
            BLOCK_R=BLOCK_R,
            BLOCK_C=BLOCK_C,
        )
    return x_RC


@functools.cache
def _tuned_gather_norm_linear() -> Any:
    configs = [
        triton.Config({"BLOCK_R": r, "BLOCK_F": f}, num_warps=warps, num_stages=stages)
        for r, f, warps, stages in TILES
    ]
    if _interpreted():
        # the autotuner times on a GPU
        configs = configs[:1]
    # the number of rows is no key: it changes with the ratios, and the best tile hardly does
    return triton.autotune(configs, key=["F", "C", "GELU"])(kernels.gather_norm_linear)


def _interpreted() -> bool:
    return not isinstance(kernels.gather_norm_linear, triton.runtime.JITFunction)


def _window_constants(qkv_MNC: Tensor, H: int, window: int, shift: int) -> dict[str, Any]:
    N = qkv_MNC.shape[1]
    return {
        "N": N,
        "H": H,
        "D": qkv_MNC.shape[2] // 3 // H,
        "WINDOW": window,
        "SHIFT": shift,
        "PRECISION": _precision(),
        "BLOCK_N": max(16, triton.next_power_of_2(N)),
    }


def _precision() -> str:
    """How a product of float32 is taken: as PyTorch takes it."""
    matmul = torch.backends.cuda.matmul
    if not hasattr(matmul, "fp32_precision"):
        return "tf32" if matmul.allow_tf32 else "ieee"
    # since PyTorch 2.9, which refuses to be asked the old way after it was told the new way
    chosen = matmul.fp32_precision
    if chosen == "none":
        chosen = getattr(torch.backends, "fp32_precision", "none")
    return "tf32" if chosen == "tf32" else "ieee"


def _bytes(is_padding_MN1: Tensor | None, instead: Tensor) -> Tensor:
    # a pointer that is not read has to be some tensor all the same
    return instead if is_padding_MN1 is None else is_padding_MN1.view(torch.uint8)


def _kinds(edge_kind_M: Tensor | None, shift: int, instead: Tensor) -> Tensor:
    if shift == 0:
        return instead
    if edge_kind_M is None:
        raise ValueError("A shifted partition needs edge_kind_M, the kind of each window.")
    return edge_kind_M


def _on(x: Tensor) -> AbstractContextManager[Any]:
    """Triton launches on the current device, which need not be the tensor's."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()
