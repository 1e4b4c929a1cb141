"""Timing on a machine that may have other work: beside dense, again where in doubt, and said."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from sparsevit.latency.paired import measure_paired
from sparsevit.latency.relative import Share, measure_share
from sparsevit.latency.timer import Latency, measure

# How often a timing that cannot be is made again.
AGAIN = 2
# Half of the samples lie further apart than this: not the noise of a machine that does one thing.
UNSTEADY = 0.25
# How far apart two timings of dense may be.
_DRIFT = 1.3
# Cores that a machine's own housekeeping may take, and seconds from which on that can be told.
_IDLE, _SHORT = 0.3, 0.2


class Clock:
    """Milliseconds of one call after the other.

    Each is timed in turn with the dense model, and given as its share of what dense took when the
    clock was first used: what the machine does meanwhile slows both.

    Args:
        dense: makes a call of the dense model ready.
        device: where calls work.
        seconds: to spend on each timing.
        dense_ms: what dense takes, where that is known from before.
        warn: is told, once, that the machine is busy.

    Attributes:
        machine: what the timings say of it.
    """

    def __init__(
        self,
        dense: Callable[[], Callable[[], Any]],
        device: torch.device,
        seconds: float,
        *,
        dense_ms: float | None = None,
        warn: Callable[[str], Any] | None = None,
    ) -> None:
        self._make_dense = dense
        self._dense: Callable[[], Any] | None = None
        self._device = device
        self._seconds = seconds
        self._dense_ms = dense_ms
        self.machine = Machine(device, warn)

    @property
    def dense_ms(self) -> float:
        """What dense takes, in milliseconds: always the same."""
        if self._dense_ms is None:
            call = self.dense
            with self.machine.watched():
                found = steadiest(lambda: measure(call, self._device, seconds=self._seconds))
            self.machine.note_latency(found)
            self._dense_ms = found.mean_ms
        return self._dense_ms

    @property
    def dense(self) -> Callable[[], Any]:
        """The call of the dense model."""
        if self._dense is None:
            self._dense = self._make_dense()
        return self._dense

    def __call__(self, call: Callable[[], Any]) -> float:
        """Milliseconds of a call."""
        dense_ms, dense = self.dense_ms, self.dense
        with self.machine.watched():
            share = believable(
                lambda: measure_share(call, dense, self._device, seconds=self._seconds)
            )
        self.machine.note_share(share, dense_ms)
        return share.share * dense_ms


class Machine:
    """Whether the machine did other work while it was timed, by what its timings say.

    Args:
        device: what is timed.
        warn: is told so, once, as soon as it is known.
    """

    def __init__(self, device: torch.device, warn: Callable[[str], Any] | None = None) -> None:
        self._on_cpu = device.type == "cpu"
        self._warn = warn
        self._seconds = 0.0
        self._others_seconds = 0.0
        self._dense_ms: list[float] = []
        self._spread = 0.0
        self._error = 0.0
        self.timings = 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Around a timing: what other processes take of the CPU is counted."""
        before, began = _others_seconds(), time.perf_counter()
        try:
            yield
        finally:
            after = _others_seconds()
            if before is not None and after is not None:
                self._others_seconds += max(0.0, after - before)
                self._seconds += time.perf_counter() - began

    def note_share(self, share: Share, dense_ms: float | None = None) -> None:
        """A timing beside dense.

        Args:
            share: what was measured.
            dense_ms: what dense took when nothing else was timed, if that is known.
        """
        self._dense_ms += [share.dense_ms, *([] if dense_ms is None else [dense_ms])]
        self._spread = max(self._spread, share.dense_spread)
        if share.coarse:
            self._error = max(self._error, share.standard_error)
        self._noted()

    def note_latency(self, latency: Latency) -> None:
        """A timing on its own."""
        self._spread = max(self._spread, latency.spread)
        self._noted()

    @property
    def busy(self) -> str | None:
        """One sentence with the figures; None where nothing speaks for other work."""
        signs = []
        cores = os.cpu_count() or 1
        others = self._others_seconds / self._seconds if self._seconds > _SHORT else 0.0
        if self._on_cpu and others > _IDLE and others + torch.get_num_threads() > cores + _IDLE:
            signs.append(f"other processes take {others:.1f} of {cores} cores")
        if self._dense_ms and max(self._dense_ms) > _DRIFT * min(self._dense_ms):
            low, high = min(self._dense_ms), max(self._dense_ms)
            signs.append(f"dense took {low:.4g} to {high:.4g} ms")
        if self._spread > UNSTEADY:
            signs.append(f"half of the samples of one call differ by more than {self._spread:.0%}")
        if self._error:
            signs.append(f"a figure has a standard error of {self._error:.0%}")
        if not signs:
            return None
        return f"the machine is busy: {', '.join(signs)}"

    def _noted(self) -> None:
        self.timings += 1
        said = self.busy
        if said is not None and self._warn is not None:
            self._warn(f"{said}. Stop other work, and time again.")
            self._warn = None


def believable(timing: Callable[[], Share], again: int = AGAIN) -> Share:
    """A timing beside dense, made again where it cannot be or says nothing.

    Args:
        timing: makes it.
        again: how often at most.

    Returns:
        The one with the smallest standard error, or one that another one confirms; its seconds
        are those of all.
    """
    best = timing()
    spent = best.seconds
    for _ in range(again):
        if not best.doubtful:
            break
        other = timing()
        spent += other.seconds
        confirmed = not other.coarse and other.agrees_with(best)
        best = min((best, other), key=lambda one: (one.doubtful, one.standard_error))
        if confirmed:
            break
    return replace(best, seconds=spent)


def steadiest(timing: Callable[[], Latency], again: int = AGAIN) -> Latency:
    """A timing, made again where its samples are far apart; the one where they are the least so."""
    best = timing()
    for _ in range(again):
        if best.spread <= UNSTEADY:
            break
        best = min(best, timing(), key=lambda one: one.spread)
    return best


def steadiest_of_paired(
    calls: Mapping[str, Callable[[], Any]],
    device: torch.device,
    *,
    warmup: int | None = None,
    repeats: int | None = None,
    seconds: float = 10.0,
    again: int = AGAIN,
) -> dict[str, Latency]:
    """:func:`measure_paired`, made again where the samples are far apart, or a call is slower than
    ``dense`` by more than that.

    Calls whose number was given are made so often, and not again.
    """

    def doubt(timings: dict[str, Latency]) -> tuple[bool, float]:
        spread = max(one.spread for one in timings.values())
        dense = timings.get("dense")
        slower = dense is not None and any(
            one.mean_ms > dense.mean_ms * (1 + max(one.spread, dense.spread))
            for one in timings.values()
        )
        return spread > UNSTEADY or slower, spread

    how: dict[str, Any] = {"warmup": warmup, "repeats": repeats, "seconds": seconds}
    best = measure_paired(calls, device, **how)
    for _ in range(again if repeats is None else 0):
        if not doubt(best)[0]:
            break
        best = min(best, measure_paired(calls, device, **how), key=doubt)
    return best


def _others_seconds() -> float | None:
    """CPU time that all but this process have taken since the machine started, in seconds.

    None where the operating system does not say.
    """
    try:
        with open("/proc/stat", encoding="ascii") as file:
            numbers = [int(word) for word in file.readline().split()[1:9]]
        user, nice, system, _idle, _wait, interrupts, soft, stolen = numbers
        ticks = user + nice + system + interrupts + soft + stolen
        return ticks / os.sysconf("SC_CLK_TCK") - time.process_time()
    except (OSError, ValueError):
        return None
