"""What all samplers share: they draw whole configurations of a space, and hold no state.

What to draw next follows from the candidates before, and the random numbers from the seed and the
number of the candidate. So a search that was killed goes on as if it had not been.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from sparsevit.search.samplers.feasible import SMALL_SPACE, Feasible, Predict, nearest
from sparsevit.search.seen import Seen
from sparsevit.sparsity import Configuration, Knob, Space

_PROPOSALS = 50


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """The knobs as Optuna's distributions: stepped floats, or categories where steps differ."""
    return {knob.name: _distribution(knob) for knob in space.knobs}


def _distribution(knob: Knob) -> BaseDistribution:
    low, high = knob.choices[0], knob.choices[-1]
    if len(knob.choices) == 1:
        return FloatDistribution(low, high)
    step = round((high - low) / (len(knob.choices) - 1), 10)
    stepped = tuple(round(low + index * step, 10) for index in range(len(knob.choices)))
    if stepped == knob.choices:
        return FloatDistribution(low, high, step=step)
    return CategoricalDistribution(knob.choices)


class SpaceSampler(ABC):
    """A sampler that draws whole configurations of a space.

    Args:
        space: the knobs.
        seed: of the random numbers.
        interval: lowest and highest latency in milliseconds to draw within.
        predict: latency of a configuration in milliseconds, always the same. With both, no
            configuration outside the interval is drawn, unless there is none within.
    """

    name: str

    def __init__(
        self,
        space: Space,
        seed: int = 0,
        *,
        interval: tuple[float, float] | None = None,
        predict: Predict | None = None,
    ) -> None:
        self.space = space
        self.seed = seed
        self.interval = interval
        self.feasible = None
        if interval is not None and predict is not None:
            self.feasible = Feasible(space, interval, predict)

    @abstractmethod
    def draw(self, rng: random.Random, before: Sequence[Seen]) -> Configuration | None:
        """The next candidate, or None where it depends on one before that is not settled yet.

        What is drawn must not depend on which of those before are settled: None, or what would be
        drawn if all of them were. See :mod:`sparsevit.search.seen`.

        Args:
            rng: fresh for this candidate.
            before: the candidates before it, in order.
        """

    def fresh(
        self, rng: random.Random, before: Sequence[Seen], propose: Callable[[], Configuration]
    ) -> Configuration:
        """As :meth:`within`, and none that was drawn before while there are others.

        Where none of many proposals is new, one that is new and near to the last.
        """
        drawn = {seen.configuration for seen in before}

        def is_new(configuration: Configuration) -> bool:
            known_outside = self.feasible is not None and configuration not in self.feasible
            return configuration not in drawn and not known_outside

        for _ in range(_PROPOSALS):
            proposed = propose()
            if is_new(proposed):
                return proposed
        if self.space.size() <= SMALL_SPACE:
            new = nearest(rng, proposed, filter(is_new, self.space.every()))
            return self.within(rng, propose) if new is None else new
        for _ in range(_PROPOSALS):
            proposed = self.within(rng, lambda: self.space.sample(rng))
            if proposed not in drawn:
                break
        return proposed

    def settled(self, before: Sequence[Seen], lag: int = 0) -> list[Seen] | None:
        """The candidates before but the last ``lag``; None where one of them is not settled."""
        known = list(before[: max(0, len(before) - lag)])
        return known if all(seen.settled for seen in known) else None

    def rng(self, number: int) -> random.Random:
        """The random numbers for a candidate, from 0."""
        return random.Random(f"{self.seed}:{number}")

    def within(self, rng: random.Random, propose: Callable[[], Configuration]) -> Configuration:
        """The first of what is proposed that lies in the interval, as far as that is known."""
        return propose() if self.feasible is None else self.feasible.draw(rng, propose)

    def describe(self) -> dict[str, Any]:
        """What sets its draws apart, as plain data; a study is not continued where it differs."""
        return {"name": self.name, "seed": self.seed}
