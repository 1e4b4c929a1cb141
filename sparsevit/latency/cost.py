"""What a forward costs apart from time: parameters, and the multiplications really done."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from sparsevit.methods import methods_in
from sparsevit.ops.window_kernels import without_kernels


def parameters(model: nn.Module) -> int:
    """Number of trainable and fixed parameters, without those that masks make vain."""
    total = all_parameters(model)
    for method in methods_in(model):
        total = method.parameters(total)
    return total


@torch.no_grad()
def gmacs(call: Callable[[], Any], model: nn.Module | None = None) -> float:
    """Billions of multiply-accumulates of the matrix products, convolutions and attentions that a
    call really needs: what is skipped is not counted.

    Args:
        call: a forward.
        model: what it runs; the methods of its parts take off what masks make vain.
    """
    # a kernel of our own cannot be counted; PyTorch in its place does the same products
    counter = FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION)
    methods = methods_in(model) if model is not None else []
    with ExitStack() as stack:
        for method in methods:
            stack.enter_context(method.counting())
        with without_kernels(), counter:
            call()
    done = counter.get_total_flops() / 2
    for method in methods:
        done = method.work(done)
    return done / 1e9


def all_parameters(model: nn.Module) -> int:
    """Number of parameters, zeros among them."""
    return sum(p.numel() for p in model.parameters())


def _cpu_attention(q: Any, k: Any, v: Any, *args: Any, **kwargs: Any) -> int:
    return sdpa_flop_count(q, k, v)


# PyTorch counts the fused attention of CUDA, not that of the CPU
_CPU_ATTENTION: dict[Any, Any] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _cpu_attention
}
