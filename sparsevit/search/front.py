"""The front of a search: the trials that no other beats in both score and latency."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sparsevit.search.history import rank
from sparsevit.search.trial import Trial
from sparsevit.sparsity import Configuration


@dataclass(frozen=True)
class Reference:
    """A configuration that a search is compared with.

    Attributes:
        name: ``dense``, or ``uniform 0.4``.
        configuration: its ratios.
        latency_ms: measured or predicted, as the candidates of its search.
        score: on all images.
    """

    name: str
    configuration: Configuration
    latency_ms: float
    score: float


def front_of(trials: Iterable[Trial]) -> list[Trial]:
    """The scored trials that none beats in both, by ascending latency; of equal ones the first."""
    scored = [trial for trial in trials if trial.state == "scored"]
    best = -float("inf")
    found = []
    for trial in sorted(scored, key=lambda t: (t.latency_ms or 0.0, *rank(t), t.number)):
        assert trial.score is not None
        if trial.score > best:
            best = trial.score
            found.append(trial)
    return found
