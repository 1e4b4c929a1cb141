"""Triton kernels for blocks on gathered windows: when they are used.

``SPARSEVIT_KERNELS`` = ``auto`` (the default) uses them in inference on CUDA in float16 and
bfloat16, where Triton is installed and works; ``all`` in float32 too, whose products cuBLAS may do
better than Triton; ``off`` leaves everything to PyTorch. The kernels are in ``kernels``, what they
compute in ``launch``.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache

import torch

from sparsevit.errors import UserError

VARIABLE = "SPARSEVIT_KERNELS"
DTYPES = {
    "auto": (torch.float16, torch.bfloat16),
    "all": (torch.float16, torch.bfloat16, torch.float32),
    "off": (),
}
# The first with matrix units for bfloat16, and the oldest that Triton tends to.
CAPABILITY = (8, 0)
HEAD_DIMS = (16, 32, 64)
MAX_TOKENS = 64

_switched_off: ContextVar[bool] = ContextVar("window kernels switched off", default=False)


@contextmanager
def without_kernels() -> Iterator[None]:
    """Within this context PyTorch does the work, e.g. to be counted or exported."""
    token = _switched_off.set(True)
    try:
        yield
    finally:
        _switched_off.reset(token)


def wanted(dtype: torch.dtype) -> bool:
    """Whether ``SPARSEVIT_KERNELS`` and :func:`without_kernels` leave this dtype to the kernels.

    Raises:
        UserError: ``SPARSEVIT_KERNELS`` is none of ``auto``, ``all`` and ``off``.
    """
    choice = os.environ.get(VARIABLE, "auto")
    if choice not in DTYPES:
        raise UserError(
            f"{VARIABLE}={choice} is not a valid choice.",
            f"Set {VARIABLE} to auto, all or off, or leave it unset.",
        )
    return dtype in DTYPES[choice] and not _switched_off.get()


def installed() -> bool:
    return importlib.util.find_spec("triton") is not None


@lru_cache(maxsize=16)
def works(device: torch.device) -> bool:
    """Whether a kernel compiles and runs on this device; asked once, with the smallest of them.

    Triton builds with the machine's C compiler when it first runs, so being installed is not
    enough. Where it fails, a warning says why and PyTorch does the work.
    """
    if not installed() or torch.cuda.get_device_capability(device) < CAPABILITY:
        return False
    try:
        from sparsevit.ops.window_kernels.launch import add_rows

        x_RC = torch.ones(2, 16, device=device)
        y_MNC = torch.ones(1, 1, 16, device=device)
        add_rows(x_RC, torch.ones(1, 1, dtype=torch.long, device=device), y_MNC)
        if x_RC.sum().item() != 48:
            raise RuntimeError("a kernel gave a wrong result")
    except Exception as problem:
        warnings.warn(
            f"Triton does not work on {device}, so PyTorch does the work instead, more slowly: "
            f"{problem}. {VARIABLE}=off silences this.",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True


def usable(x: torch.Tensor) -> bool:
    """Whether the kernels can work on this tensor now: inference on CUDA, outside of autocast,
    compilation and export, which see PyTorch's ops only."""
    # whoever compiles or exports cannot follow beyond the first two
    return (
        x.is_cuda
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled()
        and wanted(x.dtype)
        and works(x.device)
    )
