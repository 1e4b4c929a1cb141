"""Timing on a machine on which other processes of the same search work.

Whoever times waits until the others have come to the end of a step, and they wait until it is done.
The locks are the operating system's, so a process that dies lets go of them.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch


class SharedMachine:
    """Steps of work and timings of several processes, one kind at a time.

    Args:
        folder: that they share; two lock files are made in it.
        timing_threads: CPU threads of PyTorch while timing.
        working_threads: the same while working.
    """

    def __init__(self, folder: Path, timing_threads: int, working_threads: int) -> None:
        self._door = folder / "timing-door.lock"
        self._room = folder / "timing-room.lock"
        self._timing_threads = timing_threads
        self._working_threads = working_threads

    @contextmanager
    def step(self) -> Iterator[None]:
        """A piece of work, short enough for a timing to wait for."""
        # whoever times holds the door, so that new steps do not keep the room from getting empty
        with _locked(self._door, fcntl.LOCK_SH):
            room = _lock(self._room, fcntl.LOCK_SH)
        try:
            yield
        finally:
            os.close(room)

    @contextmanager
    def timing(self) -> Iterator[None]:
        """A timing: nobody works meanwhile."""
        with _locked(self._door, fcntl.LOCK_EX), _locked(self._room, fcntl.LOCK_EX):
            torch.set_num_threads(self._timing_threads)
            try:
                yield
            finally:
                torch.set_num_threads(self._working_threads)


@contextmanager
def _locked(path: Path, kind: int) -> Iterator[None]:
    descriptor = _lock(path, kind)
    try:
        yield
    finally:
        os.close(descriptor)


def _lock(path: Path, kind: int) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, kind)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
