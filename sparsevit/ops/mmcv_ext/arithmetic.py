"""The setting that every op here computes in: no gradient, no autocast, full-precision products."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor


def working_dtype(tensor: Tensor) -> torch.dtype:
    """float64 stays; everything else is computed in float32 and rounded once, at the end."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


@contextmanager
def exact_arithmetic(tensor: Tensor) -> Iterator[None]:
    """Runs the body as compiled mmcv would: outside autograd, autocast and TF32.

    An autograd function's forward runs inside its caller's autocast, which would turn the products
    of pooling weights into bfloat16 ones; ``torch.set_float32_matmul_precision`` would do nearly
    the same.
    """
    device = tensor.device.type
    autocast = torch.autocast(device, enabled=False) if device in ("cpu", "cuda") else nullcontext()
    with torch.no_grad(), autocast, _ieee_products(device):
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """Runs the body on one thread.

    A loop of many small products gains little from threads, and pays for a barrier at each of them:
    where another process holds a core, that is ten times the work itself. It also fixes the order
    of every sum.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _ieee_products(device: str) -> Iterator[None]:
    try:
        before = torch.get_float32_matmul_precision()
    except (
        RuntimeError
    ):  # The caller has used torch 2.9's switch of each backend, which excludes it.
        with _ieee_backend(device):
            yield
        return
    if before == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def _ieee_backend(device: str) -> Iterator[None]:
    backend: Any = torch.backends.cuda if device == "cuda" else torch.backends.mkldnn
    before = backend.matmul.fp32_precision
    backend.matmul.fp32_precision = "ieee"
    try:
        yield
    finally:
        backend.matmul.fp32_precision = before
