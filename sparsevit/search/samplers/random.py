"""Random configurations: what every other sampler has to beat."""

from __future__ import annotations

import random
from collections.abc import Sequence

from sparsevit.search.samplers.base import SpaceSampler
from sparsevit.search.seen import Seen
from sparsevit.sparsity import Configuration


class RandomSampler(SpaceSampler):
    """Draws every knob uniformly from its choices, then sorts within each group."""

    name = "random"

    def draw(self, rng: random.Random, before: Sequence[Seen]) -> Configuration:
        return self.within(rng, lambda: self.space.sample(rng))
