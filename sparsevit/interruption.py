"""Ctrl-C and SIGTERM: raised where they arrive, and remembered, as libraries swallow exceptions.

Within :func:`remembered`, whatever is raised after a signal is an interruption, also where a
library made another error of it, and :func:`check` stops what went on all the same.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

CODES: dict[int, int] = {signal.SIGINT: 128 + signal.SIGINT, signal.SIGTERM: 128 + signal.SIGTERM}
"""The exit code of a process that was told to end by a signal."""

_DEFAULTS: dict[int, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
}


class Terminated(SystemExit):
    """SIGTERM came. Ends the process with code 143, once what went on is recorded."""


_received: int | None = None
_late = False
_depth = 0
_owner = 0


def received() -> int | None:
    """The first signal that came within :func:`remembered`, None where none did."""
    return _received


def exit_code() -> int:
    """The exit code of a process that was interrupted; 130 where it interrupted itself."""
    return CODES[signal.SIGINT if _received is None else _received]


def note(number: int) -> None:
    """Remember a signal that someone else's handler took."""
    global _received
    if _received is None:
        _received = number


def check() -> None:
    """Stop what goes on although a signal came, because a library swallowed its exception.

    Raises:
        KeyboardInterrupt, Terminated: a signal came.
    """
    if _received is not None and os.getpid() == _owner and _is_main_thread():
        _raise(_received)


@contextmanager
def remembered(last: bool = False) -> Iterator[None]:
    """Remember the signals that come, where nobody else has a say in them; may be nested.

    Forked children do not remember: in them SIGTERM ends the process, and Ctrl-C is as ever.

    Args:
        last: the process is to end after it, and what it was told cannot be changed any more.
    """
    global _received, _owner
    taken = _take()
    if taken:
        _received, _owner = None, os.getpid()
    try:
        with _quiet_when_swallowed():
            yield
    finally:
        if taken and os.getpid() == _owner:
            for number, before in taken.items():
                signal.signal(number, signal.SIG_IGN if last else before)
            _received = None


def ignore_more() -> None:
    """Take no further signal within :func:`remembered`: what the first asked for is under way."""
    for number in CODES:
        if _is_main_thread() and _is(number, _handle):
            signal.signal(number, signal.SIG_IGN)


def end_at_once() -> None:
    """Until :func:`remembered` begins, let a signal end the process: nothing has begun."""
    for number, known in _DEFAULTS.items():
        if _is_main_thread() and _is(number, known):
            signal.signal(number, _end)


@contextmanager
def deferred() -> Iterator[None]:
    """Let a signal wait until the end of the block: for a few instructions that belong together."""
    global _depth, _late
    if not _is_main_thread():
        yield
        return
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        late, _late = _late and not _depth, _late and bool(_depth)
        if late:
            check()


def _take() -> dict[int, Any]:
    """Put our handler in the place of the system's and Python's; what was there."""
    if not _is_main_thread():
        return {}
    taken = {n: known for n, known in _DEFAULTS.items() if _is(n, known) or _is(n, _end)}
    for number in taken:
        signal.signal(number, _handle)
    return taken


def _is(number: int, handler: Any) -> bool:
    return signal.getsignal(number) is handler


def _handle(number: int, frame: FrameType | None) -> None:
    global _late
    if os.getpid() != _owner:
        if number == signal.SIGTERM:
            os._exit(CODES[signal.SIGTERM])  # a forked worker, which has nothing to record
        raise KeyboardInterrupt
    note(number)
    if _depth:
        _late = True
        return
    _raise(number)


def _end(number: int, frame: FrameType | None) -> None:
    with suppress(OSError):
        os.write(2, b"\nInterrupted.\n")
    os._exit(CODES[number])


def _raise(number: int) -> NoReturn:
    if number == signal.SIGTERM:
        raise Terminated(CODES[signal.SIGTERM])
    raise KeyboardInterrupt


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextmanager
def _quiet_when_swallowed() -> Iterator[None]:
    """No traceback of an interruption that came in a destructor, where Python only prints it."""
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if _received is None or not isinstance(
            unraisable.exc_value, (KeyboardInterrupt, Terminated)
        ):
            before(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before
