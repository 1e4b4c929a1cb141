"""What a study knows: each configuration's latency and score, and the best so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from optuna.study import Study
from optuna.trial import FrozenTrial

from sparsevit.search.trial import LATENCY_MS, Trial, is_counted, read_trial
from sparsevit.sparsity import Configuration

CONFIRMED = "confirmed_ms"
DENSE, SLOWEST, FASTEST = "dense", "slowest", "fastest"


class History:
    """The candidates of a study, in order, each configuration's first by configuration.

    Args:
        study: is read once; what happens after is told by :meth:`add`.
    """

    def __init__(self, study: Study) -> None:
        confirmed = confirmations(study)
        self.trials: list[Trial] = []
        self._latencies: dict[Configuration, float] = {}
        self._first: dict[Configuration, Trial] = {}
        for frozen in study.get_trials(deepcopy=False):
            self.add(frozen, confirmed.get(frozen.number))

    def add(self, frozen: FrozenTrial, confirmed_ms: float | None = None) -> Trial:
        """Takes note of a trial; one that was cut short only leaves its latency."""
        trial = read_trial(frozen, confirmed_ms)
        configuration, latency_ms = trial.configuration, frozen.user_attrs.get(LATENCY_MS)
        if configuration is not None and latency_ms is not None:
            self._latencies.setdefault(configuration, latency_ms)
        if is_counted(frozen) and configuration is not None:
            self.trials.append(trial)
            self._first.setdefault(configuration, trial)
        return trial

    def note_latency(self, configuration: Configuration, latency_ms: float) -> None:
        """Takes note of a latency that was measured outside of a trial."""
        self._latencies.setdefault(configuration, latency_ms)

    def confirmed(self, trial: Trial, latency_ms: float) -> Trial:
        """The trial with the latency that was measured again; takes the place of what it was."""
        measured = replace(trial, confirmed_ms=latency_ms)
        self.trials[self.trials.index(trial)] = measured
        assert trial.configuration is not None
        self._first[trial.configuration] = measured
        return measured

    def find(self, configuration: Configuration) -> Trial | None:
        """The candidate that first had this configuration, or None where it is new."""
        return self._first.get(configuration)

    def latency_of(self, configuration: Configuration) -> float | None:
        """Milliseconds, None where it was not measured."""
        return self._latencies.get(configuration)

    @property
    def distinct(self) -> int:
        """How many different configurations were drawn."""
        return len(self._first)

    @property
    def scored(self) -> list[Trial]:
        """The different configurations that were scored, in order."""
        return [trial for trial in self._first.values() if trial.score is not None]

    def ranked(self) -> list[Trial]:
        """The scored ones, best first; of equal scores the faster, then the earlier."""
        return sorted(self.scored, key=rank)


def confirmations(study: Study) -> dict[int, float]:
    """Latencies measured again after the search: trial number to milliseconds.

    Optuna takes no attribute for a trial that is finished, so the study keeps them.
    """
    found: Mapping[str, float] = study.user_attrs.get(CONFIRMED) or {}
    return {int(number): latency_ms for number, latency_ms in found.items()}


def confirm(study: Study, number: int, latency_ms: float) -> None:
    """Keeps the latency that was measured again for a trial."""
    known = {str(key): value for key, value in confirmations(study).items()}
    study.set_user_attr(CONFIRMED, {**known, str(number): latency_ms})


def rank(trial: Trial) -> tuple[float, float]:
    """Sorts scored trials: the higher score first; of equal ones the faster."""
    assert trial.score is not None
    assert trial.latency_ms is not None
    return -trial.score, trial.latency_ms
