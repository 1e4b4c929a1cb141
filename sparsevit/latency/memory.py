"""Memory of the CPU that stays with the process from one call to the next."""

from __future__ import annotations

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_MOST = 2**30
_SETTINGS_OF_THE_USER = (
    "MALLOC_TRIM_THRESHOLD_",
    "MALLOC_MMAP_THRESHOLD_",
    "GLIBC_TUNABLES",
)


def keep_freed_memory() -> bool:
    """Have glibc keep the memory of freed tensors for the next ones, up to a GiB each.

    Left to itself it gives large blocks back to the system and asks for them anew at the next
    call, where the system clears each page: a quarter of the time of a small model's call, more or
    less of it by what was freed before, so that the latency of a configuration depends on what ran
    before.
    The first calls still ask for new pages: memory settles after some ten of them, and its peak is
    then higher than before (Swin-T at 1344x1344: by a tenth of the process), as blocks that lie
    between others are not joined.

    Returns:
        Whether it does so from now on: not on other systems, and not where the environment has
        settings for glibc's memory (``MALLOC_TRIM_THRESHOLD_``, ``GLIBC_TUNABLES``, ...).
    """
    if sys.platform != "linux" or any(name in os.environ for name in _SETTINGS_OF_THE_USER):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return False
    return all([mallopt(_TRIM_THRESHOLD, _MOST), mallopt(_MMAP_THRESHOLD, _MOST)])
