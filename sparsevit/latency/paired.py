"""Several calls timed turn by turn: a machine that drifts drifts for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from sparsevit.latency.timer import LEAST_REPEATS, REPEATS, Latency, synchronize, timed_ms, warm_up


def measure_paired(
    calls: Mapping[str, Callable[[], Any]],
    device: torch.device,
    *,
    warmup: int | None = None,
    repeats: int | None = None,
    seconds: float = 10.0,
) -> dict[str, Latency]:
    """Time several calls in turn: one of each, again and again.

    Args:
        calls: name -> call. It is called twice a round, timed the second time, so that none is
            timed with the caches of another.
        device, warmup, repeats: as for :func:`sparsevit.latency.timer.measure`, for each call.
        seconds: time to spend on all of them where ``repeats`` is None.

    Returns:
        name -> latency.
    """
    warmed = {
        name: warm_up(call, device, warmup, seconds / 3 / len(calls))
        for name, call in calls.items()
    }
    samples: dict[str, list[float]] = {name: [] for name in calls}
    spent_ms = 0.0
    rounds = 0
    while rounds < (repeats or REPEATS):
        for name, call in calls.items():
            call()
            synchronize(device)
            samples[name].append(timed_ms(call, device))
            spent_ms += 2 * samples[name][-1]
        rounds += 1
        if repeats is None and rounds >= LEAST_REPEATS and spent_ms > seconds * 1000:
            break
    return {name: Latency.of(taken, warmed[name]) for name, taken in samples.items()}
