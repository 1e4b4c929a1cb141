"""Taking candidates of a study so that no two workers work on the same one.

A storage gives every new trial a number of its own, in the order in which trials were made. That is
all that is asked of it: whoever wants a candidate makes a running trial with the candidate's number
in it, then looks whether a living trial with a lower number has the same. If so, the other one has
it. The lowest sees none, whoever comes later sees the lowest; so exactly one has it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from sparsevit.search.trial import CONFIGURATION, ITERATION
from sparsevit.search.workers import WORKER, Watch, Worker
from sparsevit.sparsity import Configuration


class Claim:
    """A candidate that this worker has, until it is told what came of it.

    Attributes:
        number: of the Optuna trial.
    """

    def __init__(self, study: Study, worker: Worker, trial_id: int, number: int) -> None:
        self._storage = study._storage
        self._worker = worker
        self._trial_id = trial_id
        self.number = number

    def note(self, key: str, value: Any) -> None:
        """Keeps a value with the trial, for all to see."""
        with contextlib.suppress(UpdateFinishedTrialError):
            self._storage.set_trial_user_attr(self._trial_id, key, value)

    def report(self, step: int, value: float) -> None:
        """Keeps an intermediate value."""
        with contextlib.suppress(UpdateFinishedTrialError):
            self._storage.set_trial_intermediate_value(self._trial_id, step, value)

    def finish(self, state: TrialState, values: Sequence[float] | None = None) -> None:
        """Gives it up with what came of it.

        Where it was given up for dead meanwhile, nothing is changed: another worker has it.
        """
        self._worker.holds(None)
        with contextlib.suppress(UpdateFinishedTrialError):
            self._storage.set_trial_state_values(self._trial_id, state, values)


def claim(
    study: Study,
    worker: Worker,
    watch: Watch,
    *,
    iteration: int,
    configuration: Configuration,
    distributions: Mapping[str, BaseDistribution],
) -> Claim | None:
    """Takes a candidate, or gives None where another worker has it.

    Args:
        iteration: the candidate's number.
    """
    template = optuna.create_trial(
        state=TrialState.RUNNING,
        params=configuration.to_dict(),
        distributions=dict(distributions),
        user_attrs={CONFIGURATION: configuration.to_dict(), ITERATION: iteration},
        system_attrs={WORKER: worker.signature},
    )
    trial_id = study._storage.create_new_trial(study._study_id, template_trial=template)
    number = study._storage.get_trial_number_from_id(trial_id)
    taken = Claim(study, worker, trial_id, number)
    rivals = [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.number < number and trial.user_attrs.get(ITERATION) == iteration
    ]
    if any(_holds(trial, watch) for trial in rivals):
        taken.finish(TrialState.FAIL)
        return None
    worker.holds(trial_id)
    return taken


def release_the_dead(study: Study, watch: Watch) -> None:
    """Fails the running trials whose workers are gone, so that their candidates are free again."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if watch.is_gone(trial):
            with contextlib.suppress(UpdateFinishedTrialError):
                study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)


def _holds(trial: FrozenTrial, watch: Watch) -> bool:
    if trial.state == TrialState.RUNNING:
        return not watch.is_gone(trial)
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
