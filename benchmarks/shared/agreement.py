"""How far the outputs of two routes differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

# Error of a token (its C values, relative to their norm): what half of them, and 99 of 100, may
# have.
MEDIAN = {"fp32": 1e-4, "fp16": 3e-2, "bf16": 1e-1}
MOST = {"fp32": 1e-3, "fp16": 1e-1, "bf16": 4e-1}
# Where scores are close, and random weights make them so, rounding to 16 bits decides which of two
# windows is kept; attention spreads the difference from block to block.
MEDIAN_OF_SPARSE = {"fp32": 1e-4, "fp16": 1e-1, "bf16": 3e-1}


@dataclass(frozen=True)
class Agreement:
    """Errors of tokens, relative to their norm, worst of the output maps.

    Attributes:
        median: half of the tokens are below.
        most: 99 of 100 are.
        largest: of all.
        absolute: the largest difference of two values, not relative to anything.
    """

    median: float
    most: float
    largest: float
    absolute: float

    def holds(self, dtype: str, dense: bool) -> bool:
        """Whether it is what this precision (``fp32``, ``fp16``, ``bf16``) allows."""
        if dense or dtype == "fp32":
            return self.median <= MEDIAN[dtype] and self.most <= MOST[dtype]
        return self.median <= MEDIAN_OF_SPARSE[dtype]


def agreement(got: Sequence[Tensor], expected: Sequence[Tensor]) -> Agreement:
    """Compare feature maps (B, C, H, W) in pairs."""
    worst = [0.0, 0.0, 0.0, 0.0]
    for a, b in zip(got, expected, strict=True):
        a, b = a.float(), b.float()
        error = (a - b).norm(dim=1).flatten() / b.norm(dim=1).flatten().clamp_min(1e-6)
        # NaN must not pass for small
        error = error.nan_to_num(nan=float("inf")).sort().values
        last = len(error) - 1
        found = [error[int(share * last)].item() for share in (0.5, 0.99, 1.0)]
        found.append((a - b).abs().nan_to_num(nan=float("inf")).max().item())
        worst = [max(pair) for pair in zip(worst, found, strict=True)]
    return Agreement(*worst)
