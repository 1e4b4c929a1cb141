"""Files that hold studies: what is not ours is left as it is, and reading one never writes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from sparsevit.errors import UserError
from sparsevit.search.storage import shown_url, storage_url

_HEADER = b"SQLite format 3\0"
_TABLES = {"studies", "trials", "version_info"}
_LONGEST_LINE = 1 << 20
# Another worker holds an SQLite file for an instant; who holds it longer does something else.
_LOCKED_SECONDS = 5.0
_MEMORY = "/dev/shm"

ANOTHER = "Give a new file, or one made by an earlier search, with --storage."
MEND = "Restore it from a copy, or search anew with --force, in a new file."


def study_file(storage: str | os.PathLike[str]) -> tuple[str, Path] | None:
    """``sqlite`` or ``journal``, and the file of a storage; None where it is a server's or none.

    Raises:
        UserError: it is the URL of a file on another host, or of no file.
    """
    # a dash is no name for a file either: people mean a stream
    if os.fspath(storage).strip() in ("", "-"):
        raise UserError(f"The storage {os.fspath(storage)!r} names no file.", ANOTHER)
    kind, _, rest = storage_url(storage).partition("://")
    if kind in ("sqlite", "journal") and not rest.startswith("/"):
        raise UserError(
            f"The storage {shown_url(storage)} names a host, and {kind} is a file.",
            f"Write {kind}:/// and the path, or the path alone.",
        )
    path = rest.removeprefix("/").partition("?")[0] if kind == "sqlite" else rest.removeprefix("/")
    if kind not in ("sqlite", "journal") or path.startswith("file:"):
        return None
    if path.startswith("~"):
        raise UserError(
            f"The storage {shown_url(storage)}: a URL knows no home folder.",
            "Write the path in full, or give the path alone.",
        )
    if Path(path).name in ("", ":memory:"):
        raise UserError(
            f"The storage {shown_url(storage)} is no file: what is in memory is gone when the "
            "search ends.",
            ANOTHER,
        )
    return kind, Path(path)


def check_study_file(storage: str | os.PathLike[str]) -> None:
    """Refuse a file that holds something else, before anything is written to it.

    Raises:
        UserError: it is no study's, is damaged, or is locked by another program.
    """
    found = study_file(storage)
    if found is None or not _is_there(found[1]):
        return
    with snapshot(storage):
        kind, path = found
    if kind == "sqlite" and path.stat().st_size:
        with _told_of(path), closing(sqlite3.connect(path, timeout=_LOCKED_SECONDS)) as writer:
            writer.isolation_level = None
            writer.execute("BEGIN IMMEDIATE")
            writer.execute("ROLLBACK")


def _is_there(path: Path) -> bool:
    try:
        return os.path.lexists(path)
    except ValueError:
        return True  # no path at all: said by who looks at it


@contextmanager
def snapshot(storage: str | os.PathLike[str]) -> Iterator[str]:
    """The URL of a copy of a study's file as it is now, to read; of a server's storage its own.

    Raises:
        UserError: there is no such file, or as :func:`check_study_file`.
    """
    found = study_file(storage)
    if found is None:
        yield storage_url(storage)
        return
    kind, path = found
    _refuse_what_is_no_file(path)
    with tempfile.TemporaryDirectory(prefix="sparsevit-", dir=_place_for(path)) as folder:
        copy = Path(folder, path.name)
        if kind == "sqlite":
            _copy_sqlite(path, copy)
        else:
            _copy_journal(path, copy)
        yield f"{kind}:///{copy}"


def _place_for(path: Path) -> str | None:
    """Where a copy goes: to memory where there is room, so that a full disk can be looked at."""
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(_MEMORY).free
        if os.access(_MEMORY, os.W_OK) and free > 4 * path.stat().st_size:
            return _MEMORY
    return None


def _refuse_what_is_no_file(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"The study's file {path} cannot be read: {reason}.",
            "Check the path, or search first: `sparsevit search`.",
        ) from error
    if not stat.S_ISREG(mode):
        raise UserError(
            f"The study's file {path} cannot be opened: it is not a regular file.", ANOTHER
        )


def _copy_sqlite(path: Path, copy: Path) -> None:
    with _told_of(path):
        with open(path, "rb") as stream:
            header = stream.read(len(_HEADER))
        if header not in (b"", _HEADER):
            raise _foreign(path, "it is not an SQLite database")
        try:
            _back_up(path, copy)
        except sqlite3.OperationalError as error:
            # a writer was killed: SQLite itself takes back what it had begun, in the copy
            left = [end for end in ("-journal", "-wal") if Path(f"{path}{end}").exists()]
            if "locked" in str(error) or not left:
                raise
            for end in (*left, ""):
                shutil.copyfile(f"{path}{end}", f"{copy}{end}")
        _check_sqlite(path, copy)


def _back_up(path: Path, copy: Path) -> None:
    with closing(_read_only(path)) as reader, closing(sqlite3.connect(copy)) as target:
        reader.execute("BEGIN")
        # holds off writers: backup() would wait for one for ever
        reader.execute("SELECT count(*) FROM sqlite_master").fetchone()
        reader.backup(target)


def _read_only(path: Path) -> sqlite3.Connection:
    uri = f"file:{quote(str(path.absolute()))}?mode=ro"
    return sqlite3.connect(uri, uri=True, timeout=_LOCKED_SECONDS, isolation_level=None)


def _check_sqlite(path: Path, copy: Path) -> None:
    with closing(sqlite3.connect(copy)) as database:
        rows = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        tables = {name for (name,) in rows}
        if tables and not tables >= _TABLES:
            raise UserError(
                f"The study's file {path} cannot be opened: it belongs to another program.", ANOTHER
            )
        (damage,) = database.execute("PRAGMA quick_check(1)").fetchone()
        if damage != "ok":
            raise UserError(f"The study's file {path} is damaged: {damage}.", MEND)


@contextmanager
def _told_of(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        if "locked" in str(error):
            raise UserError(
                f"The study's file {path} is locked by another program.",
                f"Wait until it is done (`fuser -v {path}` shows which it is).",
            ) from error
        if "readonly" in str(error) or "unable to open" in str(error):
            raise UserError(
                f"The study's file {path} cannot be opened: {error}.", "Check its permissions."
            ) from error
        raise UserError(f"The study's file {path} is damaged: {error}.", MEND) from error
    except OSError as error:
        raise UserError(
            f"The study's file {path} cannot be read: {error.strerror or error}.",
            "Check its permissions, and that there is free space.",
        ) from error


def _copy_journal(path: Path, copy: Path) -> None:
    with _told_of(path):
        with open(path, "rb") as stream:
            for number, line in enumerate(iter(lambda: stream.readline(_LONGEST_LINE), b"")):
                # the last one may be cut short, by a process that was killed
                if not _is_journal(line) and (number == 0 or line.endswith(b"\n")):
                    raise UserError(
                        f"The study's file {path} cannot be opened: its line {number + 1} is not "
                        "of the journal of a study.",
                        ANOTHER,
                    )
        shutil.copyfile(path, copy)


def _is_journal(line: bytes) -> bool:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(entry, dict) and {"op_code", "worker_id"} <= set(entry)


def _foreign(path: Path, why: str) -> UserError:
    return UserError(f"The study's file {path} cannot be opened: {why}.", ANOTHER)
