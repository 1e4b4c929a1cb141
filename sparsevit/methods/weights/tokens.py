"""SViTE+: a learned score says which tokens a vision transformer goes on with."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

HOTTEST, COLDEST = 10.0, 0.1
"""Temperature at the first and the last iteration of a training (SViTE, section 3.3)."""


class TokenSelector(nn.Linear):
    """Keeps an image's best tokens by a linear score of each, before the first block.

    In training the best k are chosen with Gumbel noise, and the gradient goes through the softmax
    that they were chosen from (straight-through: the tokens themselves are left as they are). At
    inference they are the best k without noise. Other tokens are gone for all blocks, always.

    Args:
        width: C, of a token.
        extra: tokens before those of the image, which are always kept: of the class, and of
            distillation where there is one.

    Attributes:
        ratio: share of the image's tokens that is left out.
        temperature: of the softmax, in training.
        seed: of the noise of a forward in training; None for PyTorch's own random numbers.
    """

    def __init__(self, width: int, extra: int) -> None:
        super().__init__(width, 1)
        self.extra = extra
        self.ratio = 0.0
        self.temperature = HOTTEST
        self.seed: int | None = None

    def anneal(self, progress: float, *draw: object) -> None:
        """Set the temperature of an iteration, and what its noise follows from.

        Args:
            progress: share of the training that is done, 0 to 1.
            *draw: seed, iteration and rank: the same ones draw the same noise.
        """
        self.temperature = HOTTEST + (COLDEST - HOTTEST) * progress
        digest = hashlib.sha256(repr(draw).encode()).digest()
        self.seed = int.from_bytes(digest[:7], "big")

    def forward(self, x: Tensor) -> Tensor:
        """(B, extra + N, C) tokens to (B, extra + k, C), in their order."""
        if not self.ratio:
            return x
        tokens = x[:, self.extra :]
        scores = super().forward(tokens).squeeze(-1).float()
        k = max(1, scores.shape[1] - round(self.ratio * scores.shape[1]))
        if not self.training:
            index = scores.topk(k, dim=1).indices.sort(dim=1).values
            return torch.cat([x[:, : self.extra], _rows(tokens, index)], dim=1)
        generator = None if self.seed is None else Generator(x.device).manual_seed(self.seed)
        noise = torch.empty_like(scores).exponential_(generator=generator)
        gumbel = -noise.clamp_min(torch.finfo(noise.dtype).tiny).log()
        soft = ((F.log_softmax(scores, dim=1) + gumbel) / self.temperature).softmax(dim=1)
        index = soft.topk(k, dim=1).indices.sort(dim=1).values
        share = soft.gather(1, index)
        one = (1 + (share - share.detach())).to(x.dtype).unsqueeze(-1)
        return torch.cat([x[:, : self.extra], _rows(tokens, index) * one], dim=1)

    def before_block(self, block: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """A forward pre-hook of the first block."""
        return (self(args[0]), *args[1:])


def _rows(tokens: Tensor, index: Tensor) -> Tensor:
    """(B, N, C) by (B, k) to (B, k, C)."""
    return tokens.gather(1, index.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
