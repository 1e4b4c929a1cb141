"""Backends in this process's PyTorch: eager and compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from sparsevit.latency.backends.base import Run, autocast, require_compiler, sparsity_now
from sparsevit.methods import compiled_form
from sparsevit.ops.native.private import keep_inductor_private


def require_eager(precision: str, device: torch.device) -> None:
    """PyTorch is always there."""


def require_compile(precision: str, device: torch.device) -> None:
    """Refuse where nothing can be compiled.

    Raises:
        UserError: it is to run on the CPU, and there is no C++ compiler.
    """
    if device.type == "cpu":
        require_compiler("The backend compile")
    keep_inductor_private()


def prepare_eager(backbone: nn.Module, images: Tensor, precision: str, device: torch.device) -> Run:
    """The backbone as it is, at the sparsity that it has now."""
    return _called(backbone, backbone, precision, device)


def prepare_compile(
    backbone: nn.Module, images: Tensor, precision: str, device: torch.device
) -> Run:
    """Compiled by :func:`torch.compile`: a sparse module in the form that its method gives it, so
    that other ratios need no other graphs, anything else as a whole.
    """
    twin = compiled_form(backbone, frozen=True)
    if twin is not None:
        return _called(twin, twin, precision, device)
    return _called(torch.compile(backbone, dynamic=False), backbone, precision, device)


def _called(
    call: Callable[[Tensor], Any], module: nn.Module, precision: str, device: torch.device
) -> Run:
    restore = sparsity_now(module)

    def run(images: Tensor) -> list[Tensor]:
        restore()
        with torch.no_grad(), autocast(precision, device):
            return tree_leaves(call(images))

    return run
