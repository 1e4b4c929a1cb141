"""The most memory that a call holds at once."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

MIB = 2**20


@dataclass(frozen=True)
class PeakMemory:
    """Above what was held before the call.

    Attributes:
        allocated_mib: the most that PyTorch's allocator had given out; the same in every run.
        resident_mib: the most by which the process grew; None where the system does not say, and
            on a GPU.
    """

    allocated_mib: float
    resident_mib: float | None


def peak_memory(call: Callable[[], Any]) -> PeakMemory:
    """Run a call once and see what it needs.

    On a CPU in a process of its own: what earlier calls left free is used first, and then the
    process need not grow.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        return PeakMemory(round((torch.cuda.max_memory_allocated() - before) / MIB, 1), None)
    resident = _restart_resident_peak()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        call()
        # before the profiler's own account of it grows
        highest = _status("VmHWM")
    grown = None if resident is None or highest is None else (highest - resident) / MIB
    return PeakMemory(
        allocated_mib=round(_peak_allocated(seen) / MIB, 1),
        resident_mib=None if grown is None else round(grown, 1),
    )


def _peak_allocated(seen: profile) -> int:
    """The highest level that allocations and releases come to, in bytes."""
    assert seen.profiler is not None
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    level = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        level += event.nbytes()
        highest = max(highest, level)
    return highest


def _restart_resident_peak() -> int | None:
    """Let Linux forget the process's peak so far; returns what it holds now, in bytes."""
    try:
        # proc(5): 5 resets the peak resident set size
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _status("VmRSS")


def _status(field: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return int(found[0]) * 1024 if found else None
