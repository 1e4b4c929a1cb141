"""One worker's part in a search over a study; there may be others, here and on other machines."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from optuna.study import Study
from optuna.trial import TrialState

from sparsevit import interruption
from sparsevit.errors import UserError
from sparsevit.search.candidates import Candidates, Slot
from sparsevit.search.claims import Claim, claim, release_the_dead
from sparsevit.search.halving import Halving, goes_on, step_of
from sparsevit.search.history import confirm, confirmations, rank
from sparsevit.search.log import write_log
from sparsevit.search.options import Budget, SearchOptions
from sparsevit.search.results import Progress, Stage
from sparsevit.search.samplers import Predict, distributions
from sparsevit.search.trial import DUPLICATE_OF, LATENCY_MS, PREDICTED_MS, SHARE, Trial, read_trial
from sparsevit.search.workers import Watch, Worker
from sparsevit.sparsity import Configuration, Space

Measure = Callable[[Configuration], float]
Score = Callable[[Configuration], float]
OnEvent = Callable[[Progress], None]

# Between two looks at a study on which only others can work.
_SHORTEST_WAIT, _LONGEST_WAIT = 0.01, 1.0


@dataclass(frozen=True)
class Problem:
    """What is searched, and how a candidate is judged.

    Attributes:
        space: the configurations.
        measure: latency in milliseconds, measured.
        predict: the same without measuring; None where candidates are measured.
        score: the higher the better.
        interval: that the latency must lie in, in milliseconds.
        options: when to stop, and whether the latency is a second objective of the study.
        halving: how weak candidates are stopped, if they are.
    """

    space: Space
    measure: Measure
    predict: Predict | None
    score: Score
    interval: Budget
    options: SearchOptions
    halving: Halving | None = None

    def holds(self, latency_ms: float) -> bool:
        """Whether a latency lies in the interval."""
        low, high = self.interval
        return low <= latency_ms <= high

    def timed(self, configuration: Configuration) -> float:
        """The latency as measured now."""
        return _checked(self.measure(configuration), configuration, "measured")

    def foretold(self, configuration: Configuration) -> float:
        """The latency as predicted."""
        assert self.predict is not None
        return _checked(self.predict(configuration), configuration, "predicted")

    def scored(self, configuration: Configuration, share: float = 1.0) -> float:
        """The score on a share of the images."""
        if self.halving is None:
            score = self.score(configuration)
        else:
            score = self.halving.score(configuration, share)
        if not math.isfinite(score):
            raise UserError(
                f"The score of {configuration} is {score}.",
                "Check the checkpoint, and that the evaluation reports this metric.",
            )
        return float(score)


class Session:
    """Works on a study until the search has ended.

    Args:
        study: shared with all other workers.
        worker: who this is.
        problem: what is searched.
        candidates: of the study.
        log_path: where to keep the log of the paper's form, if at all.
        on_event: is told the progress.
        confirm_best: measure a best before it is called so.
    """

    def __init__(
        self,
        study: Study,
        worker: Worker,
        problem: Problem,
        candidates: Candidates,
        log_path: Path | None = None,
        on_event: OnEvent | None = None,
        confirm_best: bool = True,
    ) -> None:
        self.study = study
        self.worker = worker
        self.problem = problem
        self.candidates = candidates
        self.options = problem.options
        self.log_path = log_path
        self.on_event = on_event
        self.confirm_best = confirm_best
        self.watch = Watch()
        self.distributions = distributions(problem.space)
        self.began = time.monotonic()
        self.scored: list[Trial] = []
        self.best: Trial | None = None
        self.confirmed = confirmations(study)
        self._counted_before: int | None = None

    # --- candidates --------------------------------------------------------------------------

    def work(self) -> None:
        """Settles candidates until none is open and no more are to come."""
        wait = _SHORTEST_WAIT
        self.refresh()
        self.write_log()
        while self.candidates.stopped() is None:
            slot = self.candidates.next()
            if slot is not None:
                self._candidate(slot)
                wait = _SHORTEST_WAIT
            elif self.candidates.stopped() is None:
                self._wait(wait)
                wait = min(1.5 * wait, _LONGEST_WAIT)
            self.refresh()

    def refresh(self) -> None:
        """Looks at the study."""
        release_the_dead(self.study, self.watch)
        self.candidates.update(self.study.get_trials(deepcopy=False))
        fresh = [trial for trial in self.candidates.take_fresh() if trial.state == "scored"]
        self.scored += fresh
        if self._counted_before is None:
            self._counted_before = self.candidates.settled
        self._consider(fresh)

    def _wait(self, seconds: float) -> None:
        self.tell("search")
        time.sleep(seconds)

    def _candidate(self, slot: Slot) -> None:
        taken = claim(
            self.study,
            self.worker,
            self.watch,
            iteration=slot.iteration,
            configuration=slot.configuration,
            distributions=self.distributions,
        )
        if taken is None:
            return
        try:
            self._settle(slot, taken)
        except BaseException:
            # The trial that takes its place has the same configuration, and its latency.
            taken.finish(TrialState.FAIL)
            raise

    def _settle(self, slot: Slot, taken: Claim) -> None:
        if slot.is_duplicate:
            self._repeat(self.candidates.first_of(slot), taken)
            return
        self.tell("search", slot.configuration)
        latency_ms = self._judge(slot, taken)
        if not self.problem.holds(latency_ms):
            taken.finish(TrialState.PRUNED)
            self.tell("search")
            return
        halving = self.problem.halving
        if halving is not None and not self._survives(slot, taken, halving):
            return
        score = self.problem.scored(slot.configuration)
        taken.finish(TrialState.COMPLETE, self._values(score, latency_ms))

    def _values(self, score: float, latency_ms: float) -> list[float]:
        return [score, latency_ms] if self.options.pareto else [score]

    def _repeat(self, first: Slot, taken: Claim) -> None:
        """The result of a candidate that was drawn before."""
        assert first.trial is not None
        known = read_trial(first.trial)
        taken.note(DUPLICATE_OF, known.number)
        for key in (LATENCY_MS, PREDICTED_MS, SHARE):
            if key in first.trial.user_attrs:
                taken.note(key, first.trial.user_attrs[key])
        taken.finish(first.trial.state, first.trial.values)

    def _judge(self, slot: Slot, taken: Claim) -> float:
        """The latency by which the candidate is in the interval or not; kept with the trial."""
        configuration = slot.configuration
        if self.problem.predict is not None:
            predicted_ms = self.problem.foretold(configuration)
            taken.note(PREDICTED_MS, predicted_ms)
            return predicted_ms
        latency_ms = self.candidates.latency_of(configuration)
        if latency_ms is None:
            latency_ms = self.problem.timed(configuration)
        taken.note(LATENCY_MS, latency_ms)
        return latency_ms

    # --- halving -----------------------------------------------------------------------------

    def _survives(self, slot: Slot, taken: Claim, halving: Halving) -> bool:
        """Scores on more and more images; whether it is to be scored on all of them."""
        for share in halving.shares:
            step = step_of(share)
            value = self.candidates.partial(slot.configuration, step)
            if value is None:
                value = self.problem.scored(slot.configuration, share)
                self.candidates.note_partial(slot.configuration, step, value)
            taken.report(step, value)
            decided = self._decide(slot, share, halving)
            if decided is None:
                taken.finish(TrialState.FAIL)
                return False
            if not decided:
                taken.note(SHARE, share)
                latency_ms = slot.latency_ms or self.candidates.latency_of(slot.configuration)
                assert latency_ms is not None
                taken.finish(TrialState.PRUNED, self._values(value, latency_ms))
                return False
        return True

    def _decide(self, slot: Slot, share: float, halving: Halving) -> bool | None:
        """Whether it goes on. None where another candidate has to be settled first, by this worker:
        whoever had it is gone."""
        wait = _SHORTEST_WAIT
        while True:
            self.refresh()
            decided = goes_on(self.candidates, slot, share, halving)
            if decided is not None:
                return decided
            left_alone = self.candidates.next()
            if left_alone is not None and left_alone.iteration < slot.iteration:
                return None
            self._wait(wait)
            wait = min(1.5 * wait, _LONGEST_WAIT)

    # --- the best ----------------------------------------------------------------------------

    def _consider(self, fresh: list[Trial]) -> None:
        """Takes note of new bests; predicted ones are measured before they are called so."""
        for trial in sorted(fresh, key=rank):
            if self.best is not None and rank(trial) >= rank(self.best):
                return
            if self.confirm_best and self.problem.predict is not None:
                trial = self.measured_again(trial)
                if not self.problem.holds(trial.confirmed_ms or 0):
                    continue
            self.best = trial
            self.write_log()
            self.tell("search")
            return

    def measured_again(self, trial: Trial) -> Trial:
        """The trial with its latency as measured after it was scored."""
        assert trial.configuration is not None
        latency_ms = self.confirmed.get(trial.number)
        if latency_ms is None:
            latency_ms = confirmations(self.study).get(trial.number)
        if latency_ms is None:
            self.tell("confirm", trial.configuration)
            latency_ms = confirm(self.study, trial.number, self.problem.timed(trial.configuration))
        self.confirmed[trial.number] = latency_ms
        return replace(trial, confirmed_ms=latency_ms)

    def winner(self) -> tuple[Trial | None, tuple[Trial, ...]]:
        """The best trial that holds when measured again, and the better ones that did not."""
        missed: list[Trial] = []
        for trial in sorted(self.scored, key=rank):
            if not self.confirm_best and trial.number not in self.confirmed:
                return trial, tuple(missed)
            measured = self.measured_again(trial)
            assert measured.confirmed_ms is not None
            if self.problem.holds(measured.confirmed_ms):
                self.best = measured
                return measured, tuple(missed)
            missed.append(measured)
        return None, tuple(missed)

    # --- telling -----------------------------------------------------------------------------

    def write_log(self) -> None:
        """Writes the log of the paper's form as it stands."""
        if self.log_path is not None:
            write_log(self.log_path, self.candidates.trials())

    def tell(self, stage: Stage, current: Configuration | None = None) -> None:
        """Tells the progress; ends where a signal came that a library swallowed."""
        interruption.check()
        if self.on_event is None:
            return
        seconds = time.monotonic() - self.began
        done = self.candidates.settled
        fresh = done - (self._counted_before or 0)
        judged = self.candidates.judged
        self.on_event(
            Progress(
                stage=stage,
                scored=done,
                target=self.options.trials,
                candidates=self.candidates.finished,
                max_candidates=self.options.max_candidates,
                feasible_share=self.candidates.feasible / judged if judged else None,
                best=self.best,
                current=current,
                seconds=seconds,
                eta_seconds=max(0, self.options.trials - done) * seconds / fresh if fresh else None,
                running=self.candidates.running,
                prediction_error=self._prediction_error(),
            )
        )

    def _prediction_error(self) -> float | None:
        errors = [
            abs(trial.predicted_ms - self.confirmed[trial.number]) / self.confirmed[trial.number]
            for trial in self.scored
            if trial.predicted_ms is not None and self.confirmed.get(trial.number)
        ]
        return sum(errors) / len(errors) if errors else None


def bounds(
    study: Study, configurations: Mapping[str, Configuration], measure: Callable[..., float]
) -> dict[str, float]:
    """Latencies by which an interval is told to be in reach, each measured once for a study.

    Args:
        configurations: by name.
        measure: of those that are not known yet.
    """
    found: dict[str, float] = {}
    for name, configuration in configurations.items():
        known: Any = study.user_attrs.get(f"{name}_ms")
        if known is None:
            alike = [n for n, c in configurations.items() if c == configuration and n in found]
            known = found[alike[0]] if alike else measure(configuration)
            study.set_user_attr(f"{name}_ms", known)
        found[name] = known
    return found


def _checked(latency_ms: float, configuration: Configuration, how: str) -> float:
    latency_ms = float(latency_ms)
    if not (math.isfinite(latency_ms) and latency_ms >= 0):
        raise ValueError(f"The latency of {configuration} was {how} as {latency_ms} ms.")
    return latency_ms
