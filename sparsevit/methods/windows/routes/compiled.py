"""Blocks compiled by :func:`torch.compile`: one set of graphs for all ratios.

Windows are ranked and located eagerly. What costs time is compiled: a block on the windows it was
given, and the magnitudes of tokens. The number of windows is a symbol in a block's graph
(:func:`torch._dynamo.maybe_mark_dynamic`), so a graph made at one ratio serves all others. All
blocks of a stage share graphs too, as their parameters are inputs. A stage needs at most four:
plain windows; shifted ones; shifted ones so few that each may lie at an edge; and a single window,
a count that torch cannot keep a symbol. (In training, stochastic depth has another probability in
each block, a constant of its graph; then it is four a block.)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsevit.methods.windows.block import WindowBlock
from sparsevit.methods.windows.forward import Route, RunOnMap, run_block
from sparsevit.methods.windows.routes.native import block_natively
from sparsevit.methods.windows.routes.packed import packable, run_packed_block
from sparsevit.methods.windows.routes.parts import (
    in_parts,
    product_dtype,
    token_magnitudes_in_parts,
)
from sparsevit.ops.windows import Windows

GRAPHS_A_PIECE = 256
"""How often one piece may be compiled; torch gives up and runs eagerly after 8 by default."""


def compiled_route(frozen: bool, **options: Any) -> Route:
    """The steps of a stage, to be compiled when they are called.

    Args:
        frozen: for inference on the CPU with weights that do not change any more: they are laid
            out for their products once, which takes their size in memory again. In float32 all
            but the scores is native code of ours (:mod:`.native`); in bfloat16, oneDNN's products
            are called (:mod:`.packed`). Elsewhere it makes no difference.
        **options: of :func:`torch.compile`, such as ``backend``, ``mode`` or ``options``.
    """
    limits = torch._dynamo.config
    limits.cache_size_limit = max(limits.cache_size_limit, GRAPHS_A_PIECE)
    # Static but for what is marked: what changes with the ratio is known beforehand, and what
    # changes with the image gives faster graphs as a constant. The map itself is no input of a
    # block, as it is overwritten between a block's forward and its backward.
    plain = torch.compile(run_block, dynamic=False, **options)
    packed = torch.compile(run_packed_block, dynamic=False, **options)

    def block_on_any_number(
        block: WindowBlock, t_MNC: Tensor, windows: Windows, batch: int
    ) -> Tensor:
        for listed in (t_MNC, *vars(windows).values()):
            if isinstance(listed, Tensor):
                torch._dynamo.maybe_mark_dynamic(listed, 0)
        dtype = product_dtype(t_MNC)
        if frozen and packable(block, t_MNC, dtype):
            return packed(block, t_MNC, windows, dtype)
        return plain(block, t_MNC, windows, batch)

    def on_map(block: WindowBlock, x_RC: Tensor) -> RunOnMap | None:
        # else its compiled form, and no kernels of ours
        return block_natively(block, x_RC) if frozen else None

    return Route(
        magnitudes=torch.compile(token_magnitudes_in_parts, dynamic=False, **options),
        on_map=on_map,
        block=block_on_any_number,
        split=in_parts,
    )
