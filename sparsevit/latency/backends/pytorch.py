"""Backends in this process's PyTorch: eager and compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sparsevit.latency.backends.base import Run, autocast, require_compiler
from sparsevit.sparsity.handle import SparseModule


def require_eager(precision: str, device: torch.device) -> None:
    """PyTorch is always there."""


def require_compile(precision: str, device: torch.device) -> None:
    """Refuse where nothing can be compiled.

    Raises:
        UserError: it is to run on the CPU, and there is no C++ compiler.
    """
    if device.type == "cpu":
        require_compiler("The backend compile")


def prepare_eager(backbone: nn.Module, images: Tensor, precision: str, device: torch.device) -> Run:
    """The backbone as it is, at the sparsity that it has now."""
    return _called(backbone, backbone, precision, device)


def prepare_compile(
    backbone: nn.Module, images: Tensor, precision: str, device: torch.device
) -> Run:
    """Compiled by :func:`torch.compile`: a SparseViT piece by piece, so that other ratios need no
    other graphs (:mod:`sparsevit.models.compiled`), anything else as a whole.
    """
    from sparsevit.models import SparseViT
    from sparsevit.models.forms import compiled

    if isinstance(backbone, SparseViT):
        twin = compiled(backbone, frozen=True)
        return _called(twin, twin, precision, device)
    return _called(torch.compile(backbone, dynamic=False), backbone, precision, device)


def _called(
    call: Callable[[Tensor], Any], module: nn.Module, precision: str, device: torch.device
) -> Run:
    sparsity = module.get_sparsity() if isinstance(module, SparseModule) else None

    # eager and compiled code reads the ratios at every call; they may have been set anew since
    def run(images: Tensor) -> list[Tensor]:
        if isinstance(module, SparseModule) and sparsity is not None:
            module.set_sparsity(sparsity)
        with torch.no_grad(), autocast(precision, device):
            return list(call(images))

    return run
