"""How long one call takes as a share of another that takes turns with it.

A machine that slows down for a while slows both down, so the share is steadier than either time.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sparsevit.latency.timer import spread, timed_ms, warm_up

TARGET = 0.006
LEAST_TURNS = 5
LEAST_TURNS_OF_SHORT_CALLS = 12
MOST_TURNS = 100
SETTLED_MS = 50.0
_WARMUP = 2
# A share is coarse where its standard error is above this and half of what is saved; slower than
# dense where it is so by more than three standard errors and this.
_COARSE = 0.02


@dataclass(frozen=True)
class Share:
    """A call's time beside that of the dense model.

    Attributes:
        share: the call's time / the dense model's.
        standard_error: of the share, from the spread of its samples.
        turns: samples it is the mean of the middle half of.
        dense_ms: what the dense model took meanwhile, in milliseconds.
        seconds: that measuring it took, warming up included.
        dense_spread: how far the middle half of the dense model's samples spread, as a share of
            the median.
    """

    share: float
    standard_error: float
    turns: int
    dense_ms: float
    seconds: float
    dense_spread: float = 0.0

    @property
    def coarse(self) -> bool:
        """Whether the noise is as wide as what the share says."""
        return self.standard_error > max(_COARSE, abs(1 - self.share) / 2)

    @property
    def doubtful(self) -> bool:
        """Whether it is coarse, or slower than dense by more than the noise."""
        return self.coarse or self.share > 1 + max(_COARSE, 3 * self.standard_error)

    def agrees_with(self, other: Share) -> bool:
        """Whether two timings of the same call are the same within the noise of both."""
        noise = math.hypot(self.standard_error, other.standard_error)
        return abs(self.share - other.share) <= max(_COARSE, 3 * noise)


def measure_share(
    call: Callable[[], Any],
    dense: Callable[[], Any],
    device: torch.device,
    *,
    seconds: float,
    target: float = TARGET,
    least: int | None = None,
    most: int = MOST_TURNS,
) -> Share:
    """Time a call between two calls of the dense model, again and again.

    Each sample is the call's time over the mean of the dense calls before and after it. Ends when
    the standard error is small enough, or the time is spent.

    Args:
        call: what to time.
        dense: what to compare it with.
        device: where both work.
        seconds: time to spend, beyond which only ``least`` is still completed.
        target: standard error of the share at which to stop.
        least, most: samples to take, at least and at most. Where ``least`` is None, 5, or 12 where
            the dense model is done in 50 ms: the error of few samples is itself uncertain.
    """
    started = time.perf_counter()
    warm_up(call, device, _WARMUP, 0)
    warm_up(dense, device, 1, 0)
    # a call that is over soon finds its weights in caches, or not, by what ran before it
    settle = timed_ms(dense, device) < SETTLED_MS
    if least is None:
        least = LEAST_TURNS_OF_SHORT_CALLS if settle else LEAST_TURNS
    before = _timed(dense, device, settle)
    shares: list[float] = []
    dense_ms = [before]
    while True:
        mine = _timed(call, device, settle)
        after = _timed(dense, device, settle)
        shares.append(2 * mine / (before + after))
        dense_ms.append(after)
        before = after
        spent = time.perf_counter() - started
        if len(shares) < least:
            continue
        share, error = middle(shares)
        if error <= target or spent > seconds or len(shares) >= most:
            taken = middle(dense_ms)[0], spent, spread(dense_ms)
            return Share(share, error, len(shares), *taken)


def middle(samples: Sequence[float]) -> tuple[float, float]:
    """Mean of the middle half of samples, and its standard error.

    The paper's figure for a latency; its error is that of a trimmed mean, from the spread that is
    left when the outer quarters are pulled in to the middle half (Yuen, 1974). That of a single
    sample is infinite.
    """
    ordered = sorted(samples)
    count = len(ordered)
    drop = count // 4
    kept = ordered[drop : count - drop]
    mean = statistics.fmean(kept)
    if count < 2:
        return mean, math.inf
    pulled_in = [kept[0]] * drop + kept + [kept[-1]] * drop
    deviation = statistics.stdev(pulled_in)
    return mean, deviation * math.sqrt((count - 1) / (len(kept) * (len(kept) - 1)))


def _timed(call: Callable[[], Any], device: torch.device, settle: bool) -> float:
    if settle:
        call()
    return timed_ms(call, device)
