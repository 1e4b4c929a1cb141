"""The record ``workspace.json``: its form, reading, checking, migrating and writing it."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any

from sparsevit.atomic import remove_leftovers, write_atomic
from sparsevit.errors import UserError
from sparsevit.plain_files import read_regular

FORMAT_VERSION = 1
RECORD_NAME = "workspace.json"

Document = dict[str, Any]

MIGRATIONS: dict[int, Callable[[Document], Document]] = {}
"""From a format version to the step that makes the next one of it. The first version needs none."""

RUNNING = "running"
FINISHED = "finished"
FAILED = "failed"
INTERRUPTED = "interrupted"
STATUSES = (RUNNING, FINISHED, FAILED, INTERRUPTED)


@dataclass(frozen=True)
class RunRecord:
    """One run of a phase.

    Args:
        id: ``run-001``, unique within the phase.
        phase: its name.
        status: ``running``, ``finished``, ``failed`` or ``interrupted``.
        started: ISO 8601, UTC. Of the first attempt.
        ended: the same, None while it runs.
        seconds: time spent, all attempts together (of a killed one up to its last update).
        attempts: how often it was started: 1, and one more for each time that it was resumed.
        command: the command line of the last attempt.
        inputs: what it was given, JSON types.
        inputs_digest: see :func:`sparsevit.workspace.inputs_digest`.
        outputs: name -> path, relative to the workspace where it lies within.
        metrics: name -> value, JSON types.
        error: why it failed.
        directory: its folder, relative to the workspace.
        versions: of Python and the libraries.
        git: ``{"commit", "dirty"}`` of the repository where the command ran, or None.
        pid, host: the process of the last attempt.
    """

    id: str
    phase: str
    status: str
    started: str
    ended: str | None = None
    seconds: float = 0.0
    attempts: int = 1
    command: str = ""
    inputs: dict[str, Any] = field(default_factory=dict)
    inputs_digest: str = ""
    outputs: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    directory: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    git: dict[str, Any] | None = None
    pid: int = 0
    host: str = ""

    @property
    def name(self) -> str:
        """``pretrain run-001``."""
        return f"{self.phase} {self.id}"

    @property
    def replaces(self) -> str:
        """Of a later attempt at a finished run, that run's id: of ``run-001.2`` ``run-001``."""
        return self.id.partition(".")[0]

    @property
    def is_attempt(self) -> bool:
        """Whether it is a later attempt at a finished run, which is there until this one ends."""
        return self.replaces != self.id

    def to_dict(self) -> dict[str, Any]:
        """As the record keeps it, in the order that a person reads."""
        return asdict(self)

    @classmethod
    def from_dict(cls, entry: dict[str, Any]) -> RunRecord:
        """Of an entry of the record; names that it does not know are left alone.

        Raises:
            TypeError, ValueError: it is no such entry.
        """
        known = {key: entry[key] for key in entry if key in _TYPES}
        for name, value in known.items():
            is_flag = isinstance(value, bool)  # which Python counts among the numbers
            if is_flag or not isinstance(value, _TYPES[name]):
                raise TypeError(f"{name} is a {type(value).__name__}: {str(value)[:80]!r}")
        record = cls(**known)
        if record.status not in STATUSES:
            raise ValueError(f"status is {record.status!r}")
        if not _ID.fullmatch(record.id):
            raise ValueError(f"id is {record.id!r}")
        if not 0 <= record.seconds <= _MOST or not 0 <= record.attempts <= _MOST:
            raise ValueError(f"{record.id} took {record.seconds} s in {record.attempts} attempts")
        if record.pid > _MOST:
            raise ValueError(f"pid is {record.pid}")
        within = PurePosixPath(record.directory)
        if within.is_absolute() or ".." in within.parts:
            raise ValueError(f"the directory {record.directory!r} is not within the workspace")
        if not all(isinstance(path, str) for path in record.outputs.values()):
            raise TypeError(f"an output of {record.id} is not a path")
        for path in (record.directory, *record.outputs.values()):
            if "\0" in path:
                raise ValueError(f"{path!r} is not a path")
            os.fsencode(path)
        return record


# `run-001`, and `run-001.2` of a later attempt at it
_ID = re.compile(r"run-\d{1,9}(\.\d{1,9})?")
# Seconds, attempts and processes beyond it are nobody's.
_MOST = 1e12
_DEEPEST = 40


_TYPES: dict[str, tuple[type, ...]] = {
    "id": (str,),
    "phase": (str,),
    "status": (str,),
    "started": (str,),
    "ended": (str, type(None)),
    "seconds": (float, int),
    "attempts": (int,),
    "command": (str,),
    "inputs": (dict,),
    "inputs_digest": (str,),
    "outputs": (dict,),
    "metrics": (dict,),
    "error": (str, type(None)),
    "directory": (str,),
    "versions": (dict,),
    "git": (dict, type(None)),
    "pid": (int,),
    "host": (str,),
}
assert set(_TYPES) == {each.name for each in fields(RunRecord)}


def empty_document() -> Document:
    """The record of a workspace where nothing ran."""
    return {"version": FORMAT_VERSION, "phases": {}, "digests": {}}


def read_document(directory: Path) -> Document:
    """The record of the workspace ``directory`` in today's format; empty where there is none.

    Raises:
        UserError: it cannot be read, is no record, or was written by a newer sparsevit.
    """
    path = directory / RECORD_NAME
    try:
        text = read_regular(path)
    except (FileNotFoundError, NotADirectoryError):
        return empty_document()
    except UnicodeDecodeError as error:
        raise _corrupt(path, f"it is not UTF-8 text ({error.reason})") from error
    except OSError as error:
        raise UserError(
            f"The workspace's record {path} cannot be read: {error.strerror or error}.",
            "Check its permissions, or use another workspace with --workspace.",
        ) from error
    try:
        document = json.loads(text, parse_constant=_refuse_constant)
        _refuse_odd_values(document)
    except RecursionError as error:
        raise _corrupt(path, "it is nested too deeply") from error
    except ValueError as error:
        raise _corrupt(path, str(error)) from error
    document = _migrate(document, path)
    _check(document, path)
    return document


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _refuse_odd_values(value: Any, depth: int = 0) -> None:
    """What nobody wrote here and much would stumble over: depths, infinities, endless numbers."""
    if depth > _DEEPEST:
        raise ValueError("it is nested too deeply")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("it holds a number that is too large")
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 128:
        raise ValueError("it holds a number that is too large")
    items = value.values() if isinstance(value, dict) else value
    for item in items if isinstance(value, (dict, list)) else ():
        _refuse_odd_values(item, depth + 1)


def write_document(directory: Path, document: Document) -> None:
    """Replace the record of the workspace ``directory``. Only for the holder of its lock.

    Raises:
        UserError: it cannot be written; the old one is as it was.
    """
    path = directory / RECORD_NAME
    try:
        write_atomic(path, _to_text(document))
    except OSError as error:
        raise unwritable(directory, error) from error


def tidy(directory: Path) -> None:
    """Remove what killed writers left half-written: records, results, points of a run."""
    for folder in (directory, *directory.glob("*/"), *directory.glob("*/*/")):
        remove_leftovers(folder)


def runs_of(document: Document, phase: str) -> list[dict[str, Any]]:
    """The entries of ``phase``, the one that ran last at the end; made where it has none."""
    return document["phases"].setdefault(phase, {"runs": []})["runs"]


def records(document: Document, phase: str) -> list[RunRecord]:
    """The runs of ``phase``, the one that ran last at the end."""
    entries = document["phases"].get(phase, {"runs": []})["runs"]
    return [RunRecord.from_dict(entry) for entry in entries]


def put(document: Document, record: RunRecord, *, last: bool = False) -> None:
    """Set the entry of ``record``, keeping names in it that this version does not know.

    Args:
        last: move it to the end, as the one that ran last.
    """
    entries = runs_of(document, record.phase)
    index = next((i for i, entry in enumerate(entries) if entry["id"] == record.id), None)
    if index is None:
        entries.append(record.to_dict())
        return
    entry = {**record.to_dict(), **_unknown(entries[index])}
    if not last:
        entries[index] = entry
        return
    del entries[index]
    entries.append(entry)


def settle(document: Document, record: RunRecord) -> RunRecord:
    """Let a later attempt that has finished take the place of its run; the record as it is then."""
    entries = runs_of(document, record.phase)
    entries[:] = [entry for entry in entries if entry["id"] != record.id]
    record = replace(record, id=record.replaces)
    put(document, record, last=True)
    return record


def unwritable(directory: Path, error: OSError | None = None) -> UserError:
    """The error for a workspace that cannot be written."""
    reason = f": {error.strerror or error}" if error is not None else ""
    return UserError(
        f"The workspace {directory} cannot be written{reason}.",
        "Give a directory that you can write to and that has free space, with --workspace or "
        "SPARSEVIT_WORKSPACE.",
    )


def _to_text(document: Document) -> str:
    """Indented JSON, names readable in every script."""
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if _is_utf8(text):
        return text
    # a file name that is no text (a lone surrogate in Python) survives as an escape only
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _unknown(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in _TYPES}


def _migrate(document: Any, path: Path) -> Document:
    version = document.get("version") if isinstance(document, dict) else None
    if not isinstance(version, int) or isinstance(version, bool):
        raise _corrupt(path, "it has no format version")
    if version > FORMAT_VERSION:
        raise UserError(
            f"The workspace's record {path} has format version {version}; this sparsevit reads "
            f"up to {FORMAT_VERSION}.",
            "Update sparsevit (`pip install -U sparsevit`), or use another workspace with "
            "--workspace.",
        )
    while version < FORMAT_VERSION:
        step = MIGRATIONS.get(version)
        if step is None:
            raise _corrupt(path, f"there was never a format version {version}")
        document = {**step(document), "version": version + 1}
        version += 1
    return document


def _check(document: Document, path: Path) -> None:
    """Raise for what is JSON but no record, so that nothing fails half way on it."""
    try:
        if not isinstance(document.setdefault("digests", {}), dict):
            raise TypeError("digests is not an object")
        for phase, entry in document["phases"].items():
            ids = [run["id"] for run in entry["runs"]]
            if len(ids) != len(set(ids)):
                raise ValueError(f"two runs of {phase} have the same id")
            for run in entry["runs"]:
                if RunRecord.from_dict(run).phase != phase:
                    raise ValueError(f"a run of {run['phase']} is listed under {phase}")
    except KeyError as error:
        raise _corrupt(path, f"{error} is missing") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise _corrupt(path, str(error)) from error


def _corrupt(path: Path, reason: str) -> UserError:
    return UserError(
        f"The workspace's record {path} is not a valid record: {reason}.",
        f"Repair it, or move it away (`mv {path.name} {path.name}.broken`) to start a new one: the "
        "run directories stay as they are. Or use another workspace with --workspace.",
    )
