"""A SparseViT whose forward is compiled piece by piece: one set of graphs for all ratios.

Windows are ranked and located eagerly. What costs time is compiled: a block on the windows it was
given, patch embedding and merging, the norms, the magnitudes of tokens. The number of windows is a
symbol in a block's graph (:func:`torch._dynamo.maybe_mark_dynamic`), so a graph made at one ratio
serves all others. All blocks of a stage share graphs too, as their parameters are inputs. A stage
needs at most four: plain windows; shifted ones; shifted ones so few that each may lie at an edge;
and a single window, a count that torch cannot keep a symbol. (In training, stochastic depth has
another probability in each block, a constant of its graph; then it is four a block.)
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from mmdet.models.backbones.swin import SwinBlock
from torch import Tensor

from sparsevit.models.native_block import (
    block_natively,
    embed_natively,
    feature_map_natively,
    merge_patches_natively,
)
from sparsevit.models.packed_block import packable, run_packed_block
from sparsevit.models.sparsevit import Pieces, RunOnMap, SparseViT
from sparsevit.models.window_block import Windows, product_dtype

GRAPHS_A_PIECE = 256
"""How often one piece may be compiled; torch gives up and runs eagerly after 8 by default."""


def compiled(backbone: SparseViT, pieces: Pieces | None = None, frozen: bool = False) -> SparseViT:
    """The backbone with a compiled forward, for inference and for training.

    Ratios may change between calls without a graph being made anew. A new image size, batch size,
    precision or mode (training, gradients) makes new ones. Infer under :func:`torch.no_grad`: for
    :func:`torch.inference_mode` torch makes a second set, as lists of windows that were kept from
    before are no inference tensors.

    Args:
        backbone: is left as it is; parameters and submodules are shared, ratios are not.
        pieces: of :func:`compiled_pieces`; where None those with torch's defaults, the same ones
            for every backbone.
        frozen: where no pieces are given, whether weights stay as they are: see
            :func:`compiled_pieces`.
    """
    twin = copy.copy(backbone)
    twin.pieces = pieces or default_pieces(frozen)
    return twin


@lru_cache(maxsize=2)
def default_pieces(frozen: bool) -> Pieces:
    """The pieces compiled with torch's defaults."""
    return compiled_pieces(frozen=frozen)


def compiled_pieces(frozen: bool = False, **options: Any) -> Pieces:
    """The pieces of a forward, to be compiled when they are called.

    Args:
        frozen: for inference on the CPU with weights that do not change any more: they are laid
            out for their products once, which takes their size in memory again. In float32 all
            but the scores is native code of ours (:mod:`sparsevit.models.native_block`); in
            bfloat16, and where that is not to be had, oneDNN's products are called
            (:mod:`sparsevit.models.packed_block`). Elsewhere it makes no difference.
        **options: of :func:`torch.compile`, such as ``backend``, ``mode`` or ``options``.
    """
    limits = torch._dynamo.config
    limits.cache_size_limit = max(limits.cache_size_limit, GRAPHS_A_PIECE)
    eager = Pieces()
    # Static but for what is marked: what changes with the ratio is known beforehand, and what
    # changes with the image gives faster graphs as a constant. The map itself is no input of a
    # block, as it is overwritten between a block's forward and its backward.
    block = torch.compile(eager.block, dynamic=False, **options)
    packed_block = torch.compile(run_packed_block, dynamic=False, **options)

    def run_any_number(
        module: SwinBlock, t_MNC: Tensor, windows: Windows, batch: int, pad_before_norm: bool
    ) -> Tensor:
        for listed in (t_MNC, *vars(windows).values()):
            if isinstance(listed, Tensor):
                torch._dynamo.maybe_mark_dynamic(listed, 0)
        if frozen:
            dtype = product_dtype(t_MNC)
            if packable(module, t_MNC, dtype):
                return packed_block(module, t_MNC, windows, pad_before_norm, dtype)
        return block(module, t_MNC, windows, batch, pad_before_norm)

    def on_map(module: SwinBlock, x_RC: Tensor) -> RunOnMap | None:
        # else its compiled piece, and no kernels of ours
        return block_natively(module, x_RC) if frozen else None

    def compile_piece(
        piece: Callable[..., Any], natively: Callable[..., Any] | None = None
    ) -> Callable[..., Any]:
        code = torch.compile(piece, dynamic=False, **options)
        if natively is None or not frozen:
            return code

        def run(*inputs: Any) -> Any:
            found = natively(*inputs)
            return code(*inputs) if found is None else found

        return run

    return Pieces(
        embed=compile_piece(eager.embed, embed_natively),
        magnitudes=compile_piece(eager.magnitudes),
        on_map=on_map,
        block=run_any_number,
        feature_map=compile_piece(eager.feature_map, feature_map_natively),
        downsample=compile_piece(eager.downsample, merge_patches_natively),
    )
