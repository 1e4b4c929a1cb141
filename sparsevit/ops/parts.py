"""Work on a large tensor in parts, one after the other, where that spares memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sparsevit.ops.tracing import exporting


def goes_in_parts(x: Tensor) -> bool:
    """Whether work on a tensor is done in parts: in inference on the CPU, and in no graph."""
    graph = exporting() or torch.compiler.is_compiling()
    return not graph and not torch.is_grad_enabled() and x.device.type == "cpu"


def by_rows(made: Callable[[Tensor], Tensor], rows: Tensor, part_bytes: int) -> Tensor:
    """``made(rows)``, contiguous, where each row is worked on by itself.

    Where :func:`goes_in_parts`, rows come in parts of ``part_bytes``: what is made of them on the
    way takes a part's size in memory, not the whole's. Elsewhere all are one part.

    Args:
        made: a function from (some rows, ...) to (as many rows, ...).
        rows: (rows, ...).
        part_bytes: size of a part; one row where a row is larger.
    """
    most = max(1, part_bytes * len(rows) // max(1, rows.nbytes))
    if len(rows) <= most or not goes_in_parts(rows):
        return made(rows).contiguous()
    out = None
    for start, part in zip(range(0, len(rows), most), rows.split(most), strict=True):
        result = made(part)
        if out is None:
            out = result.new_empty(len(rows), *result.shape[1:])
        out[start : start + most] = result
    assert out is not None
    return out
