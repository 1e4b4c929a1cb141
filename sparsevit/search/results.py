"""What a search comes to, how far it is, and the file that the next phase takes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sparsevit.errors import UserError
from sparsevit.search.trial import Trial
from sparsevit.sparsity import Configuration, Space, write_configuration

Stage = Literal["bounds", "search", "confirm", "done"]
Stopped = Literal["trials", "candidates", "exhausted"]


@dataclass(frozen=True)
class Progress:
    """How far a search is.

    Attributes:
        stage: measuring what the device can reach, searching, confirming the winner, or done.
        scored: different configurations scored so far, in all sessions.
        target: how many shall be.
        candidates: drawn so far, duplicates among them.
        max_candidates: at most that many are drawn.
        feasible_share: of the different configurations drawn, those within the interval, 0 to 1;
            None before the first.
        best: the best scored trial so far (not yet confirmed).
        current: what is being measured or scored.
        seconds: since this session began.
        eta_seconds: until the target at this session's rate; None before its first score.
        running: candidates that workers are at.
        prediction_error: mean of |predicted - measured| / measured over the candidates for which
            both are known; None where there are none.
    """

    stage: Stage
    scored: int
    target: int
    candidates: int
    max_candidates: int
    feasible_share: float | None
    best: Trial | None
    current: Configuration | None
    seconds: float
    eta_seconds: float | None
    running: int = 0
    prediction_error: float | None = None


@dataclass(frozen=True)
class SearchResult:
    """What a search came to.

    Attributes:
        best: the best trial whose latency, measured again, still lay in the interval; None where
            there is none.
        trials: all candidates in order (no trial that was cut short).
        candidates: how many were drawn, duplicates among them.
        distinct: how many different configurations were drawn.
        feasible: different networks within the interval; each was scored, on some of the
            images at least.
        unconfirmed: better trials than ``best`` that missed the interval when measured again.
        min_ms: lower end of the interval, in milliseconds.
        max_ms: upper end of the interval.
        dense_ms: latency of the dense model.
        fastest_ms: latency of the sparsest configuration.
        stopped: why it ended: ``trials`` were scored, ``candidates`` were drawn, or the space is
            ``exhausted``.
        seconds: of this session.
        resumed_from: candidates that earlier sessions had finished.
        same_network: of the different configurations, those that compute the same as one before,
            and took over its result.
    """

    best: Trial | None
    trials: tuple[Trial, ...]
    candidates: int
    distinct: int
    feasible: int
    unconfirmed: tuple[Trial, ...]
    min_ms: float
    max_ms: float
    dense_ms: float
    fastest_ms: float
    stopped: Stopped
    seconds: float
    resumed_from: int
    same_network: int = 0


def write_best(
    path: str | os.PathLike[str],
    result: SearchResult,
    space: Space,
    metric: str,
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Writes the best configuration for the next phase, in one step.

    Beside the configuration: its score and the metric's name, latency, interval and trial, and
    ``pruning_ratios``, the nested form that can be pasted in a config.

    Args:
        path: YAML or JSON by its suffix.
        metric: what the score is.
        extra: further plain data to keep in the file.

    Raises:
        UserError: where the search found nothing, or the file cannot be written.
    """
    best = result.best
    if best is None or best.configuration is None:
        raise UserError(
            f"No configuration within {result.min_ms:g} to {result.max_ms:g} ms was found among "
            f"{result.candidates} candidates.",
            "Widen the interval, or allow more candidates.",
        )
    meta = {
        "pruning_ratios": space.to_nested(best.configuration),
        "metric": metric,
        "score": best.score,
        "latency_ms": best.latency_ms,
        "confirmed_ms": best.confirmed_ms,
        "interval_ms": [result.min_ms, result.max_ms],
        "dense_ms": result.dense_ms,
        "trial": best.number,
        "iteration": best.iteration,
        "scored": result.feasible,
        **dict(extra or {}),
    }
    return write_configuration(path, best.configuration, meta)
