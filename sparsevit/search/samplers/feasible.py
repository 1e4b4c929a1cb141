"""Drawing within the latency interval, where latency can be predicted."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from functools import cached_property

from sparsevit.sparsity import Configuration, Space

Predict = Callable[[Configuration], float]

# Up to that many configurations a space is looked through as a whole.
SMALL_SPACE = 20_000
_PROPOSALS = 200
_WALKS = 20


class Feasible:
    """The configurations of a space that are predicted to lie in a latency interval.

    Args:
        space: the knobs.
        interval: lowest and highest latency in milliseconds, both included.
        predict: milliseconds of a configuration, always the same.
    """

    def __init__(self, space: Space, interval: tuple[float, float], predict: Predict) -> None:
        self.space = space
        self.interval = interval
        self.predict = predict

    def __contains__(self, configuration: Configuration) -> bool:
        return self.excess(configuration) == 0

    def excess(self, configuration: Configuration) -> float:
        """Milliseconds to the interval; 0 within it."""
        low, high = self.interval
        latency_ms = self.predict(configuration)
        return max(0.0, low - latency_ms, latency_ms - high)

    @cached_property
    def all(self) -> tuple[Configuration, ...] | None:
        """Every configuration in the interval; None where the space is too large to tell."""
        if self.space.size() > SMALL_SPACE:
            return None
        return tuple(c for c in self.space.every() if c in self)

    def draw(self, rng: random.Random, propose: Callable[[], Configuration]) -> Configuration:
        """The first configuration proposed that lies in the interval.

        Where none of many does, one of the interval that is near to the last.
        """
        for _ in range(_PROPOSALS):
            proposed = propose()
            if proposed in self:
                return proposed
        return self.nearest(rng, proposed)

    def nearest(self, rng: random.Random, configuration: Configuration) -> Configuration:
        """A configuration of the interval that is near; one close to it where there is none.

        In a space that can be looked through it is the nearest, summed over the ratios. In a
        larger one it is where steps of one knob, or of two against each other, come into the
        interval.
        """
        if self.all is not None:
            near = nearest(rng, configuration, self.all)
            return configuration if near is None else near
        best = start = configuration
        for _ in range(_WALKS):
            found = self._walk(rng, start)
            if found in self:
                return found
            best = min(best, found, key=self.excess)
            start = self.space.sample(rng)
        return best

    def _walk(self, rng: random.Random, configuration: Configuration) -> Configuration:
        """Steps towards the interval, until it is reached or no step comes nearer."""
        excess = self.excess(configuration)
        while excess > 0:
            steps = neighbours(self.space, configuration)
            rng.shuffle(steps)
            step = min(steps, key=self.excess, default=configuration)
            if self.excess(step) >= excess:
                steps = [two for one in steps for two in neighbours(self.space, one)]
                step = min(steps, key=self.excess, default=configuration)
            if self.excess(step) >= excess:
                break
            configuration, excess = step, self.excess(step)
        return configuration


def nearest(
    rng: random.Random, configuration: Configuration, among: Iterable[Configuration]
) -> Configuration | None:
    """The nearest of some configurations, summed over the ratios; None where there are none."""
    return min(
        among, key=lambda other: (_distance(other, configuration), rng.random()), default=None
    )


def neighbours(space: Space, configuration: Configuration) -> list[Configuration]:
    """Configurations that differ in one knob, by one choice up or down."""
    found = []
    for knob in space.knobs:
        place = knob.choices.index(configuration[knob.name])
        for other in (place - 1, place + 1):
            if not 0 <= other < len(knob.choices):
                continue
            changed = {**configuration, knob.name: knob.choices[other]}
            if changed in space:
                found.append(Configuration(changed))
    return found


def _distance(one: Configuration, other: Configuration) -> float:
    return round(sum(abs(ratio - other[name]) for name, ratio in one.items()), 6)
