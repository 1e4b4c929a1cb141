"""NSGA-II: the whole front of score against latency, in one study."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from sparsevit.errors import UserError
from sparsevit.search.samplers.base import SpaceSampler
from sparsevit.search.seen import Seen
from sparsevit.sparsity import Configuration, Space

Point = tuple[float, float]


class NSGA2Sampler(SpaceSampler):
    """NSGA-II (Deb et al., 2002, A fast and elitist multiobjective genetic algorithm).

    The higher the score and the lower the latency, the better; neither is traded for the other.
    Every ``population`` candidates are a generation. From the survivors so far and a new generation
    the best ``population`` survive: front by front, of the last one those with the most room around
    them. The next are bred from survivors that won a tournament of two, knob by knob from either
    parent, then mutated, and sorted within each group as in the paper's evolution. A candidate that
    has no score from all images does not survive; none is drawn twice while there are others.

    Args:
        space: the knobs.
        seed: of the random numbers.
        population: candidates in a generation.
        crossover_prob: chance of a child to have two parents.
        mutation_prob: chance of each knob to be drawn anew; one of all knobs on average where None.
        aim: ``interval`` and ``predict``, see :class:`SpaceSampler`.

    Raises:
        UserError: where the options do not fit.
    """

    name = "nsga2"

    def __init__(
        self,
        space: Space,
        seed: int = 0,
        *,
        population: int = 24,
        crossover_prob: float = 0.9,
        mutation_prob: float | None = None,
        **aim: Any,
    ) -> None:
        super().__init__(space, seed, **aim)
        if population < 2:
            raise UserError(
                f"A population of {population} is too small for NSGA-II.", "Give 2 or more."
            )
        self.population = population
        self.crossover_prob = crossover_prob
        self.mutation_prob = 1 / len(space) if mutation_prob is None else mutation_prob
        for option, value in (
            ("crossover", self.crossover_prob),
            ("mutation", self.mutation_prob),
        ):
            if not 0 <= value <= 1:
                raise UserError(
                    f"The {option} probability is {value:g}.", "Give a value between 0 and 1."
                )

    def describe(self) -> dict[str, Any]:
        return {
            **super().describe(),
            "population": self.population,
            "crossover_prob": self.crossover_prob,
            "mutation_prob": self.mutation_prob,
        }

    def draw(self, rng: random.Random, before: Sequence[Seen]) -> Configuration | None:
        complete = len(before) // self.population * self.population
        if not all(seen.settled for seen in before[:complete]):
            return None
        survivors = self._survivors(before[:complete])
        if len(survivors) < 2:
            return self.fresh(rng, before, lambda: self.space.sample(rng))
        return self.fresh(rng, before, lambda: self._child(rng, survivors))

    def _survivors(self, before: Sequence[Seen]) -> list[Configuration]:
        """Those that breed, the fittest first."""
        survivors: dict[Configuration, Point] = {}
        for start in range(0, len(before), self.population):
            for seen in before[start : start + self.population]:
                if seen.scored and seen.score is not None and seen.latency_ms is not None:
                    survivors.setdefault(seen.configuration, (seen.score, -seen.latency_ms))
            fittest = by_fitness(list(survivors.values()))[: self.population]
            members = list(survivors.items())
            survivors = dict(members[index] for index in fittest)
        return list(survivors)

    def _child(self, rng: random.Random, survivors: Sequence[Configuration]) -> Configuration:
        parents = [self._winner(rng, survivors) for _ in range(2)]
        if rng.random() >= self.crossover_prob:
            parents = parents[:1]
        fresh = self.space.sample(rng)
        return self.space.sorted(
            {
                name: fresh[name]
                if rng.random() < self.mutation_prob
                else rng.choice(parents)[name]
                for name in self.space.names
            }
        )

    def _winner(self, rng: random.Random, survivors: Sequence[Configuration]) -> Configuration:
        return survivors[min(rng.randrange(len(survivors)) for _ in range(2))]


def by_fitness(points: Sequence[Point]) -> list[int]:
    """Indices of the points, the fittest first: front by front, within one by the room around.

    Args:
        points: both coordinates the higher the better.
    """
    order: list[int] = []
    for front in fronts(points):
        room = _room([points[index] for index in front])
        order += [front[place] for place in sorted(range(len(front)), key=lambda p: -room[p])]
    return order


def fronts(points: Sequence[Point]) -> list[list[int]]:
    """Indices of the points by front: the first is beaten by none, the second only by it, ...

    A point is beaten by one that is better in a coordinate and worse in none.
    """
    left = list(range(len(points)))
    found = []
    while left:
        front = [
            index
            for index in left
            if not any(_beats(points[other], points[index]) for other in left)
        ]
        found.append(front)
        left = [index for index in left if index not in front]
    return found


def _beats(one: Point, other: Point) -> bool:
    return one != other and one[0] >= other[0] and one[1] >= other[1]


def _room(front: Sequence[Point]) -> list[float]:
    """The crowding distance of each point: how far apart its neighbours are; ends have the most."""
    room = [0.0] * len(front)
    for axis in range(2):
        order = sorted(range(len(front)), key=lambda index: front[index][axis])
        spread = front[order[-1]][axis] - front[order[0]][axis]
        room[order[0]] = room[order[-1]] = float("inf")
        if spread == 0:
            continue
        for before, index, after in zip(order, order[1:], order[2:], strict=False):
            room[index] += (front[after][axis] - front[before][axis]) / spread
    return room
