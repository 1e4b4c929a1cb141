"""Successive halving: weak candidates are stopped after few images.

A candidate is scored on an eighth of the images, then on a quarter, a half, and all of them. After
each step but the last it goes on only if it is among the better ``keep`` of those that came as far
before it. Which ones are before it must not depend on who was quicker, so candidates are counted in
batches, and a candidate is compared with all of the batches before its own: those are awaited. The
first batch is scored on all images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sparsevit.errors import UserError
from sparsevit.search.candidates import Candidates, Slot
from sparsevit.sparsity import Configuration

SHARES = (0.125, 0.25, 0.5)


@dataclass(frozen=True)
class Halving:
    """How a search stops weak candidates.

    Attributes:
        score: of a configuration on a share of the images (0 to 1); what it has from a smaller
            share of the same configuration it may use.
        shares: after which a candidate may be stopped, increasing, each below 1.
        keep: the share of candidates that goes on after each.
        batch: so many candidates make one.

    Raises:
        UserError: where these do not fit.
    """

    score: Callable[[Configuration, float], float]
    shares: tuple[float, ...] = SHARES
    keep: float = 0.5
    batch: int = 16

    def __post_init__(self) -> None:
        if not 0 < self.keep < 1 or self.batch < 1:
            raise UserError(
                f"Halving cannot keep {self.keep:g} of batches of {self.batch}.",
                "Keep a share between 0 and 1, of batches of 1 or more.",
            )
        if list(self.shares) != sorted({s for s in self.shares if 0 < s < 1}):
            raise UserError(
                f"Halving cannot stop candidates after the shares {self.shares} of the images.",
                "Give increasing shares between 0 and 1.",
            )

    def describe(self) -> dict[str, object]:
        """What decides who is stopped, as plain data."""
        return {"shares": list(self.shares), "keep": self.keep, "batch": self.batch}


def step_of(share: float) -> int:
    """The step under which Optuna keeps the score on a share: thousandths of the images."""
    return round(1000 * share)


def goes_on(candidates: Candidates, slot: Slot, share: float, halving: Halving) -> bool | None:
    """Whether a candidate goes on after a share of the images; None where it must wait.

    Args:
        candidates: of the search; the score of ``slot`` on that share is known.
        slot: which one.
    """
    before = candidates.before_batch(slot, halving.batch)
    if before is None:
        return None
    step = step_of(share)
    others = []
    for other in before:
        value = candidates.partial(other.configuration, step)
        if value is not None:
            others.append(value)
        elif not other.finished:
            return None
    if not others:
        return True
    own = candidates.partial(slot.configuration, step)
    assert own is not None
    better = sum(value > own for value in others)
    return better < halving.keep * (len(others) + 1)
