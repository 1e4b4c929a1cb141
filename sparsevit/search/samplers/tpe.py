"""Optuna's tree-structured Parzen estimator."""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from sparsevit.search.samplers.base import SpaceSampler
from sparsevit.search.samplers.steps import Steps
from sparsevit.search.seen import Seen
from sparsevit.search.study import quiet_optuna
from sparsevit.sparsity import Configuration, Space

# From version 5 on a trial brings its constraints itself.
_CONSTRAINTS_ARE_ASKED_FOR = int(optuna.__version__.split(".")[0]) < 5


class TPESampler(SpaceSampler):
    """Optuna's multivariate TPE over steps (:class:`Steps`), with the interval as its constraint.

    Optuna's own sampler is asked on a study in memory that mirrors the candidates before, with a
    seed of the candidate's own: so a draw follows from these alone, whatever process makes it. A
    configuration that was drawn before is not drawn again while there are others.

    Args:
        space: the knobs.
        seed: of the random numbers.
        startup: scored candidates before the first that is not random.
        lag: of so many candidates before it a draw does not need the results, so that as many
            workers and one more are busy.
        aim: ``interval`` and ``predict``, see :class:`SpaceSampler`.
    """

    name = "tpe"

    def __init__(
        self, space: Space, seed: int = 0, *, startup: int = 10, lag: int = 0, **aim: Any
    ) -> None:
        super().__init__(space, seed, **aim)
        self.startup = startup
        self.lag = lag
        self.steps = Steps(space)
        self._distributions: dict[str, BaseDistribution] = {
            name: IntDistribution(0, most) for name, most in self.steps.most.items()
        }
        self._mirrored: list[Seen] = []
        self._mirror = _study()

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "startup": self.startup, "lag": self.lag}

    def draw(self, rng: random.Random, before: Sequence[Seen]) -> Configuration | None:
        known = self.settled(before, self.lag)
        if known is None:
            return None
        if sum(seen.scored for seen in known) < self.startup:
            return self.fresh(rng, before, lambda: self.space.sample(rng))
        study = self._mirror_of(known)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what we use is marked as experimental, or deprecated
            constrained: dict[str, Any] = {}
            if _CONSTRAINTS_ARE_ASKED_FOR:
                constrained = {"constraints_func": _constraints}
            sampler = optuna.samplers.TPESampler(
                seed=rng.getrandbits(32),
                n_startup_trials=0,
                multivariate=True,
                constant_liar=False,
                **constrained,
            )
        return self.fresh(rng, before, lambda: self._propose(study, sampler))

    def _propose(self, study: Study, sampler: optuna.samplers.TPESampler) -> Configuration:
        open_ended = {n: d for n, d in self._distributions.items() if not d.single()}
        drawn = sampler.sample_relative(study, create_trial(state=TrialState.RUNNING), open_ended)
        return self.steps.decode({**dict.fromkeys(self.space.names, 0), **drawn})

    def _mirror_of(self, known: list[Seen]) -> Study:
        """A study of these candidates; what an earlier draw put there stays."""
        if known[: len(self._mirrored)] != self._mirrored:
            self._mirror, self._mirrored = _study(), []
        there = {seen.configuration for seen in self._mirrored}
        for seen in known[len(self._mirrored) :]:
            if seen.configuration not in there:
                self._mirror.add_trial(self._trial(seen))
                there.add(seen.configuration)
        self._mirrored = list(known)
        # a study remembers the trials that it was first asked for: each draw has one of its own
        return optuna.load_study(study_name=self._mirror.study_name, storage=self._mirror._storage)

    def _trial(self, seen: Seen) -> FrozenTrial:
        return create_trial(
            state=TrialState.COMPLETE if seen.scored else TrialState.PRUNED,
            value=seen.score if seen.scored else None,
            params=self.steps.encode(seen.configuration),
            distributions=self._distributions,
            system_attrs={"constraints": [self._violation(seen)]},
        )

    def _violation(self, seen: Seen) -> float:
        """How far outside of the interval, above 0 where it is."""
        if seen.feasible:
            return 0.0
        if self.interval is None or seen.latency_ms is None:
            return 1.0
        low, high = self.interval
        return max(low - seen.latency_ms, seen.latency_ms - high)


def _study() -> Study:
    with quiet_optuna():
        return optuna.create_study(direction="maximize")


def _constraints(trial: FrozenTrial) -> Sequence[float]:
    return trial.system_attrs["constraints"]
