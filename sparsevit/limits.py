"""What this machine has left, so that a request beyond it is refused before it is begun."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from sparsevit.errors import UserError

LONGEST_TRAINING = 10**9
"""Iterations or epochs; at a thousand iterations a second it would take twelve days."""

_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB", "EB")


def free_memory() -> int | None:
    """Bytes that this process may still take, swap included; None where that cannot be told."""
    found = [
        value
        for value in (_of_the_machine(), _of_the_group(), _of_the_process())
        if value is not None
    ]
    return max(0, min(found)) if found else None


def require_memory(needed: int, what: str, remedy: str) -> None:
    """Refuse what cannot be held in memory.

    Args:
        needed: bytes that it takes at the least.
        what: takes them, as the error shall begin: ``A batch of 4 images``.

    Raises:
        UserError: there is not so much.
    """
    free = free_memory()
    if free is not None and needed > free:
        raise UserError(
            f"{what} takes at least {size_text(needed)} of memory, and {size_text(free)} are free.",
            remedy,
        )


def require_disk(needed: int, folder: Path, what: str, remedy: str) -> None:
    """Refuse what cannot be kept on the disk of a folder, which need not be there yet.

    Raises:
        UserError: there is not so much space.
    """
    try:
        place = next(each for each in (folder, *folder.absolute().parents) if each.exists())
        free = shutil.disk_usage(place).free
    except (OSError, StopIteration):
        return
    if needed > free:
        raise UserError(
            f"{what} takes at least {size_text(needed)} on disk, and {size_text(free)} are free.",
            remedy,
        )


def size_text(count: int) -> str:
    """``3.2 GB``."""
    if count < 1000:
        return f"{count} bytes"
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:,.3g} {_UNITS[unit]}" if value < 999.5 else f"{value:,.0f} {_UNITS[unit]}"


def _of_the_machine() -> int | None:
    try:
        rows = dict(row.split(":") for row in Path("/proc/meminfo").read_text().splitlines())
        kilobytes = [int(rows[name].split()[0]) for name in ("MemAvailable", "SwapFree")]
        return 1024 * sum(kilobytes)
    except (OSError, ValueError, KeyError, IndexError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError, AttributeError):
        return None


def _of_the_group() -> int | None:
    """Of the container, by version 2 of Linux's control groups, else by version 1."""
    for limit, used, cache in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        root = Path("/sys/fs/cgroup")
        try:
            most, taken = int((root / limit).read_text()), int((root / used).read_text())
            rows = (root / limit).with_name("memory.stat").read_text().splitlines()
        except (OSError, ValueError):
            continue
        droppable = dict(row.split() for row in rows if len(row.split()) == 2).get(cache, "0")
        return most - taken + int(droppable)
    return None


def _of_the_process() -> int | None:
    """Of ``ulimit -v``."""
    if sys.platform == "win32":
        return None
    import resource

    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    if most == resource.RLIM_INFINITY:
        return None
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return most
    return most - pages * resource.getpagesize()
