"""One run of a phase: takes the lock, finds what to go on from, records all that happens."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from sparsevit import interruption
from sparsevit.atomic import temporary_name
from sparsevit.errors import RunFailed, UserError
from sparsevit.secrets import masked
from sparsevit.workspace import provenance
from sparsevit.workspace.digest import DigestCache, differing, inputs_digest, to_json
from sparsevit.workspace.lock import WriterLock
from sparsevit.workspace.record import (
    FAILED,
    FINISHED,
    INTERRUPTED,
    RUNNING,
    Document,
    RunRecord,
    put,
    read_document,
    records,
    settle,
    tidy,
    unwritable,
    write_document,
)

_active: set[tuple[Path, str, str]] = set()
"""(workspace, phase, id) of the runs that this process is in: they are not left over."""


class Run:
    """A context manager, made by :meth:`sparsevit.workspace.Workspace.run`."""

    def __init__(
        self,
        workspace: Path,
        phase: str,
        inputs: Mapping[str, Any],
        *,
        force: bool,
        resume: bool,
        extendable: Collection[str],
        digests: DigestCache,
    ) -> None:
        self._workspace = workspace
        self._phase = phase
        self._inputs: dict[str, Any] = to_json(inputs)
        self._force = force
        self._resume = resume
        self._extendable = frozenset(extendable)
        self._digests = digests
        self._lock = WriterLock(workspace)
        self._record: RunRecord | None = None
        self._resumed = False
        self._seconds_before = 0.0
        self._clock = 0.0
        self._signals = contextlib.ExitStack()

    @property
    def record(self) -> RunRecord:
        """The run as it is recorded at this moment."""
        if self._record is None:
            raise RuntimeError("a run has a record once its `with` block is entered")
        return self._record

    @property
    def name(self) -> str:
        """``pretrain run-001``, also while it is a later attempt at that run."""
        return f"{self._phase} {self.record.replaces}"

    @property
    def resumed(self) -> bool:
        """Whether it goes on in the directory of an earlier attempt."""
        return self._resumed

    @property
    def directory(self) -> Path:
        """Its own folder: absolute, exists."""
        return self._workspace / self.record.directory

    def update(
        self,
        metrics: Mapping[str, Any] | None = None,
        outputs: Mapping[str, str | os.PathLike[str]] | None = None,
    ) -> None:
        """Add to the record and write it now: what was reported here outlives a kill.

        Args:
            metrics: name -> number, string, list or mapping of such.
            outputs: name -> path; a relative one is taken from :attr:`directory`, else, where only
                that exists, from the workspace.

        Raises:
            UserError: the workspace cannot be written.
        """
        interruption.check()
        named = {key: self._relative(Path(path)) for key, path in (outputs or {}).items()}
        self._save(
            metrics={**self.record.metrics, **to_json(metrics or {})},
            outputs={**self.record.outputs, **named},
        )

    def __enter__(self) -> Run:
        try:
            self._workspace.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(self._workspace, error) from error
        self._signals.enter_context(interruption.remembered())
        try:
            self._lock.acquire(self._phase)
            self._begin()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if os.getpid() != self.record.pid:
            return  # a forked child left the block: the run is its parent's
        try:
            with interruption.deferred():
                if error is None and interruption.received() is None:
                    self._save(status=FINISHED, ended=provenance.now())
                    return
                # a full disk must not hide what went wrong before it
                with contextlib.suppress(UserError):
                    self._save(
                        status=_status_after(error), ended=provenance.now(), error=_describe(error)
                    )
            # what a library made of the signal's exception, or left of it, is none of its own
            interruption.check()
        finally:
            self._leave()

    def _begin(self) -> None:
        tidy(self._workspace)
        document = read_document(self._workspace)
        mark_left_over(document, self._workspace)
        earlier = self._earlier(records(document, self._phase))
        self._resumed = earlier is not None
        if earlier is not None and earlier.status == FINISHED:
            earlier = self._attempt_at(earlier)
        self._seconds_before = earlier.seconds if earlier else 0.0
        self._clock = time.monotonic()
        self._record = replace(
            earlier or self._new(document),
            status=RUNNING,
            ended=None,
            error=None,
            attempts=earlier.attempts + 1 if earlier else 1,
            command=provenance.command_line(),
            inputs=self._inputs,
            inputs_digest=inputs_digest(self._inputs),
            versions=provenance.versions(),
            git=provenance.git_state(),
            pid=os.getpid(),
            host=provenance.hostname(),
        )
        put(document, self._record, last=True)
        document["digests"] = self._digests.merge_into(document["digests"])
        # the record goes first: a directory that it does not know would never be gone on from
        write_document(self._workspace, document)
        _active.add(self._key)
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(self._workspace, error) from error

    def _earlier(self, runs: list[RunRecord]) -> RunRecord | None:
        """The run to go on from, None for a new one."""
        if self._force:
            return None
        ignore = self._extendable if self._resume else frozenset()
        wanted = inputs_digest(self._inputs, ignore)
        same = [run for run in runs if inputs_digest(run.inputs, ignore) == wanted]
        if not same:
            if self._resume and runs:
                raise self._nothing_to_resume(runs[-1])
            return None
        earlier = _still_to_end(same, wanted, self._resume)
        if (self._workspace.resolve(), self._phase, earlier.id) in _active:
            raise UserError(
                f"{earlier.name} is already running in this process.", "Wait until it has ended."
            )
        if earlier.status == FINISHED and not self._resume:
            raise self._already_done(earlier)
        return earlier

    def _attempt_at(self, finished: RunRecord) -> RunRecord:
        """A later attempt at a finished run, in a copy of its directory: nothing of it is touched.

        Until it finishes the record has both; then it takes the finished one's place.
        """
        attempt = finished.attempts + 1
        directory = f"{self._phase}/{finished.replaces}.{attempt}"
        before, after = self._workspace / finished.directory, self._workspace / directory
        copy = temporary_name(after)
        try:
            if before.is_dir():
                shutil.copytree(before, copy, symlinks=True, ignore=_no_locks)
            else:
                copy.mkdir(parents=True)
            # what an attempt that failed left is begun anew
            shutil.rmtree(after, ignore_errors=True)
            copy.rename(after)
        except (OSError, shutil.Error) as error:
            shutil.rmtree(copy, ignore_errors=True)
            raise unwritable(self._workspace, error) from error
        except BaseException:
            shutil.rmtree(copy, ignore_errors=True)
            raise
        outputs = {
            key: f"{directory}{path.removeprefix(finished.directory)}"
            if path.startswith(f"{finished.directory}/")
            else path
            for key, path in finished.outputs.items()
        }
        name = f"{finished.replaces}.{attempt}"
        return replace(finished, id=name, directory=directory, outputs=outputs)

    def _new(self, document: Document) -> RunRecord:
        known = [run.id for run in records(document, self._phase)]
        folder = self._workspace / self._phase
        present = os.listdir(folder) if folder.is_dir() else []
        # directories count too: those of a record that was moved away are never written into
        numbers = [int(m[1]) for m in map(_RUN_NAME.fullmatch, [*known, *present]) if m]
        name = f"run-{max(numbers, default=0) + 1:03d}"
        return RunRecord(
            id=name,
            phase=self._phase,
            status=RUNNING,
            started=provenance.now(),
            directory=f"{self._phase}/{name}",
        )

    def _save(self, **changes: Any) -> None:
        seconds = self._seconds_before + time.monotonic() - self._clock
        record = replace(self.record, seconds=round(seconds, 3), **changes)
        # read again: a run within this run may have written since
        document = read_document(self._workspace)
        put(document, record)
        key = self._key
        if record.is_attempt and record.status == FINISHED:
            record = settle(document, record)
        write_document(self._workspace, document)
        self._record = record
        _active.discard(key)
        _active.add(self._key)

    def _relative(self, path: Path) -> str:
        """``path`` as the record keeps it."""
        if not path.is_absolute():
            within_run = self.directory / path
            within_workspace = self._workspace / path
            only_there = within_workspace.exists() and not within_run.exists()
            path = within_workspace if only_there else within_run
        try:
            return path.relative_to(self._workspace).as_posix()
        except ValueError:
            return str(path)

    @property
    def _key(self) -> tuple[Path, str, str]:
        return (self._workspace.resolve(), self._phase, self.record.id)

    def _leave(self) -> None:
        with interruption.deferred():
            if self._record is not None:
                _active.discard(self._key)
            self._lock.release()
        self._signals.close()

    def _already_done(self, run: RunRecord) -> UserError:
        gone = [path for path in run.outputs.values() if not (self._workspace / path).exists()]
        but = f" But its output {gone[0]} no longer exists." if gone else ""
        return UserError(
            f"{self._phase} is already done with the same inputs: {run.id}, ended {run.ended}, "
            f"see {self._workspace / run.directory}.{but}",
            "Use --force to run it again (the old run is kept) or --resume to continue from it.",
        )

    def _nothing_to_resume(self, last: RunRecord) -> UserError:
        names = [n for n in differing(last.inputs, self._inputs) if n not in self._extendable]
        return UserError(
            f"There is no run of {self._phase} with these inputs to resume: {last.id} differs in "
            f"{', '.join(names)}.",
            "Give the same inputs to continue it, or leave out --resume to start a new run.",
        )


def _still_to_end(same: list[RunRecord], wanted: str, resume: bool) -> RunRecord:
    """Of the runs with the same inputs, that to go on from.

    A later attempt at a finished run counts for nothing where it failed: what was wrong with the
    copy it had (a damaged study) may be mended by now. And the same work is not to be done again
    because an attempt at it was given up.
    """
    last = same[-1]
    finished = [run for run in same if run.id == last.replaces and run.status == FINISHED]
    if not last.is_attempt or not finished:
        return last
    given_up = not resume and inputs_digest(finished[0].inputs) == wanted
    return finished[0] if last.status == FAILED or given_up else last


def _no_locks(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name.endswith((".lock", ".tmp"))]


def mark_left_over(document: Document, workspace: Path) -> None:
    """Mark as interrupted what says that it runs but cannot. Only where no other process writes."""
    for phase in document["phases"]:
        for run in records(document, phase):
            active = (workspace.resolve(), phase, run.id) in _active
            if run.status == RUNNING and not active:
                put(document, replace(run, status=INTERRUPTED))


_RUN_NAME = re.compile(r"run-(\d+)")


def _status_after(error: BaseException | None) -> str:
    if interruption.received() is not None or not isinstance(error, Exception):
        return INTERRUPTED
    return FAILED


def _describe(error: BaseException | None) -> str:
    received = interruption.received()
    if received is not None:
        return "SIGTERM" if received == signal.SIGTERM else "KeyboardInterrupt"
    if isinstance(error, (UserError, RunFailed)):
        return str(error)
    return masked(f"{type(error).__name__}: {error}".rstrip(": "))
