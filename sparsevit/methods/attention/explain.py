"""What predictors choose, for people to look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsevit.methods.attention.forward import (
    coefficients,
    kept_keys,
    kept_tiles,
    sum_tiles,
    tile_mask,
)
from sparsevit.methods.attention.predictor import MaskPredictor


class Explanation(TypedDict):
    """What :func:`explain` gives; lists have an entry for each layer.

    Attributes:
        logits: (B, classes).
        masks: (B, H, N, N) bool, which keys (last) each query attends to; pruned tokens neither
            attend nor are attended to.
        coefficients: (B, H, N - 1, K), what each patch's query weighs the basis by.
        sparsity: the share of zeros in ``"basis"``, ``"coefficients"`` and ``"masks"``.
    """

    logits: Tensor
    masks: list[Tensor]
    coefficients: list[Tensor]
    sparsity: dict[str, list[float]]


@torch.no_grad()
def explain(model: nn.Module, call: Callable[[], Tensor]) -> Explanation:
    """What the predictors of a model choose in a forward.

    Args:
        model: with predictors.
        call: runs it, and gives its logits.
    """
    predictors = [one for one in model.modules() if isinstance(one, MaskPredictor)]
    with watched(predictors) as seen:
        logits = call()
    return {
        "logits": logits,
        "masks": seen.masks,
        "coefficients": seen.coefficients,
        "sparsity": seen.sparsity,
    }


@contextmanager
def watched(predictors: Iterable[MaskPredictor]) -> Iterator[Seen]:
    """What these choose within, layer by layer."""
    predictors, seen = list(predictors), Seen()
    for one in predictors:
        one.note = seen.note
    try:
        yield seen
    finally:
        for one in predictors:
            one.note = None


class Seen:
    """What predictors chose, layer by layer; see :class:`Explanation`."""

    def __init__(self) -> None:
        self.masks: list[Tensor] = []
        self.coefficients: list[Tensor] = []
        self.sparsity: dict[str, list[float]] = {"basis": [], "coefficients": [], "masks": []}

    def note(
        self, predictor: MaskPredictor, q: Tensor, k: Tensor, tokens_Bn: Tensor | None
    ) -> None:
        """Add a layer: queries and keys (B, H, n, d) of its tokens."""
        N, n = predictor.num_tokens, q.shape[2]
        choice = predictor.choice(n)
        weights = coefficients(*predictor.reduced(q, k, tokens_Bn), choice)
        basis = predictor.basis(tokens_Bn)
        if predictor.is_dense(n):
            mask = torch.ones_like(weights[..., :1], dtype=torch.bool).expand(-1, -1, -1, n)
        elif choice.blocks:
            tiles = kept_tiles(weights, sum_tiles(basis), choice.tiles(n))
            mask = tile_mask(tiles, n - 1, n)
        else:
            mask = kept_keys(weights, basis, choice)
        mask = F.pad(mask, (0, 0, 1, 0), value=True)
        if tokens_Bn is not None:
            at = tokens_Bn[:, None, :, None]
            rows = mask.new_zeros(*mask.shape[:2], N, n)
            rows.scatter_(2, at.expand_as(mask), mask)
            mask = mask.new_zeros(*mask.shape[:2], N, N)
            mask.scatter_(3, at.transpose(2, 3).expand_as(rows), rows)
            all_rows = weights.new_zeros(*weights.shape[:2], N - 1, weights.shape[-1])
            weights = all_rows.scatter_(2, (at[:, :, 1:] - 1).expand_as(weights), weights)
        self.masks.append(mask)
        self.coefficients.append(weights)
        for name, one in (("basis", basis), ("coefficients", weights), ("masks", mask)):
            self.sparsity[name].append(1 - float(one.count_nonzero()) / one.numel())
