"""Where the time of a call goes: some of its functions timed from within."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from shared.record import wait

Part = tuple[str, Any, str]
"""What it is called, the object or module that has the function, and the function's name there."""


class Stopwatch:
    """Adds up the milliseconds spent in functions while they are watched.

    A function that runs within another watched one counts for the outer one alone.
    """

    def __init__(self) -> None:
        self.spent_ms: dict[str, float] = {}
        self._inside = False

    @contextmanager
    def watching(self, parts: Sequence[Part]) -> Iterator[None]:
        """Within this context, every call of the parts is timed."""
        with ExitStack() as stack:
            for name, owner, attribute in parts:
                timed = self._timed(name, getattr(owner, attribute))
                stack.enter_context(mock.patch.object(owner, attribute, timed))
            yield

    def split(self, call: Callable[[], Any]) -> tuple[float, dict[str, float]]:
        """Milliseconds of a call, and of the watched parts within it."""
        self.spent_ms = {}
        wait()
        started = time.perf_counter()
        call()
        wait()
        return 1000 * (time.perf_counter() - started), self.spent_ms

    def _timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            if self._inside:
                return function(*args, **kwargs)
            self._inside = True
            wait()
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                wait()
                passed = 1000 * (time.perf_counter() - started)
                self.spent_ms[name] = self.spent_ms.get(name, 0.0) + passed
                self._inside = False

        return timed
