"""Where a command's words go: results on stdout, everything else on stderr."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, TextIO, TypeVar

from sparsevit.cli import environment
from sparsevit.report.terminal import Terminal

environment.settle()

STDOUT_FD = 1
STDERR_FD = 2

Result = TypeVar("Result")

STDOUT_REMEDY = "Send the output elsewhere, or to a disk with free space."


class StdoutError(Exception):
    """The result cannot be written to stdout: it is closed, or the disk behind it is full."""


err = Terminal(stderr=True)
"""Progress, notes, warnings and errors. Never a result."""


@dataclasses.dataclass
class _Quiet:
    """What :func:`quiet_stdout` set aside."""

    write: Callable[[str], None]
    saved_fd: int
    documents: int = 0


_quiet: _Quiet | None = None


def emit(result: Result, as_json: bool, render: Callable[[Result], Any]) -> None:
    """Print a command's result on stdout: one JSON document, or what ``render`` makes of it.

    Args:
        result: mapping or dataclass. Paths, enums, dataclasses, tensors and arrays become plain
            JSON; NaN and infinities become null, as JSON has none. The keys of a field with
            ``flat`` in its metadata stand among the other fields.
        as_json: the command's ``--json``.
        render: called with ``result`` without ``--json``; returns what rich shall print (a table, a
            group, a string), or None where it has nothing to add.
    """
    if as_json:
        write_stdout(json.dumps(to_plain(result), indent=2, allow_nan=False) + "\n")
        return
    rendered = render(result)
    if rendered is not None:
        with _telling_of_stdout():
            # soft wrap: lines of text stay whole, so that a path in them can be copied
            Terminal().print(rendered, soft_wrap=True)


def to_plain(value: Any) -> Any:
    """``value`` with nothing in it but dict, list, str, int, float, bool and None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        plain: dict[str, Any] = {}
        for field in dataclasses.fields(value):
            item = to_plain(getattr(value, field.name))
            plain.update(item if field.metadata.get("flat") else {field.name: item})
        return plain
    if isinstance(value, Enum):
        return to_plain(value.value)
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_plain(item) for item in value]
    if isinstance(value, (str, bool, int)) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return to_plain(value.tolist())
    return str(value)


def write_stdout(text: str) -> None:
    """Write to the stdout that the user sees, also inside :func:`quiet_stdout`."""
    with _telling_of_stdout():
        if _quiet is None:
            sys.stdout.write(text)
            sys.stdout.flush()
            return
        _quiet.documents += 1
        _quiet.write(text)


def flush_stdout() -> None:
    """Let what waits for stdout leave, while a failure can still be told.

    Raises:
        StdoutError: it cannot be written.
    """
    with _telling_of_stdout():
        sys.stdout.flush()


def give_up_stdout() -> None:
    """Nothing more reaches stdout: what still waits for it would fail when the process ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, STDOUT_FD)
    os.close(null)


@contextlib.contextmanager
def _telling_of_stdout() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StdoutError(
            f"The result cannot be written to standard output: {error.strerror or error}."
        ) from error


def document_written() -> bool:
    """Whether the running :func:`quiet_stdout` has let a document through."""
    return _quiet is not None and _quiet.documents > 0


@contextlib.contextmanager
def quiet_stdout() -> Iterator[None]:
    """Send whatever is printed to stdout to stderr, also from C code and from child processes.

    Only :func:`emit` still reaches the real stdout. Entering it again inside itself does nothing.
    """
    global _quiet
    if _quiet is not None:
        yield
        return

    visible = sys.stdout
    _flush()
    saved_fd = os.dup(STDOUT_FD)
    _quiet = _Quiet(write=_writer(visible, saved_fd), saved_fd=saved_fd)
    try:
        os.dup2(STDERR_FD, STDOUT_FD)
        sys.stdout = sys.stderr
        yield
    finally:
        # what waits in buffers must leave before the descriptor comes back
        _flush()
        sys.stdout = visible
        os.dup2(saved_fd, STDOUT_FD)
        os.close(saved_fd)
        _quiet = None


@contextlib.contextmanager
def real_stdout() -> Iterator[None]:
    """Inside :func:`quiet_stdout`: give child processes the stdout that the user sees."""
    if _quiet is None:
        yield
        return
    _flush()
    muted_fd = os.dup(STDOUT_FD)
    os.dup2(_quiet.saved_fd, STDOUT_FD)
    try:
        yield
    finally:
        os.dup2(muted_fd, STDOUT_FD)
        os.close(muted_fd)


def _writer(visible: TextIO, saved_fd: int) -> Callable[[str], None]:
    """How to reach what stdout was: its descriptor, or the object of a caller that captures it."""
    try:
        is_descriptor = visible.fileno() == STDOUT_FD
    except (OSError, ValueError, AttributeError):
        is_descriptor = False

    def write(text: str) -> None:
        if not is_descriptor:
            visible.write(text)
            visible.flush()
            return
        data = memoryview(text.encode("utf-8"))
        while data:
            data = data[os.write(saved_fd, data) :]

    return write


def _flush() -> None:
    for stream in (sys.stdout, sys.__stdout__, sys.stderr):
        if stream is not None and not stream.closed:
            with contextlib.suppress(OSError):
                stream.flush()
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).fflush(None)
