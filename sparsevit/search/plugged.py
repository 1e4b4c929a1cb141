"""Samplers of Optuna's own in a search of ours."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import Trial, TrialState

from sparsevit.search.samplers import distributions
from sparsevit.search.seen import Seen
from sparsevit.search.study import Direction
from sparsevit.sparsity import Configuration, Space


class PluggedSampler:
    """Draws by any Optuna sampler, one candidate after the other.

    The sampler works on a study of its own in memory, which is told what came of the candidates.
    What it draws is brought into the space by sorting within each group.

    Args:
        sampler: as Optuna has it; its state is not kept when a search ends.
        space: what is searched.
        directions: of the objectives: the score, and the latency if it is one.
    """

    def __init__(
        self,
        sampler: BaseSampler,
        space: Space,
        directions: Sequence[Direction],
    ) -> None:
        self._space = space
        self._study = optuna.create_study(sampler=sampler, directions=list(directions))
        self._distributions = distributions(space)
        self._told = 0
        self._asked: Trial | None = None

    def rng(self, number: int) -> Random:
        """Random numbers that are not used: the sampler has its own."""
        return Random(number)

    def describe(self) -> dict[str, Any]:
        """Its name; what else sets its draws apart only Optuna knows."""
        return {"name": type(self._study.sampler).__name__}

    def draw(self, rng: Random, before: Sequence[Seen]) -> Configuration | None:
        """The next candidate; None until all before it are settled."""
        if not all(seen.settled for seen in before):
            return None
        for seen in before[self._told :]:
            self._tell(seen)
        self._told = len(before)
        if self._asked is None:
            self._asked = self._study.ask(self._distributions)
        return self._space.sorted(self._asked.params)

    def _tell(self, seen: Seen) -> None:
        values = None
        if seen.score is not None:
            objectives = len(self._study.directions)
            values = [seen.score, seen.latency_ms or 0.0][:objectives]
        state = TrialState.PRUNED if values is None else TrialState.COMPLETE
        if self._asked is not None:
            self._study.tell(self._asked, values, state=state)
            self._asked = None
            return
        self._study.add_trial(
            optuna.create_trial(
                state=state,
                values=values,
                params=seen.configuration.to_dict(),
                distributions=self._distributions,
            )
        )
