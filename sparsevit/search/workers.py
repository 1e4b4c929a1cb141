"""Who works on a study, and who has died: one rule for every storage.

A worker signs each trial that it takes, and while it holds one, counts a number up in it now and
then. Whether a worker of this machine lives, its process says. One of another machine is given up
when its number has not changed for :data:`GRACE_SECONDS`, as the observer's own clock counts them:
no two clocks are compared, and time in which the observer itself was not running does not count.
"""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import threading
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial

WORKER = "worker"
BEAT = "beat"

BEAT_SECONDS = 10.0
GRACE_SECONDS = 90.0

# Of the time between two looks at most so much counts: a longer one means that the observer slept.
_LOOK_SECONDS = 5.0

_active: set[str] = set()


@lru_cache(maxsize=1)
def machine() -> str:
    """This machine since it was started, and the processes that can be seen from here."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def process_start(pid: int) -> str | None:
    """When a process was started, by its machine's clock; None where that cannot be told."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # the name, in parentheses, may hold anything; the time is the 20th field after it
    return stat.rpartition(")")[2].split()[19]


class Worker:
    """This process as a worker on a study; a context in which it counts as alive."""

    def __init__(self, study: Study, beat_seconds: float = BEAT_SECONDS) -> None:
        self._study = study
        self._beat_seconds = beat_seconds
        self._trial_id: int | None = None
        self._ended = threading.Event()
        self._guard = threading.Lock()
        self.token = secrets.token_hex(8)
        self.signature: dict[str, Any] = {
            "machine": machine(),
            "pid": os.getpid(),
            "started": process_start(os.getpid()),
            "token": self.token,
        }

    def __enter__(self) -> Worker:
        _active.add(self.token)
        self._thread = threading.Thread(target=self._beat, name="search-heartbeat", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        _active.discard(self.token)
        self._thread.join()

    def holds(self, trial_id: int | None) -> None:
        """Which trial it works on from now on."""
        with self._guard:
            self._trial_id = trial_id

    def _beat(self) -> None:
        number = 0
        while not self._ended.wait(self._beat_seconds):
            number += 1
            with self._guard:
                # a storage that is out of reach for a while is the working thread's to report
                if self._trial_id is not None:
                    with contextlib.suppress(Exception):
                        self._study._storage.set_trial_system_attr(self._trial_id, BEAT, number)


@dataclass
class _Look:
    beat: Any
    at: float
    quiet: float = 0.0


class Watch:
    """Tells of running trials whether their workers are gone.

    Args:
        grace_seconds: without a sign for so long, a worker of another machine is gone.
    """

    def __init__(self, grace_seconds: float = GRACE_SECONDS) -> None:
        self._grace = grace_seconds
        self._looks: dict[int, _Look] = {}

    def is_gone(self, trial: FrozenTrial) -> bool:
        """Whether nobody works on this running trial any more."""
        signature = trial.system_attrs.get(WORKER)
        if signature and signature["machine"] == machine():
            return not _runs_here(signature)
        return self._has_been_quiet(trial)

    def _has_been_quiet(self, trial: FrozenTrial) -> bool:
        beat, now = trial.system_attrs.get(BEAT), time.monotonic()
        look = self._looks.get(trial.number)
        if look is None or look.beat != beat:
            self._looks[trial.number] = _Look(beat, now)
            return False
        look.quiet += min(now - look.at, _LOOK_SECONDS)
        look.at = now
        return look.quiet > self._grace


def _runs_here(signature: dict[str, Any]) -> bool:
    pid = signature["pid"]
    if pid == os.getpid():
        return signature["token"] in _active
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    started = process_start(pid)
    if started is not None and _is_zombie(pid):
        return False
    return started == signature["started"]


def _is_zombie(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] in "ZX"
