"""The search: draw candidates, time them, score those within the latency interval, keep the best.

The study holds everything: killed at any moment and called again, the search goes on from there,
and nothing that was finished is measured or scored again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from optuna.trial import Trial as OptunaTrial

from sparsevit.errors import UserError
from sparsevit.search.history import DENSE, FASTEST, SLOWEST, History, confirm, rank
from sparsevit.search.log import log_name, write_log
from sparsevit.search.results import Progress, SearchResult, Stage, Stopped
from sparsevit.search.samplers import SpaceSampler, distributions, make_sampler
from sparsevit.search.study import claim_study, fail_left_over_trials, open_study, quiet_optuna
from sparsevit.search.trial import (
    CONFIGURATION,
    DUPLICATE_OF,
    ITERATION,
    LATENCY_MS,
    PREDICTED_MS,
    Trial,
)
from sparsevit.sparsity import Configuration, Space

Measure = Callable[[Configuration], float]
Predict = Callable[[Configuration], float]
Score = Callable[[Configuration], float]
OnEvent = Callable[[Progress], None]

# The form of what a study holds; one that was made with another form is not gone on with.
_STUDY_VERSION = 1


def search(
    space: Space,
    measure: Measure,
    score: Score,
    *,
    min_ms: float,
    max_ms: float,
    trials: int,
    predict: Predict | None = None,
    sampler: BaseSampler | str = "evolution",
    seed: int = 0,
    max_candidates: int = 10_000,
    storage: str | Path | BaseStorage | None = None,
    study_name: str | None = None,
    identity: Mapping[str, Any] | None = None,
    log_path: str | Path | None = None,
    on_event: OnEvent | None = None,
    confirm_best: bool = True,
) -> SearchResult:
    """Searches for the best configuration whose latency lies within an interval.

    Args:
        space: what is searched.
        measure: latency of a configuration in milliseconds; called once for each different one
            that is drawn, for the dense and the sparsest one, and again for the winner.
        score: the higher the better; called once for each different candidate in the interval.
        min_ms: lower end of the interval, included.
        max_ms: upper end of the interval, included.
        trials: stop when that many different configurations were scored.
        predict: latency of a configuration in milliseconds without measuring it, always the same.
            Where given, candidates are not measured: whether one lies in the interval is what this
            says, and only the bounds and the winner are measured.
        sampler: ``evolution``, ``random``, one of :mod:`sparsevit.search.samplers` with options of
            its own, or any Optuna sampler (only ours go on identically after a kill).
        seed: for a sampler given by name.
        max_candidates: stop when that many were drawn (the iterations of the paper's script).
        storage: see :func:`sparsevit.search.open_study`; None keeps nothing.
        study_name: ``max42_min37`` after the interval where left out.
        identity: plain data that tells this search from others (the checkpoint's digest, the image
            size, ...); a study that was made with another one is not gone on with.
        log_path: where to write the log of the paper's form.
        on_event: is told the progress before and after every step.
        confirm_best: measure the winner again, and take the next best where it misses the interval.

    Raises:
        UserError: where an argument is wrong, the interval cannot be met on this device, or the
            study was made with other inputs.
    """
    _check_arguments(min_ms, max_ms, trials, max_candidates)
    if isinstance(sampler, str):
        sampler = make_sampler(sampler, space, seed, interval=(min_ms, max_ms), predict=predict)
    with quiet_optuna():
        name = study_name or log_name(min_ms, max_ms).removeprefix("search_").removesuffix(".txt")
        study = open_study(storage, name, sampler=sampler)
        judged = {"latency": "measured" if predict is None else "predicted"}
        claim_study(
            study, _identity(space, sampler, min_ms, max_ms, {**judged, **(identity or {})})
        )
        return _Search(
            study=study,
            space=space,
            measure=measure,
            predict=predict,
            score=score,
            interval=(min_ms, max_ms),
            target=trials,
            max_candidates=max_candidates,
            log_path=None if log_path is None else Path(log_path),
            on_event=on_event,
        ).run(confirm_best)


class _Search:
    """One session of a search over its study."""

    def __init__(
        self,
        *,
        study: Study,
        space: Space,
        measure: Measure,
        predict: Predict | None,
        score: Score,
        interval: tuple[float, float],
        target: int,
        max_candidates: int,
        log_path: Path | None,
        on_event: OnEvent | None,
    ) -> None:
        self.study = study
        self.space = space
        self.measure = measure
        self.predict = predict
        self.score = score
        self.min_ms, self.max_ms = interval
        self.target = target
        self.max_candidates = max_candidates
        self.log_path = log_path
        self.on_event = on_event
        self.began = time.monotonic()
        fail_left_over_trials(study)
        self.history = History(study)
        self.resumed_from = len(self.history.trials)
        self.scored_before = self.scored = len(self.history.scored)
        self.best = next(iter(self.history.ranked()), None)

    def run(self, confirm_best: bool) -> SearchResult:
        dense_ms, fastest_ms = self._check_interval()
        self._write_log()
        distribution_of = distributions(self.space)
        while (stopped := self._stopped()) is None:
            self._candidate(self.study.ask(distribution_of))
        winner, unconfirmed = self._winner(confirm_best)
        self._tell("done")
        return SearchResult(
            best=winner,
            trials=tuple(self.history.trials),
            candidates=len(self.history.trials),
            distinct=self.history.distinct,
            feasible=self.scored,
            unconfirmed=unconfirmed,
            min_ms=self.min_ms,
            max_ms=self.max_ms,
            dense_ms=dense_ms,
            fastest_ms=fastest_ms,
            stopped=stopped,
            seconds=time.monotonic() - self.began,
            resumed_from=self.resumed_from,
        )

    # --- before ------------------------------------------------------------------------------

    def _check_interval(self) -> tuple[float, float]:
        """Measures the dense and the fastest; refuses an interval that lies outside of them."""
        dense_ms = self._bound(DENSE, self.space.dense())
        slowest_ms = self._bound(SLOWEST, self.space.min())
        fastest_ms = self._bound(FASTEST, self.space.max())
        low, high = min(fastest_ms, slowest_ms), max(fastest_ms, slowest_ms)
        if self.max_ms < low or self.min_ms > high:
            raise UserError(
                f"No configuration can be expected within {self.min_ms:g} to {self.max_ms:g} ms "
                f"here: the sparsest takes {fastest_ms:.4g} ms, and the dense model "
                f"{dense_ms:.4g} ms.",
                f"Choose an interval within {low:.4g} to {high:.4g} ms (--min, --max).",
            )
        return dense_ms, fastest_ms

    def _bound(self, bound: str, configuration: Configuration) -> float:
        latency_ms = self.study.user_attrs.get(f"{bound}_ms")
        if latency_ms is None:
            latency_ms = self.history.latency_of(configuration)
        if latency_ms is None:
            self._tell("bounds", configuration)
            latency_ms = self._timed(configuration)
        self.study.set_user_attr(f"{bound}_ms", latency_ms)
        self.history.note_latency(configuration, latency_ms)
        return latency_ms

    # --- one candidate -----------------------------------------------------------------------

    def _stopped(self) -> Stopped | None:
        if self.scored >= self.target:
            return "trials"
        if len(self.history.trials) >= self.max_candidates:
            return "candidates"
        if self.history.distinct >= self.space.size():
            return "exhausted"
        return None

    def _candidate(self, trial: OptunaTrial) -> None:
        try:
            settled = self.history.add(self._settle(trial))
        except BaseException:
            # The trial that takes its place draws the same configuration, and has its latency.
            self.study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
            raise
        self._took_note(settled)

    def _settle(self, trial: OptunaTrial) -> FrozenTrial:
        configuration = self.space.sorted(trial.params)
        trial.set_user_attr(CONFIGURATION, configuration.to_dict())
        trial.set_user_attr(ITERATION, len(self.history.trials))
        known = self.history.find(configuration)
        if known is not None:
            trial.set_user_attr(DUPLICATE_OF, known.number)
            judged = LATENCY_MS if self.predict is None else PREDICTED_MS
            trial.set_user_attr(judged, known.latency_ms)
            return self._finish(trial, known.score)
        self._tell("search", configuration)
        latency_ms = self._judge(trial, configuration)
        feasible = self.min_ms <= latency_ms <= self.max_ms
        return self._finish(trial, self._scored(configuration) if feasible else None)

    def _judge(self, trial: OptunaTrial, configuration: Configuration) -> float:
        """The latency by which the candidate is in the interval or not; kept with the trial."""
        if self.predict is not None:
            predicted_ms = _checked(self.predict(configuration), configuration, "predicted")
            trial.set_user_attr(PREDICTED_MS, predicted_ms)
            return predicted_ms
        latency_ms = self.history.latency_of(configuration)
        if latency_ms is None:
            latency_ms = self._timed(configuration)
        trial.set_user_attr(LATENCY_MS, latency_ms)
        return latency_ms

    def _finish(self, trial: OptunaTrial, score: float | None) -> FrozenTrial:
        if score is None:
            return self.study.tell(trial, state=TrialState.PRUNED)
        return self.study.tell(trial, score)

    def _took_note(self, trial: Trial) -> None:
        if trial.state == "scored":
            self.scored += 1
            if self.best is None or rank(trial) < rank(self.best):
                self.best = trial
                self._write_log()
        self._tell("search")

    def _timed(self, configuration: Configuration) -> float:
        return _checked(self.measure(configuration), configuration, "measured")

    def _scored(self, configuration: Configuration) -> float:
        score = float(self.score(configuration))
        if not math.isfinite(score):
            raise UserError(
                f"The score of {configuration} is {score}.",
                "Check that the metric is one that the evaluation gives, and the checkpoint.",
            )
        return score

    # --- after -------------------------------------------------------------------------------

    def _winner(self, confirm_best: bool) -> tuple[Trial | None, tuple[Trial, ...]]:
        """The best trial that holds when measured again, and the better ones that did not."""
        unconfirmed: list[Trial] = []
        for trial in self.history.ranked():
            assert trial.configuration is not None
            latency_ms = trial.confirmed_ms
            if latency_ms is None and not confirm_best:
                return trial, tuple(unconfirmed)
            if latency_ms is None:
                self._tell("confirm", trial.configuration)
                latency_ms = self._timed(trial.configuration)
                confirm(self.study, trial.number, latency_ms)
            measured = self.history.confirmed(trial, latency_ms)
            if self.min_ms <= latency_ms <= self.max_ms:
                return measured, tuple(unconfirmed)
            unconfirmed.append(measured)
        return None, tuple(unconfirmed)

    def _write_log(self) -> None:
        if self.log_path is not None:
            write_log(self.log_path, self.history.trials)

    def _tell(self, stage: Stage, current: Configuration | None = None) -> None:
        if self.on_event is None:
            return
        seconds = time.monotonic() - self.began
        fresh = self.scored - self.scored_before
        self.on_event(
            Progress(
                stage=stage,
                scored=self.scored,
                target=self.target,
                candidates=len(self.history.trials),
                max_candidates=self.max_candidates,
                feasible_share=self.scored / self.history.distinct
                if self.history.distinct
                else None,
                best=self.best,
                current=current,
                seconds=seconds,
                eta_seconds=max(0, self.target - self.scored) * seconds / fresh if fresh else None,
            )
        )


def _checked(latency_ms: float, configuration: Configuration, how: str) -> float:
    latency_ms = float(latency_ms)
    if not (math.isfinite(latency_ms) and latency_ms >= 0):
        raise ValueError(f"The latency of {configuration} was {how} as {latency_ms} ms.")
    return latency_ms


def _check_arguments(min_ms: float, max_ms: float, trials: int, max_candidates: int) -> None:
    if not (math.isfinite(max_ms) and 0 <= min_ms <= max_ms):
        raise UserError(
            f"A latency interval of {min_ms:g} to {max_ms:g} ms.",
            "Give --min and --max in milliseconds, with the lower one as --min.",
        )
    if trials < 1 or max_candidates < 1:
        raise UserError(
            f"A search for {trials} trials among {max_candidates} candidates.",
            "Both are 1 or more.",
        )


def _identity(
    space: Space, sampler: BaseSampler, min_ms: float, max_ms: float, extra: Mapping[str, Any]
) -> dict[str, Any]:
    described = (
        sampler.describe()
        if isinstance(sampler, SpaceSampler)
        else {"name": type(sampler).__name__}
    )
    return {
        "version": _STUDY_VERSION,
        "interval_ms": [min_ms, max_ms],
        "space": space.to_dict(),
        "sampler": described,
        **dict(extra),
    }
