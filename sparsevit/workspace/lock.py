"""One writer a workspace. The kernel frees the lock of a process that dies, however it dies."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from sparsevit.atomic import is_alive, write_atomic
from sparsevit.errors import UserError
from sparsevit.plain_files import read_record
from sparsevit.workspace import provenance
from sparsevit.workspace.record import unwritable

LOCK_NAME = "workspace.lock"
HOLDER_NAME = "workspace.lock.json"

# A reader that looks whether the lock is free holds it for an instant: no reason to refuse.
_GRACE_SECONDS = 0.5
# Workers of a killed process keep its lock until they notice that it is gone (torch's: 5 s).
_ORPHANS_SECONDS = 10.0


@dataclass(frozen=True)
class Holder:
    """Who writes a workspace.

    Args:
        pid, host: the process and its machine.
        phase: what it runs.
        since: ISO 8601, UTC.
        command: its command line.
    """

    pid: int
    host: str
    phase: str = ""
    since: str = ""
    command: str = ""

    @property
    def is_gone(self) -> bool:
        """Whether its process has certainly ended. Of another machine's nothing is certain."""
        return self.host == provenance.hostname() and not is_alive(self.pid)


@dataclass
class _Hold:
    lock: FileLock
    pid: int
    thread: int
    depth: int = 1


_holds: dict[Path, _Hold] = {}
_guard = threading.Lock()


class WriterLock:
    """The right to write the workspace ``directory``; a thread that has it may take it again."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key = directory.resolve()

    def acquire(self, phase: str) -> None:
        """Take the lock.

        Args:
            phase: what others are told that its holder does.

        Raises:
            UserError: another process or thread has it, named in the message; or the workspace
                cannot be written.
        """
        with _guard:
            hold = _own(self._key)
            if hold is not None and hold.thread == threading.get_ident():
                hold.depth += 1
                return
            if hold is not None:
                raise _in_use(self._directory, read_holder(self._directory))
        lock = self._take()
        try:
            self._sign(phase)
            with _guard:
                _holds[self._key] = _Hold(lock, os.getpid(), threading.get_ident())
        except BaseException:
            lock.release()
            raise

    def release(self) -> None:
        """Give it back, as often as it was taken."""
        with _guard:
            hold = _own(self._key)
            if hold is None:
                return
            hold.depth -= 1
            if hold.depth:
                return
            del _holds[self._key]
        with contextlib.suppress(OSError):
            (self._directory / HOLDER_NAME).unlink()
        hold.lock.release()

    def _take(self) -> FileLock:
        lock = FileLock(str(self._directory / LOCK_NAME))
        if _try(lock, self._directory, _GRACE_SECONDS):
            return lock
        holder = read_holder(self._directory)
        orphaned = holder is not None and holder.is_gone
        if orphaned and _try(lock, self._directory, _ORPHANS_SECONDS):
            return lock
        raise _in_use(self._directory, read_holder(self._directory))

    def _sign(self, phase: str) -> None:
        holder = Holder(
            pid=os.getpid(),
            host=provenance.hostname(),
            phase=phase,
            since=provenance.now(),
            command=provenance.command_line(),
        )
        path = self._directory / HOLDER_NAME
        try:
            write_atomic(path, json.dumps(asdict(holder), indent=2) + "\n")
        except OSError as error:
            raise unwritable(self._directory, error) from error


def read_holder(directory: Path) -> Holder | None:
    """Who signed the lock last; None where nobody did, or nothing can be read of it."""
    try:
        entry = read_record(directory / HOLDER_NAME)
        return Holder(**{**entry, "pid": int(entry["pid"]), "host": str(entry["host"])})
    except (ValueError, TypeError, KeyError, OverflowError):
        return None


def is_locked(directory: Path) -> bool:
    """Whether a process, this one or another, writes the workspace at this moment."""
    # not tried where it is ours: on NFS a lock belongs to the process, and trying would drop it
    with _guard:
        if _own(directory.resolve()) is not None:
            return True
    path = directory / LOCK_NAME
    if not path.exists():
        return False
    lock = FileLock(str(path))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except (OSError, NotImplementedError):
        # the lock of someone else's workspace cannot be tried: believe what its holder wrote
        holder = read_holder(directory)
        return holder is not None and not holder.is_gone
    lock.release()
    return False


def _try(lock: FileLock, directory: Path, seconds: float) -> bool:
    try:
        lock.acquire(timeout=seconds, poll_interval=0.05)
    except Timeout:
        return False
    except OSError as error:
        raise unwritable(directory, error) from error
    except NotImplementedError as error:
        raise UserError(
            f"The file system of the workspace {directory} does not support file locks.",
            "Use a workspace on a local disk, with --workspace.",
        ) from error
    return True


def _own(key: Path) -> _Hold | None:
    """This process's hold; what a forked child inherited is its parent's."""
    hold = _holds.get(key)
    return hold if hold is not None and hold.pid == os.getpid() else None


def _in_use(directory: Path, holder: Holder | None) -> UserError:
    remedy = "Wait until it is done, or use another workspace with --workspace."
    if holder is None:
        return UserError(f"The workspace {directory} is in use by another process.", remedy)
    who = f"process {holder.pid} on {holder.host}"
    if holder.is_gone:
        return UserError(
            f"The workspace {directory} is still locked by a child of {who}, which has ended.",
            f"Stop what it left running (`fuser -v {directory / LOCK_NAME}` shows it).",
        )
    return UserError(
        f"The workspace {directory} is in use by {who}: {holder.phase}, since {holder.since} "
        f"(`{holder.command}`).",
        remedy,
    )
