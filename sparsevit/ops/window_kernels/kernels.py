"""Triton kernels for blocks on gathered windows. Inference only; PyTorch code is the reference.

Names: R rows of a list of windows (R = M * N), C channels, F output features, H heads, D channels a
head, T entries of a relative position table ((2 * window - 1) ** 2).
"""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _token_rows(row_ptr, padding_ptr, r, inside, HAS_PADDING: tl.constexpr):
    """The row in the map of each listed row, and whether it holds a token (no padding)."""
    row = tl.load(row_ptr + r, mask=inside, other=0)
    live = inside
    if HAS_PADDING:
        live = inside & (tl.load(padding_ptr + r, mask=inside, other=1) == 0)
    return row, live


# R changes with the ratios: no variant of the kernel for those that 16 divides
@triton.jit(do_not_specialize=["R"])
def gather_norm_linear(
    x_ptr,  # (rows of the map, C)
    row_ptr,  # (R,) int64
    padding_ptr,  # (R,) bool as uint8
    gamma_ptr,  # (C,)
    beta_ptr,  # (C,)
    weight_ptr,  # (F, C)
    bias_ptr,  # (F,)
    out_ptr,  # (R, F)
    R,
    F,
    eps,
    C: tl.constexpr,
    HAS_PADDING: tl.constexpr,
    PAD_BEFORE_NORM: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    GELU: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_F: tl.constexpr,
    BLOCK_C: tl.constexpr,  # divides C
):
    """out[r] = act(linear(layer_norm(x[row[r]]))): neither the gathered nor the normalised list is
    ever written. A program makes one tile of the output and normalises what it reads."""
    tiles_F = tl.cdiv(F, BLOCK_F)
    # tiles of the same rows run side by side, so that only the first reads them from memory
    r = (tl.program_id(0) // tiles_F) * BLOCK_R + tl.arange(0, BLOCK_R)
    f = (tl.program_id(0) % tiles_F) * BLOCK_F + tl.arange(0, BLOCK_F)
    c = tl.arange(0, BLOCK_C)
    row, live = _token_rows(row_ptr, padding_ptr, r, r < R, HAS_PADDING)
    x_ptrs = x_ptr + row[:, None] * C + c[None, :]

    # mean and variance in one pass, chunk by chunk (Chan et al.): no cancellation
    mean = tl.zeros((BLOCK_R,), tl.float32)
    squares = tl.zeros((BLOCK_R,), tl.float32)
    for start in range(0, C, BLOCK_C):
        x = tl.load(x_ptrs + start, mask=live[:, None], other=0.0).to(tl.float32)
        chunk_mean = tl.sum(x, 1) / BLOCK_C
        away = x - chunk_mean[:, None]
        delta = chunk_mean - mean
        share = BLOCK_C / (start + BLOCK_C)
        squares += tl.sum(away * away, 1) + delta * delta * (start * share)
        mean += delta * share
    scale = 1.0 / tl.sqrt(squares / C + eps)

    acc = tl.zeros((BLOCK_R, BLOCK_F), tl.float32)
    for start in range(0, C, BLOCK_C):
        x = tl.load(x_ptrs + start, mask=live[:, None], other=0.0).to(tl.float32)
        gamma = tl.load(gamma_ptr + start + c).to(tl.float32)
        beta = tl.load(beta_ptr + start + c).to(tl.float32)
        y = (x - mean[:, None]) * scale[:, None] * gamma[None, :] + beta[None, :]
        if HAS_PADDING and not PAD_BEFORE_NORM:
            y = tl.where(live[:, None], y, 0.0)
        weight = tl.load(
            weight_ptr + f[None, :] * C + (start + c)[:, None], mask=f[None, :] < F, other=0.0
        )
        acc = tl.dot(y.to(weight.dtype), weight, acc, input_precision=PRECISION)
    if HAS_BIAS:
        acc += tl.load(bias_ptr + f, mask=f < F, other=0.0).to(tl.float32)[None, :]
    if GELU:
        acc = 0.5 * acc * (1.0 + tl.erf(acc * 0.7071067811865476))
    out_ptrs = out_ptr + r.to(tl.int64)[:, None] * F + f[None, :]
    tl.store(out_ptrs, acc.to(out_ptr.dtype.element_ty), mask=(r[:, None] < R) & (f[None, :] < F))


@triton.jit
def _attend(
    qkv_ptr,
    table_ptr,
    kind,
    m,
    head,
    scale,
    N: tl.constexpr,
    H: tl.constexpr,
    D: tl.constexpr,
    WINDOW: tl.constexpr,
    SHIFT: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """(BLOCK_N, D) float32: attention of one head within one window; rows from N on are waste."""
    i = tl.arange(0, BLOCK_N)
    d = tl.arange(0, D)
    stride: tl.constexpr = 3 * H * D
    at = qkv_ptr + m.to(tl.int64) * (N * stride) + i[:, None] * stride + head * D + d[None, :]
    token = i[:, None] < N
    q = tl.load(at, mask=token, other=0.0)
    k = tl.load(at + H * D, mask=token, other=0.0)
    v = tl.load(at + 2 * H * D, mask=token, other=0.0)
    logits = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale

    # the bias of a pair is that of its offset, and where the cyclic shift made neighbours of
    # tokens from opposite ends follows from where they lie in the window
    down, right = i // WINDOW, i % WINDOW
    offset = (down[:, None] - down[None, :] + WINDOW - 1) * (2 * WINDOW - 1)
    offset += right[:, None] - right[None, :] + WINDOW - 1
    pair = (i[:, None] < N) & (i[None, :] < N)
    table = table_ptr + head * ((2 * WINDOW - 1) * (2 * WINDOW - 1))
    logits += tl.load(table + offset, mask=pair, other=0.0).to(tl.float32)
    if SHIFT > 0:
        far_right = (right >= WINDOW - SHIFT).to(tl.int32)
        far_down = (down >= WINDOW - SHIFT).to(tl.int32)
        across = (far_right[:, None] != far_right[None, :]) & ((kind & 1) != 0)
        along = (far_down[:, None] != far_down[None, :]) & ((kind & 2) != 0)
        # windows.MASKED
        logits += tl.where(across | along, -1e4, 0.0)
    logits = tl.where(i[None, :] < N, logits, float("-inf"))

    weights = tl.exp(logits - tl.max(logits, 1)[:, None])
    weights = weights / tl.sum(weights, 1)[:, None]
    return tl.dot(weights.to(v.dtype), v, input_precision=PRECISION)


@triton.jit
def window_attention(
    qkv_ptr,  # (M, N, 3 * H * D)
    table_ptr,  # (H, T)
    kind_ptr,  # (M,) which edges of the shifted map a window lies at
    out_ptr,  # (M, N, H * D)
    scale,
    N: tl.constexpr,
    H: tl.constexpr,
    D: tl.constexpr,
    WINDOW: tl.constexpr,
    SHIFT: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """One program a window and head: logits live in registers, no mask and no bias in memory."""
    m, head = tl.program_id(0) // H, tl.program_id(0) % H
    kind = 0
    if SHIFT > 0:
        kind = tl.load(kind_ptr + m)
    out = _attend(
        qkv_ptr, table_ptr, kind, m, head, scale, N, H, D, WINDOW, SHIFT, PRECISION, BLOCK_N
    )
    i = tl.arange(0, BLOCK_N)
    c = head * D + tl.arange(0, D)
    at = out_ptr + m.to(tl.int64) * (N * H * D) + i[:, None] * (H * D) + c[None, :]
    tl.store(at, out.to(out_ptr.dtype.element_ty), mask=i[:, None] < N)


@triton.jit
def window_attention_to_map(
    x_ptr,  # (rows of the map, C), changed in place
    row_ptr,  # (M, N) int64
    padding_ptr,  # (M, N) bool as uint8
    qkv_ptr,  # (M, N, 3 * C)
    table_ptr,  # (H, T)
    kind_ptr,  # (M,)
    weight_ptr,  # (C, C)
    bias_ptr,  # (C,)
    scale,
    N: tl.constexpr,
    H: tl.constexpr,
    D: tl.constexpr,
    WINDOW: tl.constexpr,
    SHIFT: tl.constexpr,
    HAS_PADDING: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,  # C = H * D, rounded up to a power of 2
):
    """x[row] += proj(attention): one program a window, all heads, written straight to the map.

    Each head's output is multiplied with its rows of the projection as soon as it is there, so
    neither the heads' nor the projection's output is ever written. For few channels.
    """
    C: tl.constexpr = H * D
    m = tl.program_id(0)
    i = tl.arange(0, BLOCK_N)
    c = tl.arange(0, BLOCK_C)
    d = tl.arange(0, D)
    kind = 0
    if SHIFT > 0:
        kind = tl.load(kind_ptr + m)
    acc = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    for head in range(0, H):
        out = _attend(
            qkv_ptr, table_ptr, kind, m, head, scale, N, H, D, WINDOW, SHIFT, PRECISION, BLOCK_N
        )
        weight_ptrs = weight_ptr + c[None, :] * C + (head * D + d)[:, None]
        weight = tl.load(weight_ptrs, mask=c[None, :] < C, other=0.0)
        acc = tl.dot(out.to(weight.dtype), weight, acc, input_precision=PRECISION)
    if HAS_BIAS:
        acc += tl.load(bias_ptr + c, mask=c < C, other=0.0).to(tl.float32)[None, :]
    row, live = _token_rows(row_ptr, padding_ptr, m * N + i, i < N, HAS_PADDING)
    x_ptrs = x_ptr + row[:, None] * C + c[None, :]
    known = live[:, None] & (c[None, :] < C)
    acc += tl.load(x_ptrs, mask=known, other=0.0).to(tl.float32)
    tl.store(x_ptrs, acc.to(x_ptr.dtype.element_ty), mask=known)


# R changes with the ratios: no variant of the kernel for those that 16 divides
@triton.jit(do_not_specialize=["R"])
def add_rows(
    x_ptr,  # (rows of the map, C), changed in place
    row_ptr,  # (R,) int64
    padding_ptr,  # (R,) bool as uint8
    y_ptr,  # (R, C)
    R,
    C: tl.constexpr,
    HAS_PADDING: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,  # C, rounded up to a power of 2
):
    """x[row[r]] += y[r] for tokens; padding goes nowhere."""
    r = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    c = tl.arange(0, BLOCK_C)
    row, live = _token_rows(row_ptr, padding_ptr, r, r < R, HAS_PADDING)
    x_ptrs = x_ptr + row[:, None] * C + c[None, :]
    known = live[:, None] & (c[None, :] < C)
    y_ptrs = y_ptr + r.to(tl.int64)[:, None] * C + c[None, :]
    y = tl.load(y_ptrs, mask=known, other=0.0).to(tl.float32)
    x = tl.load(x_ptrs, mask=known, other=0.0).to(tl.float32)
    tl.store(x_ptrs, (x + y).to(x_ptr.dtype.element_ty), mask=known)
