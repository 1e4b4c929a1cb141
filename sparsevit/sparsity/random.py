"""Random configurations, a new one for every iteration of a training."""

from __future__ import annotations

import random

from torch import distributed as dist
from torch import nn

from sparsevit.sparsity.configuration import Configuration
from sparsevit.sparsity.handle import SparsityHandle
from sparsevit.sparsity.space import Space


def configuration_at(
    space: Space, seed: int, iteration: int, rank: int | None = None
) -> Configuration:
    """The configuration of one iteration of sparsity-aware adaptation (SparseViT, section 3.2).

    It depends on nothing but its arguments, so a run that is resumed draws what it would have
    drawn.

    Args:
        space: what to draw from.
        seed: of the run.
        iteration: counted from 0.
        rank: of the process, or None for one configuration for all.
    """
    return space.sample(random.Random(f"{seed}/{iteration}/{rank}"))


class RandomSparsity:
    """Sparsity-aware adaptation in your own training loop: call it before every iteration.

    It draws the same ratios as ``sparsevit adapt`` with the same seed.

    Args:
        model: a model with parts that can be skipped, or a wrapper of one, such as DDP.
        seed: seed of the draws.
        rank: rank of the process; None for that of ``torch.distributed``, or 0 without it.
        shared: draw one configuration for all processes, rather than one for each.

    Attributes:
        step: the iteration that the next call draws for, counted from 0; set it to resume.

    Raises:
        UserError: nothing in the model can be skipped.
    """

    def __init__(
        self, model: nn.Module, seed: int = 0, rank: int | None = None, *, shared: bool = False
    ) -> None:
        self.step = 0
        self._handle = SparsityHandle(model)
        self._seed = seed
        if rank is None:
            rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
        self._rank = None if shared else rank

    def __call__(self) -> Configuration:
        """Set the model to the configuration of this iteration, and count it."""
        drawn = configuration_at(self._handle.space, self._seed, self.step, self._rank)
        self.step += 1
        return self._handle.set(drawn)

    def dense(self) -> Configuration:
        """Set the model to ratio 0 everywhere, to validate or to save it."""
        return self._handle.set(self._handle.space.dense())
