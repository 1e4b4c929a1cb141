"""Latency of a call on a device, measured the way the paper measures it, with its spread beside."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

WARMUP = 500
REPEATS = 500
LEAST_REPEATS = 10


@dataclass(frozen=True)
class Latency:
    """Milliseconds a call takes.

    Attributes:
        mean_ms: mean after dropping a quarter of the samples at each end (the paper's figure).
        median_ms: the middle sample.
        p95_ms: 95 of 100 samples are at or below this.
        std_ms: standard deviation over all samples.
        min_ms, max_ms: fastest and slowest sample.
        repeats: number of samples.
        warmup: calls before them.
        spread: how far the middle half of the samples spread, as a share of the median.
    """

    mean_ms: float
    median_ms: float
    p95_ms: float
    std_ms: float
    min_ms: float
    max_ms: float
    repeats: int
    warmup: int
    spread: float = 0.0

    @staticmethod
    def of(samples_ms: Sequence[float], warmup: int = 0) -> Latency:
        """Summary of samples in milliseconds.

        Raises:
            ValueError: there are none.
        """
        if not samples_ms:
            raise ValueError("no samples")
        ordered = sorted(samples_ms)
        drop = len(ordered) // 4
        return Latency(
            mean_ms=statistics.fmean(ordered[drop : len(ordered) - drop]),
            median_ms=statistics.median(ordered),
            p95_ms=ordered[math.ceil(0.95 * len(ordered)) - 1],
            std_ms=statistics.pstdev(ordered),
            min_ms=ordered[0],
            max_ms=ordered[-1],
            repeats=len(ordered),
            warmup=warmup,
            spread=spread(ordered),
        )


def measure(
    call: Callable[[], Any],
    device: torch.device,
    *,
    warmup: int | None = None,
    repeats: int | None = None,
    seconds: float = 10.0,
) -> Latency:
    """Time a call, waiting for the device before and after each.

    Args:
        call: what to time.
        device: where it works.
        warmup: calls before the timed ones; 500 as in the paper, but no longer than a third of
            ``seconds``, where None.
        repeats: timed calls; 500 as in the paper, but no longer than ``seconds`` (and at least
            10), where None.
        seconds: time to spend where the counts are not given.
    """
    warmed = warm_up(call, device, warmup, seconds / 3)
    samples: list[float] = []
    started = time.perf_counter()
    while len(samples) < (repeats or REPEATS):
        samples.append(timed_ms(call, device))
        spent = time.perf_counter() - started
        if repeats is None and len(samples) >= LEAST_REPEATS and spent > seconds:
            break
    return Latency.of(samples, warmed)


def spread(samples: Sequence[float]) -> float:
    """How far the middle half of samples spreads, as a share of the median; 0 of a few."""
    if len(samples) < 4:
        return 0.0
    low, middle, high = statistics.quantiles(samples, n=4, method="inclusive")
    return (high - low) / middle if middle > 0 else 0.0


def timed_ms(call: Callable[[], Any], device: torch.device) -> float:
    """Milliseconds of one call, from an idle device to an idle device."""
    synchronize(device)
    started = time.perf_counter()
    call()
    synchronize(device)
    return (time.perf_counter() - started) * 1000


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def warm_up(
    call: Callable[[], Any], device: torch.device, warmup: int | None, seconds: float
) -> int:
    """Call ``warmup`` times, or where None up to 500 times within ``seconds``; return how often."""
    started = time.perf_counter()
    done = 0
    while done < (WARMUP if warmup is None else warmup):
        call()
        done += 1
        # two calls settle caches and allocators; more than the time allows are not worth it
        if warmup is None and done >= 2 and time.perf_counter() - started > seconds:
            break
    synchronize(device)
    return done
