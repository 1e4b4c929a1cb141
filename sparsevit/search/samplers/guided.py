"""Our own: a model of the score says which configuration of the interval to score next."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sparsevit.search.samplers.base import SpaceSampler
from sparsevit.search.samplers.feasible import SMALL_SPACE, neighbours
from sparsevit.search.samplers.latency_fit import LatencyFit
from sparsevit.search.samplers.surrogate import ScoreModel, expected_improvement
from sparsevit.search.seen import Seen
from sparsevit.sparsity import Configuration, Space

# Configurations that are compared for a draw, and the best scored ones whose neighbours are.
_POOL = 1500
_RANDOM = 400
_LEADERS = 8
# Of the best chance to lie in the interval, where latency is not predicted.
_SURE_ENOUGH = 0.5
# The model's parameters are fitted anew after so many more scores.
_REFIT = 5

Effect = Callable[[Configuration], Sequence[float]]


class GuidedSampler(SpaceSampler):
    """Draws what is expected to improve most on the best score, by a model of the score.

    The model is a Gaussian process (:class:`ScoreModel`) of all scores so far. It begins with
    ``startup`` configurations that lie far apart in the interval, and with the scores that are
    known from elsewhere, such as those of a sensitivity sweep. Then every draw takes, of many
    configurations in the interval (all, in a small space; else random ones, and neighbours of the
    best, one knob or two against each other), the one with the highest expected improvement. Where
    latency is not predicted, a linear fit of the latencies measured so far says how likely each
    lies in the interval, and that chance is a factor. Nothing is drawn twice.

    Args:
        space: the knobs.
        seed: of the random numbers.
        startup: scored candidates before the model is asked; by the number of knobs where None.
        sensitivity: scores known beforehand, by configuration; these need not be in the interval,
            nor of the space.
        effect: numbers that say what a configuration comes to in the model, such as the windows
            kept. Of configurations with the same effect one is drawn only. The ratios where None.
        lag: of so many candidates before it a draw does not need the results, so that as many
            workers and one more are busy.
        aim: ``interval`` and ``predict``, see :class:`SpaceSampler`.
    """

    name = "guided"

    def __init__(
        self,
        space: Space,
        seed: int = 0,
        *,
        startup: int | None = None,
        sensitivity: Mapping[Configuration, float] | None = None,
        effect: Effect | None = None,
        lag: int = 0,
        **aim: Any,
    ) -> None:
        super().__init__(space, seed, **aim)
        self.startup = len(space) + 2 if startup is None else startup
        self.sensitivity = dict(sensitivity or {})
        self.effect = effect or _ratios
        self.lag = lag
        ends_2D = _matrix([self.effect(space.min()), self.effect(space.max())])
        self._low_D = ends_2D.min(0).values
        self._range_D = (ends_2D.max(0).values - self._low_D).clamp_min(1e-9)
        self._fitted: tuple[list[tuple[Configuration, float]], ScoreModel] | None = None

    def describe(self) -> dict[str, Any]:
        return {
            **super().describe(),
            "startup": self.startup,
            "lag": self.lag,
            "sensitivity": sorted([str(c), score] for c, score in self.sensitivity.items()),
        }

    def draw(self, rng: random.Random, before: Sequence[Seen]) -> Configuration | None:
        known = self.settled(before, self.lag)
        if known is None:
            return None
        scores = {**self.sensitivity, **_scores(known)}
        choices, left = self._pool(rng, before, known)
        if not left:
            return self.fresh(rng, before, lambda: self.space.sample(rng))
        x_MD = self._scaled(choices.effects_MD[left])
        if len(scores) < self.startup:
            gain_M = self._distance(x_MD, [*scores, *(seen.configuration for seen in before)])
        else:
            gain_M = self._improvement(x_MD, scores, known, before)
        gain_M = gain_M * self._chance(x_MD, known)
        best = torch.nonzero(gain_M >= gain_M.max()).flatten().tolist()
        return choices.configurations[left[rng.choice(best)]]

    # --- what there is to choose from ---------------------------------------------------------

    def _pool(
        self, rng: random.Random, before: Sequence[Seen], known: Sequence[Seen]
    ) -> tuple[_Choices, list[int]]:
        """Configurations, one of each effect, and the places of those that may be drawn."""
        choices = self._everything or _Choices(self._some(rng, known), self.effect)
        taken = {tuple(self.effect(seen.configuration)) for seen in before}
        left = [place for place, effect in enumerate(choices.effects) if effect not in taken]
        if len(left) > _POOL:
            left = sorted(rng.sample(left, _POOL))
        return choices, left

    @cached_property
    def _everything(self) -> _Choices | None:
        """Every configuration that may lie in the interval; None of a large space."""
        if self.space.size() > SMALL_SPACE:
            return None
        every = self.space.every() if self.feasible is None else self.feasible.all or ()
        return _Choices(every, self.effect)

    def _some(self, rng: random.Random, known: Sequence[Seen]) -> list[Configuration]:
        """Random configurations, and those around the best, one knob or two moved."""
        some = [self.within(rng, lambda: self.space.sample(rng)) for _ in range(_RANDOM)]
        ranked = sorted(_scores(known).items(), key=lambda item: -item[1])
        for leader, _ in ranked[:_LEADERS]:
            near = neighbours(self.space, leader)
            some += near
            for step in near:
                some += neighbours(self.space, step)
        if self.feasible is None:
            return some
        return [configuration for configuration in some if configuration in self.feasible]

    def _features(self, configurations: Iterable[Configuration]) -> Tensor:
        """(N, D), each effect as a share of its range."""
        return self._scaled(_matrix([self.effect(c) for c in configurations]))

    def _scaled(self, effects_ND: Tensor) -> Tensor:
        return (effects_ND - self._low_D) / self._range_D

    # --- how good each is ---------------------------------------------------------------------

    def _distance(self, x_MD: Tensor, drawn: Sequence[Configuration]) -> Tensor:
        """To the nearest that was drawn, (M,); the same for all where there is none."""
        if not drawn:
            return torch.ones(len(x_MD), dtype=x_MD.dtype)
        return torch.cdist(x_MD, self._features(drawn)).min(1).values

    def _improvement(
        self,
        x_MD: Tensor,
        scores: Mapping[Configuration, float],
        known: Sequence[Seen],
        before: Sequence[Seen],
    ) -> Tensor:
        """What is expected of each beyond the best of the study, (M,)."""
        model = self._model(list(scores.items()))
        # what is being scored meanwhile is taken to come out as expected, so that it is not to be
        # learned once more
        pending = [s.configuration for s in before[len(known) :] if s.configuration not in scores]
        if pending:
            expected_N, _ = model.predict(self._features(pending))
            guessed = dict(zip(pending, expected_N.tolist(), strict=True))
            model = self._conditioned({**scores, **guessed}, model)
        mean_M, deviation_M = model.predict(x_MD)
        best = max(_scores(known).values(), default=mean_M.max().item())
        return expected_improvement(mean_M, deviation_M, best)

    def _model(self, scores: list[tuple[Configuration, float]]) -> ScoreModel:
        """Fitted to the first of the scores, and told all of them."""
        count = max(len(scores) - (len(scores) - self.startup) % _REFIT, 2)
        if self._fitted is None or self._fitted[0] != scores[:count]:
            self._fitted = (scores[:count], self._conditioned(dict(scores[:count])))
        return self._conditioned(dict(scores), self._fitted[1])

    def _conditioned(
        self, scores: Mapping[Configuration, float], like: ScoreModel | None = None
    ) -> ScoreModel:
        values_N = torch.tensor(list(scores.values()), dtype=torch.float64)
        return ScoreModel(self._features(scores), values_N, like)

    def _chance(self, x_MD: Tensor, known: Sequence[Seen]) -> Tensor:
        """Of each to lie in the interval, (M,); 0 for one that is much less sure than others.

        Else what promises most, outside the interval, would be tried again and again.
        """
        timed = {s.configuration: s.latency_ms for s in known if s.latency_ms is not None}
        if self.interval is None or self.feasible is not None or len(timed) < self.startup:
            return torch.ones(len(x_MD), dtype=x_MD.dtype)
        latency_N = torch.tensor(list(timed.values()), dtype=torch.float64)
        chance_M = LatencyFit(self._features(timed), latency_N).chance(x_MD, self.interval)
        return chance_M.where(chance_M >= _SURE_ENOUGH * chance_M.max(), 0.0)


class _Choices:
    """Configurations by what they come to; of those with the same effect the first."""

    def __init__(self, configurations: Iterable[Configuration], effect: Effect) -> None:
        found: dict[tuple[float, ...], Configuration] = {}
        for configuration in configurations:
            found.setdefault(tuple(effect(configuration)), configuration)
        self.effects = list(found)
        self.configurations = list(found.values())
        self.effects_MD = _matrix(self.effects)


def _matrix(effects: Sequence[Sequence[float]]) -> Tensor:
    return torch.tensor([tuple(effect) for effect in effects], dtype=torch.float64)


def _ratios(configuration: Configuration) -> Sequence[float]:
    return tuple(configuration.values())


def _scores(seen: Sequence[Seen]) -> dict[Configuration, float]:
    return {s.configuration: s.score for s in seen if s.scored and s.score is not None}
