"""Samplers over a space of configurations, as Optuna samplers.

They hold no state: what to draw next follows from the study's trials, and the random numbers from
the seed and the number of the candidate. So a search that was killed goes on as if it had not been.
"""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from sparsevit.errors import UserError
from sparsevit.search.seen import Seen, see
from sparsevit.search.trial import is_counted
from sparsevit.sparsity import Configuration, Knob, Space


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


class SpaceSampler(BaseSampler):
    """A sampler that draws whole configurations of a space.

    Args:
        space: the knobs.
        seed: of the random numbers.
    """

    name: str

    def __init__(self, space: Space, seed: int = 0) -> None:
        self.space = space
        self.seed = seed

    @abstractmethod
    def draw(self, rng: random.Random, before: Sequence[Seen]) -> Configuration | None:
        """The next candidate, or None where it depends on one before that is not settled yet.

        What is drawn must not depend on which of those before are settled: None, or what would be
        drawn if all of them were. See :mod:`sparsevit.search.seen`.

        Args:
            rng: fresh for this candidate.
            before: the candidates before it, in order.
        """

    def rng(self, number: int) -> random.Random:
        """The random numbers for a candidate, from 0."""
        return random.Random(f"{self.seed}:{number}")

    def describe(self) -> dict[str, Any]:
        """What sets its draws apart, as plain data; a study is not continued where it differs."""
        return {"name": self.name, "seed": self.seed}

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return distributions(self.space)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        before = [t for t in study.get_trials(deepcopy=False) if t.number < trial.number]
        # A trial that runs beside this one is a candidate too; one that was cut short is none, so
        # that the trial which takes its place draws the same configuration.
        number = sum(t.state != TrialState.FAIL for t in before)
        counted = [see(t, self.space) for t in before if is_counted(t)]
        drawn = self.draw(self.rng(number), counted)
        assert drawn is not None, "everything that it was shown is settled"
        return drawn.to_dict()

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        raise ValueError(f"{param_name!r} is not a knob of the space that is searched.")


class RandomSampler(SpaceSampler):
    """Draws every knob uniformly from its choices, then sorts within each group."""

    name = "random"

    def draw(self, rng: random.Random, before: Sequence[Seen]) -> Configuration:
        return self.space.sample(rng)


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
    ) -> None:
        super().__init__(space, seed)
        if not 2 <= parents <= population:
            raise UserError(
                f"An evolution with {parents} parents in a population of {population}.",
                "It needs 2 parents or more, and no more than its population.",
            )
        for option, value in (("probability", mutation_prob), ("share", mutation_share)):
            if not 0 <= value <= 1:
                raise UserError(f"A mutation {option} of {value:g}.", "It lies within 0 and 1.")
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
            return self.space.sample(rng)
        bred_by_mutation = int(self.population * self.mutation_share)
        if most < bred_by_mutation:
            return self._mutate(rng, rng.choice(parents))
        if fewest < bred_by_mutation:
            return None
        return self._crossover(rng, rng.sample(parents, 2))

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


SAMPLERS: dict[str, type[SpaceSampler]] = {
    sampler.name: sampler for sampler in (EvolutionSampler, RandomSampler)
}


def make_sampler(
    name: str,
    space: Space,
    seed: int = 0,
    *,
    interval: tuple[float, float] | None = None,
    predict: Callable[[Configuration], float] | None = None,
    sensitivity: Any = None,
    **options: Any,
) -> SpaceSampler:
    """A sampler by name.

    Args:
        name: ``evolution`` or ``random``.
        interval: of the latency in milliseconds, for samplers that aim at it.
        predict: latency of a configuration in milliseconds, for the same.
        sensitivity: of score and latency to each knob, for samplers that start from it.
        options: further arguments of the sampler's class.

    Raises:
        UserError: where there is none of that name, or its options do not fit.
    """
    if name not in SAMPLERS:
        raise UserError(f"There is no sampler {name!r}.", f"Take one of {', '.join(SAMPLERS)}.")
    return SAMPLERS[name](space, seed, **options)
