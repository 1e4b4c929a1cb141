"""A file is either the old one or the new one, whenever the process dies."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sparsevit import interruption

# `.NAME.PID-RANDOM.tmp`; earlier versions left out the random part
_TEMPORARY = re.compile(r"\..+\.(\d{1,9})(-[0-9a-f]{8})?\.tmp")
_LONGEST_STEM = 50

_writing: set[str] = set()
"""What this process has begun: another one of its number, before it, left the rest."""


def write_atomic(path: Path, content: str | bytes, *, durable: bool = True) -> None:
    """Replace ``path`` by ``content`` (text as UTF-8) so that no reader and no crash sees half.

    Ctrl-C and SIGTERM wait until it is done.

    Args:
        durable: on the disk before the name is, at some cost; without it a power cut may leave an
            empty file.

    Raises:
        OSError: the folder is missing, cannot be written or is full; ``path`` is as it was.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    with interruption.deferred(), replacing(path, durable=durable) as temporary:
        temporary.write_bytes(data)


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A new empty file beside ``path``, which takes its place at the end of the block.

    Its name cannot be known beforehand, so no link can wait there. It is flushed to the disk first
    where it is to be durable, and removed where the block fails.

    Raises:
        OSError: as :func:`write_atomic`.
    """
    temporary = temporary_name(path)
    _writing.add(temporary.name)
    try:
        # 0o666 and not mkstemp's 0o600: a colleague with access to the folder may read it
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW, 0o666))
        yield temporary
        if durable:
            with open(temporary, "rb") as stream:
                os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    finally:
        _writing.discard(temporary.name)
    if durable:
        _sync_folder(path.parent)


def temporary_name(path: Path) -> Path:
    """A new hidden name beside ``path``, by which :func:`remove_leftovers` knows its writer."""
    stem = path.name[:_LONGEST_STEM]
    return path.with_name(f".{stem}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def remove_leftovers(folder: Path, name: str = "") -> None:
    """Remove what killed writers left half-written in a folder, and nothing else.

    What a process of this machine is still writing stays.

    Args:
        folder: may be missing.
        name: of the file that was to be written; any where empty.
    """
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        match = _TEMPORARY.fullmatch(entry.name)
        ours = match is not None and entry.name.startswith(f".{name[:_LONGEST_STEM]}")
        if match is None or not ours or _is_being_written(entry.name, int(match[1])):
            continue
        with contextlib.suppress(OSError):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)


def _is_being_written(name: str, pid: int) -> bool:
    return name in _writing if pid == os.getpid() else is_alive(pid)


def is_alive(pid: int) -> bool:
    """Whether there is a process of this number on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


_NO_FOLLOW: int = getattr(os, "O_NOFOLLOW", 0)


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut, where the file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
