"""What a sampler may look at: the candidates drawn before the one that it draws.

Candidates are numbered from 0. Which ones are drawn must follow from the seed and the number alone,
with one worker as with many, so a draw is a function of ``(seed, number, candidates before it)``.
Several workers time and score at the same time: some of the candidates before may not be settled
yet. A sampler whose draw depends on one of these answers None, and is asked again when more is
known. It never answers otherwise than it would have with everything known.
"""

from __future__ import annotations

from dataclasses import dataclass

from sparsevit.sparsity import Configuration


@dataclass(frozen=True)
class Seen:
    """An earlier candidate.

    Attributes:
        configuration: what was drawn. Of one that was drawn before, all else is the first one's.
        latency_ms: measured or predicted; None while it is not known.
        feasible: whether its latency lies in the interval; None while that is not known.
        score: the higher the better; None where it is infeasible, or not scored yet.
        share: of the images that the score is from; below 1 for one that was stopped early.
    """

    configuration: Configuration
    latency_ms: float | None = None
    feasible: bool | None = None
    score: float | None = None
    share: float = 1.0

    @property
    def scored(self) -> bool:
        """Whether it has a score from all images."""
        return self.score is not None and self.share == 1

    @property
    def settled(self) -> bool:
        """Whether nothing about it will change any more."""
        return self.feasible is False or self.score is not None
