"""Lists of windows in parts: inference on a CPU without memory that the system maps anew.

What an FFN makes of all windows of a large map is memory that glibc takes from the system and gives
back at every call, and each of its pages costs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from sparsevit.methods.windows.block import WindowBlock
from sparsevit.methods.windows.forward import token_magnitudes
from sparsevit.ops.parts import by_rows
from sparsevit.ops.windows import Windows

PART_BYTES = 16 * 2**20
"""What the FFN makes of a part. glibc maps anything above 32 MiB anew each time it is asked for."""
SCORED_BYTES = 2**20
"""A part of a map whose magnitudes are taken."""


def token_magnitudes_in_parts(x: Tensor) -> Tensor:
    """:func:`~sparsevit.methods.windows.forward.token_magnitudes`, without the memory that all
    absolute values at once would take."""
    magnitudes = by_rows(token_magnitudes, x.flatten(0, -2), SCORED_BYTES)
    return magnitudes.view(x.shape[:-1])


def in_parts(windows: Windows, block: WindowBlock) -> list[Windows]:
    """The list in parts that a block works on one after the other, where that is for the better.

    In inference on the CPU a part is so long that what the FFN makes of it stays within
    ``PART_BYTES``. Windows that may need a mask come in parts of their own. On other devices, and
    where gradients are wanted, everything is one part.
    """
    rows = windows.row_MN
    if torch.is_grad_enabled() or block.module.training or rows.device.type != "cpu":
        return [windows]
    M, N = rows.shape
    most = max(1, PART_BYTES // (_hidden(block) * N))
    if most >= M:
        return [windows]
    edges = 0 if windows.edge_masks_ENN is None else len(windows.edge_masks_ENN)
    return [
        _part(windows, start, stop)
        for first, last in ((0, M - edges), (M - edges, M))
        for start, stop in _even_cuts(first, last, most)
    ]


def _hidden(block: WindowBlock) -> int:
    """Bytes that the FFN makes of a token."""
    layer: nn.Module | Callable[..., Tensor] = block.ffn[0]
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, Tensor):
        # wrapped by something that changes it; the usual ratio
        channels = 4 * getattr(block.norm2, "normalized_shape", (1024,))[0]
        return int(channels) * 4
    return weight.shape[0] * product_dtype(weight).itemsize


def product_dtype(x: Tensor) -> torch.dtype:
    """What a product of this tensor is computed in: autocast's dtype, or its own."""
    device = x.device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return x.dtype


def _even_cuts(first: int, last: int, most: int) -> list[tuple[int, int]]:
    count = math.ceil((last - first) / most)
    cuts = [first + (last - first) * i // max(count, 1) for i in range(count + 1)]
    return list(itertools.pairwise(cuts))


def _part(windows: Windows, start: int, stop: int) -> Windows:
    masks_ENN, padding_MN1 = windows.edge_masks_ENN, windows.is_padding_MN1
    if masks_ENN is not None:
        inner = len(windows.row_MN) - len(masks_ENN)
        masks_ENN = None if start < inner else masks_ENN[start - inner : stop - inner]
    return Windows(
        row_MN=windows.row_MN[start:stop],
        image_M=windows.image_M[start:stop],
        is_padding_MN1=None if padding_MN1 is None else padding_MN1[start:stop],
        edge_masks_ENN=masks_ENN,
    )
