"""One Swin block on the map itself by native code: inference in float32 on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from sparsevit.methods.windows.block import PositionTable, WindowBlock
from sparsevit.methods.windows.forward import RunOnMap
from sparsevit.methods.windows.routes.known_parts import (
    infers_on_cpu,
    linears,
    norms,
    of_known_parts,
)
from sparsevit.methods.windows.routes.parts import product_dtype
from sparsevit.ops.inference_ops import version
from sparsevit.ops.native import swin
from sparsevit.ops.windows import Windows, region_masks

Packed = TypeVar("Packed")

# module -> (its parameters and their versions, what was packed of them)
_packed: WeakKeyDictionary[nn.Module, tuple[Any, Any]] = WeakKeyDictionary()


def block_natively(block: WindowBlock, x_RC: Tensor) -> RunOnMap | None:
    """:func:`run_block_natively`, where it computes what this block does on this map (rows, C).

    It does in inference in float32 on the CPU, with Swin's own parts, where there is a compiler for
    it (:func:`sparsevit.ops.native.swin.usable`).
    """
    computes = (
        infers_natively(block.module, x_RC)
        and of_known_parts(block, torch.float32, layer_scale=False)
        and swin.usable()
    )
    return run_block_natively if computes else None


def run_block_natively(block: WindowBlock, x_RC: Tensor, windows: Windows) -> Tensor:
    """The block on the windows listed, in place; they need no masks, but the kind of each.

    Args:
        block: for which :func:`block_natively` is this. Its parameters are packed at its first use,
            and again where PyTorch notes that they have changed.
        x_RC: (rows, C) map, contiguous; overwritten.
        windows: which rows.

    Returns:
        ``x_RC``.
    """
    swin.run_block(
        packed_once(block.module, _parts(block), lambda: _pack(block)),
        x_RC,
        windows.row_MN,
        windows.is_padding_MN1,
        windows.edge_kind_M,
        block.pad_before_norm,
    )
    return x_RC


def infers_natively(module: nn.Module, x: Tensor) -> bool:
    """Whether a module is used in inference, in float32, on the CPU."""
    return (
        infers_on_cpu(module, x) and x.dtype == torch.float32 and product_dtype(x) == torch.float32
    )


def packed_once(module: nn.Module, parts: Sequence[Any], pack: Callable[[], Packed]) -> Packed:
    """What ``pack`` makes of a module, made anew where a parameter among ``parts``, or of one of
    them, is another or has changed. (``module.parameters()`` would take longer than a small
    block.)"""
    state = [
        (p.data_ptr(), version(p))
        for part in parts
        for p in ((part,) if isinstance(part, Tensor) else part._parameters.values())
        if p is not None
    ]
    known, packed = _packed.get(module, (None, None))
    if known != state:
        packed = pack()
        _packed[module] = (state, packed)
    return packed


def _parts(block: WindowBlock) -> list[Any]:
    assert isinstance(block.position, PositionTable)
    return [block.position.table, *norms(block), *linears(block)]


def _pack(block: WindowBlock) -> swin.PackedBlock:
    assert isinstance(block.position, PositionTable)
    shifted = any(block.shift)
    return swin.PackedBlock(
        norms(block),
        linears(block),
        block.heads,
        block.scale,
        block.position(),
        region_masks(block.window, block.shift, torch.device("cpu")) if shifted else None,
    )
