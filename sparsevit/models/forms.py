"""A :class:`SparseSwin` with a compiled forward, and one to be exported."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch

from sparsevit.methods.windows.routes.compiled import compiled_route
from sparsevit.methods.windows.routes.exported import exported_route
from sparsevit.models.native_patches import (
    embed_natively,
    feature_map_natively,
    merge_patches_natively,
)
from sparsevit.models.sparsevit import Pieces, SparseSwin


def exported(backbone: SparseSwin) -> SparseSwin:
    """The backbone in the form to export, for inference alone.

    Args:
        backbone: is left as it is; parameters and submodules are shared, ratios are not.
    """
    return _twin(backbone, Pieces(route=exported_route()))


def compiled(
    backbone: SparseSwin, pieces: Pieces | None = None, frozen: bool = False
) -> SparseSwin:
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
    return _twin(backbone, pieces or default_pieces(frozen))


def _twin(backbone: SparseSwin, pieces: Pieces) -> SparseSwin:
    twin = copy.copy(backbone)
    twin.pieces = pieces
    return twin


@lru_cache(maxsize=2)
def default_pieces(frozen: bool) -> Pieces:
    """The pieces compiled with torch's defaults."""
    return compiled_pieces(frozen=frozen)


def compiled_pieces(frozen: bool = False, **options: Any) -> Pieces:
    """The pieces of a forward, to be compiled when they are called.

    Args:
        frozen, **options: see
            :func:`~sparsevit.methods.windows.routes.compiled.compiled_route`.
    """

    def compile_piece(
        piece: Callable[..., Any], natively: Callable[..., Any]
    ) -> Callable[..., Any]:
        code = torch.compile(piece, dynamic=False, **options)
        if not frozen:
            return code

        def run(*inputs: Any) -> Any:
            found = natively(*inputs)
            return code(*inputs) if found is None else found

        return run

    eager = Pieces()
    return Pieces(
        route=compiled_route(frozen, **options),
        embed=compile_piece(eager.embed, embed_natively),
        feature_map=compile_piece(eager.feature_map, feature_map_natively),
        downsample=compile_piece(eager.downsample, merge_patches_natively),
    )
