"""The paper's evolution."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from sparsevit.errors import UserError
from sparsevit.search.samplers.base import SpaceSampler
from sparsevit.search.seen import Seen
from sparsevit.sparsity import Configuration, Space


class EvolutionSampler(SpaceSampler):
    """The evolution of the paper's ``tools/search.py``.

    Candidates are random until ``population`` feasible ones were found. Then the best ``parents``
    of them are kept, the population is emptied and filled anew: the first ``mutation_share`` of it
    by mutation of one parent, the rest by crossover of two; and so on. A candidate outside the
    latency interval does not enter the population; one that was drawn before does, with the score
    that it had.

    Args:
        space: the knobs.
        seed: of the random numbers.
        population: feasible candidates in a generation.
        parents: how many of a generation breed the next.
        mutation_prob: chance of each knob to be drawn anew in a mutation.
        mutation_share: share of a generation that is bred by mutation.
        aim: ``interval`` and ``predict``, see :class:`SpaceSampler`. What is not drawn for them
            would not have entered the population.

    Raises:
        UserError: where the options do not fit each other.
    """

    name = "evolution"

    def __init__(
        self,
        space: Space,
        seed: int = 0,
        *,
        population: int = 100,
        parents: int = 25,
        mutation_prob: float = 0.1,
        mutation_share: float = 0.5,
        **aim: Any,
    ) -> None:
        super().__init__(space, seed, **aim)
        if not 2 <= parents <= population:
            raise UserError(
                f"The evolution cannot have {parents} parents in a population of {population}.",
                "Give from 2 parents to as many as the population (--parents, --population).",
            )
        for option, value in (("probability", mutation_prob), ("share", mutation_share)):
            if not 0 <= value <= 1:
                raise UserError(
                    f"The mutation {option} is {value:g}.", "Give a value between 0 and 1."
                )
        self.population = population
        self.parents = parents
        self.mutation_prob = mutation_prob
        self.mutation_share = mutation_share

    def describe(self) -> dict[str, Any]:
        return {
            **super().describe(),
            "population": self.population,
            "parents": self.parents,
            "mutation_prob": self.mutation_prob,
            "mutation_share": self.mutation_share,
        }

    def draw(self, rng: random.Random, before: Sequence[Seen]) -> Configuration | None:
        generation = self._generation(before)
        if generation is None:
            return None
        parents, fewest, most = generation
        if not parents:
            return self.within(rng, lambda: self.space.sample(rng))
        bred_by_mutation = int(self.population * self.mutation_share)
        if most < bred_by_mutation:
            return self.within(rng, lambda: self._mutate(rng, rng.choice(parents)))
        if fewest < bred_by_mutation:
            return None
        return self.within(rng, lambda: self._crossover(rng, rng.sample(parents, 2)))

    def _generation(self, before: Sequence[Seen]) -> tuple[list[Configuration], int, int] | None:
        """The parents of the present generation (best first), and how many it has bred so far.

        Of those bred some may not be known to be feasible: at least and at most so many are. None
        where the generation may be complete, or is, and the parents of the next are not known.
        """
        parents: list[Configuration] = []
        population: list[Seen] = []
        unknown = 0
        for seen in before:
            if seen.feasible is False:
                continue
            unknown += seen.feasible is None
            population.append(seen)
            if len(population) < self.population:
                continue
            if unknown or not all(member.settled for member in population):
                return None
            # Stable: of equal scores the earlier comes first, as in the reference.
            best = sorted(population, key=_standing, reverse=True)[: self.parents]
            parents = [member.configuration for member in best]
            population = []
        return parents, len(population) - unknown, len(population)

    def _mutate(self, rng: random.Random, parent: Configuration) -> Configuration:
        fresh = self.space.sample(rng).to_dict()
        for name in self.space.names:
            if rng.random() > self.mutation_prob:
                fresh[name] = parent[name]
        return self.space.sorted(fresh)

    def _crossover(self, rng: random.Random, pair: Sequence[Configuration]) -> Configuration:
        return self.space.sorted({name: rng.choice(pair)[name] for name in self.space.names})


def _standing(seen: Seen) -> tuple[float, float]:
    """Who was scored on more images stands before who was stopped early; then the score."""
    assert seen.score is not None
    return seen.share, seen.score
