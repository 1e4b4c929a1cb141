"""Whether a block consists of what routes of our own compute: Swin's parts, and no others."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sparsevit.methods.windows.block import PLAIN_LAYERS, PositionTable, WindowBlock


def infers_on_cpu(module: nn.Module, x: Tensor) -> bool:
    """Whether a module is in evaluation, its input on the CPU, and no gradient wanted."""
    return x.device.type == "cpu" and not torch.is_grad_enabled() and not module.training


def norms(block: WindowBlock) -> tuple[Any, Any]:
    """The norms of a block :func:`of_known_parts`."""
    return block.norm1, block.norm2


def linears(block: WindowBlock) -> tuple[Any, Any, Any, Any]:
    """qkv, the projection, and the FFN's two layers, of a block :func:`of_known_parts`."""
    out, (grow, _, shrink) = _working(block.out), _working(block.ffn)[:3]
    return block.qkv, out[0], grow, shrink


def ffn_scale(block: WindowBlock) -> Any:
    """The layer scale behind the FFN of a block :func:`of_known_parts`, or None."""
    return next(iter(_working(block.ffn)[3:]), None)


def of_known_parts(block: WindowBlock, dtype: torch.dtype, layer_scale: bool = True) -> bool:
    """Whether a block is a Swin's, in evaluation: plain LayerNorm first, one linear layer for
    queries, keys and values, a table of positions, GELU; parameters of ``dtype``.

    Args:
        layer_scale: whether something may follow the FFN.
    """
    out, ffn = _working(block.out), _working(block.ffn)
    return (
        block.norm_first
        and block.cosine is None
        and block.qkv_bias is None
        and isinstance(block.position, PositionTable)
        and block.position.table.dtype == dtype
        and len(out) == 1
        and 3 <= len(ffn) <= 3 + layer_scale
        and isinstance(ffn[1], nn.GELU)
        and ffn[1].approximate == "none"
        and all(is_plain_norm(norm, dtype) for norm in norms(block))
        and all(is_plain_linear(layer, dtype) for layer in (block.qkv, out[0], ffn[0], ffn[2]))
    )


def _working(modules: tuple[Any, ...]) -> list[Any]:
    """What does something in evaluation."""
    return [module for module in modules if not isinstance(module, nn.Dropout)]


def is_plain_norm(norm: Any, dtype: torch.dtype) -> bool:
    """Whether a module is PyTorch's LayerNorm with parameters of ``dtype``."""
    return type(norm) is nn.LayerNorm and norm.bias is not None and norm.weight.dtype == dtype


def is_plain_linear(linear: Any, dtype: torch.dtype) -> bool:
    """Whether a module is a plain linear layer with parameters of ``dtype``."""
    return isinstance(linear, nn.Linear) and is_plain(linear, dtype)


def is_plain(layer: Any, dtype: torch.dtype) -> bool:
    """Whether a layer computes what PyTorch's own does, with a weight of ``dtype``."""
    # any other subclass, e.g. one for training with quantisation, a parametrised one, or an
    # adapter, may compute something else; a pruned weight is computed before each call, and no
    # parameter
    return (
        type(layer) in PLAIN_LAYERS
        and "weight" in layer._parameters
        and layer.weight.dtype == dtype
    )
