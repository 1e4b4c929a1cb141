"""The GEMM floor: how long a forward's multiplications take if they are all that is done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from shared.record import interleave

Shape = tuple[int, int, int]


class _Products(TorchDispatchMode):
    """Counts the matrix products that run under it, by (rows, inner, columns)."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: Counter[Shape] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        pair = None
        if func is torch.ops.aten.mm.default:
            pair = args
        elif func is torch.ops.aten.addmm.default:
            pair = args[1:]
        if pair is not None:
            self.shapes[(pair[0].shape[0], pair[0].shape[1], pair[1].shape[1])] += 1
        return func(*args, **(kwargs or {}))


def product_shapes(call: Callable[[], Any]) -> Counter[Shape]:
    """(rows, inner, columns) -> how often a call multiplies matrices of this shape.

    Args:
        call: an eager forward. Products of batches (attention's) and convolutions are left out:
            they are few, and no hardware is faster at them.
    """
    with torch.no_grad(), _Products() as products:
        call()
    return products.shapes


def gemm_gflops(
    shapes: Counter[Shape],
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    rounds: int = 5,
) -> float:
    """Billions of floating point operations a second in products of these shapes.

    Each is timed at its fastest, and counts as often as it occurs.

    Args:
        shapes: of :func:`product_shapes`.
        dtype: of the matrices.
        device: where.
        rounds: of one of each in turn.
    """
    calls = {}
    for rows, inner, columns in shapes:
        a = torch.randn(rows, inner, device=device, dtype=dtype)
        # as a linear layer holds its weight
        b = torch.randn(columns, inner, device=device, dtype=dtype).t()
        out = torch.empty(rows, columns, device=device, dtype=dtype)
        calls[str((rows, inner, columns))] = _product(a, b, out)
    with torch.no_grad():
        samples = interleave(calls, rounds, warmup=1)
    flops = sum(2 * r * i * c * count for (r, i, c), count in shapes.items())
    seconds = sum(min(samples[str(shape)]) * 1e-3 * count for shape, count in shapes.items())
    return flops / seconds / 1e9


def floor_ms(gmacs: float, gflops: float) -> float:
    """Milliseconds of so many multiply-accumulates (billions) at a rate."""
    return 2 * gmacs / gflops * 1000


def _product(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> Callable[[], Any]:
    return lambda: torch.mm(a, b, out=out)
