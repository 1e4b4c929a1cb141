"""What a phase says while it works, and to whom: a terminal, or nobody."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from sparsevit import interruption
from sparsevit.report.terminal import one_line


class Task(Protocol):
    """One piece of work with a known number of steps."""

    def advance(self, steps: int = 1, detail: str = "") -> None:
        """``steps`` more are done; ``detail`` replaces the words beside the bar.

        Raises:
            KeyboardInterrupt, Terminated: a signal came, and a library swallowed its exception.
        """

    def start_at(self, completed: int) -> None:
        """``completed`` steps were done before, by a run that stopped."""


class Reporter(Protocol):
    """Where notes and progress go."""

    def heading(self, text: str) -> None:
        """One line that begins something new."""

    def note(self, text: str) -> None:
        """One line that the user should read."""

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Task]:
        """A piece of work of ``total`` steps."""


class SilentReporter:
    """Says nothing: for Python callers, and for every process but the first."""

    def heading(self, text: str) -> None:
        return None

    def note(self, text: str) -> None:
        return None

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Task]:
        yield _SilentTask()


class _SilentTask:
    def advance(self, steps: int = 1, detail: str = "") -> None:
        interruption.check()

    def start_at(self, completed: int) -> None:
        return None


class ConsoleReporter:
    """Notes and one progress display on a terminal; without one, a line now and then.

    Args:
        console: where to; standard error, so that results alone go to standard output.
    """

    def __init__(self, console: Console) -> None:
        self.console = console

    def heading(self, text: str) -> None:
        self._line(Text(one_line(text), "bold"))

    def note(self, text: str) -> None:
        self._line(Text.assemble(("- ", "dim"), one_line(text)))

    def _line(self, text: Text) -> None:
        # a path is copied from here: it must not be broken, nor read as markup
        self.console.print(text, soft_wrap=True, highlight=False)

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Task]:
        if not self.console.is_terminal:
            yield _LineTask(self.console, description, total)
            return
        progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}", markup=False),
            console=self.console,
        )
        with progress:
            yield _BarTask(progress, description, total)


class _BarTask:
    def __init__(self, progress: Progress, description: str, total: int) -> None:
        self._progress = progress
        self._id = progress.add_task(description, total=total, detail="")

    def advance(self, steps: int = 1, detail: str = "") -> None:
        interruption.check()
        self._progress.update(self._id, advance=steps, detail=detail)

    def start_at(self, completed: int) -> None:
        self._progress.update(self._id, completed=completed)


class _LineTask:
    """Ten lines a task at most: a log file or a CI page wants no thousand of them."""

    def __init__(self, console: Console, description: str, total: int) -> None:
        self._console, self._description, self._total = console, description, max(1, total)
        self._done = 0

    def advance(self, steps: int = 1, detail: str = "") -> None:
        interruption.check()
        before, self._done = self._done, self._done + steps
        if self._done * 10 // self._total > before * 10 // self._total:
            line = f"{self._description} {self._done}/{self._total} {detail}".rstrip()
            self._console.print(one_line(line), highlight=False, markup=False)

    def start_at(self, completed: int) -> None:
        self._done = completed


SILENT = SilentReporter()
