"""What one candidate of a search came to, as read from its Optuna trial."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from optuna.trial import FrozenTrial, TrialState

from sparsevit.sparsity import Configuration

CONFIGURATION = "configuration"
ITERATION = "iteration"
LATENCY_MS = "latency_ms"
PREDICTED_MS = "predicted_ms"
DUPLICATE_OF = "duplicate_of"
SHARE = "share"

Outcome = Literal["scored", "stopped", "infeasible", "duplicate", "failed", "running"]


@dataclass(frozen=True)
class Trial:
    """One candidate.

    Attributes:
        number: of the Optuna trial; numbers of trials that were cut short are not used again.
        iteration: which candidate it was, from 0; trials that were cut short do not count.
        configuration: what was tried; None where the trial was cut short before it was drawn.
        latency_ms: as measured, or predicted where it was not measured; None where neither.
        score: the metric, None where it was not scored.
        state: ``scored``; ``stopped`` (scored on some of the images, and too weak to go on);
            ``infeasible`` (outside the latency interval); ``duplicate`` (drawn before, or the same
            network as one before: it has the result of that); ``failed`` (cut short); ``running``.
        feasible: whether its latency lay in the interval.
        confirmed_ms: the latency measured again after the search, None where it was not.
        predicted_ms: what was predicted, None without a predictor.
        share: of the images that the score is from; below 1 where it was stopped.
    """

    number: int
    iteration: int | None
    configuration: Configuration | None
    latency_ms: float | None
    score: float | None
    state: Outcome
    feasible: bool
    confirmed_ms: float | None = None
    predicted_ms: float | None = None
    share: float = 1.0


def read_trial(frozen: FrozenTrial, confirmed_ms: float | None = None) -> Trial:
    """Reads a trial of a study that :func:`sparsevit.search.search` made."""
    attrs = frozen.user_attrs
    ratios = attrs.get(CONFIGURATION)
    scored = frozen.state == TrialState.COMPLETE or SHARE in attrs
    return Trial(
        number=frozen.number,
        iteration=attrs.get(ITERATION),
        configuration=None if ratios is None else Configuration(ratios),
        latency_ms=attrs.get(LATENCY_MS, attrs.get(PREDICTED_MS)),
        score=frozen.values[0] if scored and frozen.values else None,
        state=_outcome(frozen),
        feasible=scored,
        confirmed_ms=confirmed_ms,
        predicted_ms=attrs.get(PREDICTED_MS),
        share=attrs.get(SHARE, 1.0),
    )


def is_counted(frozen: FrozenTrial) -> bool:
    """Whether the trial is a finished candidate (and was not cut short)."""
    return frozen.state in (TrialState.COMPLETE, TrialState.PRUNED)


def _outcome(frozen: FrozenTrial) -> Outcome:
    if frozen.state == TrialState.FAIL:
        return "failed"
    if not frozen.state.is_finished():
        return "running"
    if DUPLICATE_OF in frozen.user_attrs:
        return "duplicate"
    if SHARE in frozen.user_attrs:
        return "stopped"
    return "scored" if frozen.state == TrialState.COMPLETE else "infeasible"
