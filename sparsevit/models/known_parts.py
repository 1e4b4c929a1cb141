"""Whether a block consists of what routes of our own compute: mmdet's parts, and no others."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def infers_on_cpu(module: nn.Module, x: Tensor) -> bool:
    """Whether a module is in evaluation, its input on the CPU, and no gradient wanted."""
    return x.device.type == "cpu" and not torch.is_grad_enabled() and not module.training


def of_known_parts(block: Any, dtype: torch.dtype) -> bool:
    """Whether a ``SwinBlock`` has plain LayerNorm, linear layers and GELU of ``dtype``."""
    layers = block.ffn.layers
    return (
        all(is_plain_norm(norm, dtype) for norm in (block.norm1, block.norm2))
        and len(layers) == 3
        and len(layers[0]) == 3
        and isinstance(layers[0][1], nn.GELU)
        and layers[0][1].approximate == "none"
        and all(is_plain_linear(linear, dtype) for linear in linears(block))
        and block.attn.w_msa.relative_position_bias_table.dtype == dtype
    )


def is_plain_norm(norm: Any, dtype: torch.dtype) -> bool:
    """Whether a module is PyTorch's LayerNorm with parameters of ``dtype``."""
    return type(norm) is nn.LayerNorm and norm.bias is not None and norm.weight.dtype == dtype


def is_plain_linear(linear: Any, dtype: torch.dtype) -> bool:
    """Whether a module is PyTorch's linear layer with parameters of ``dtype``, or mmcv's."""
    return isinstance(linear, nn.Linear) and is_plain(linear, dtype)


def is_plain(layer: Any, dtype: torch.dtype) -> bool:
    """Whether a layer is PyTorch's own or mmcv's, with a weight of ``dtype``."""
    # mmcv's own differ for empty inputs alone; any other subclass, e.g. one for training with
    # quantisation, a parametrised one, or an adapter, may compute something else
    of_mmcv = type(layer).__module__.partition(".")[0] == "mmcv"
    known = of_mmcv or type(layer) in (nn.Linear, nn.Conv2d)
    # a pruned weight is computed before each call, and no parameter
    return known and "weight" in layer._parameters and layer.weight.dtype == dtype


def linears(block: Any) -> list[Any]:
    """The linear layers of a ``SwinBlock``: qkv, the projection, and the FFN's two."""
    attn, layers = block.attn.w_msa, block.ffn.layers
    return [attn.qkv, attn.proj, layers[0][0], layers[1]]
