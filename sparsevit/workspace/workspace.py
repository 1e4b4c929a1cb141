"""The workspace as phases see it: begin a run, find what an earlier one made."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsevit.errors import UserError
from sparsevit.workspace.digest import DigestCache, inputs_digest
from sparsevit.workspace.lock import Holder, is_locked, read_holder
from sparsevit.workspace.record import (
    FINISHED,
    RUNNING,
    Document,
    RunRecord,
    read_document,
    records,
    unwritable,
)
from sparsevit.workspace.run import Run, mark_left_over

ENVIRONMENT_VARIABLE = "SPARSEVIT_WORKSPACE"
DEFAULT_DIRECTORY = "work_dirs"
BEST_NAME = "best.yaml"
CHECKPOINT = "checkpoint"
CONFIG = "config"
BEST = "best"
GIVEN = "given"

_PHASE_NAME = re.compile(r"[a-z][a-z0-9_-]*")


@dataclass(frozen=True)
class Resolved:
    """An input and where it came from.

    Args:
        path: the file; of a config that was given, its path or its name as it was typed.
        source_text: ``given``, or the run that made it: ``pretrain run-001``.
    """

    path: Path
    source_text: str


class Workspace:
    """A directory with the record of every phase. Use :meth:`open`, which checks it.

    Args:
        path: the directory.
        readonly: never write; for looking on, and for processes of a rank other than 0.
    """

    def __init__(self, path: str | os.PathLike[str], readonly: bool = False) -> None:
        self.path = Path(os.path.expanduser(path)).absolute()
        self.readonly = readonly
        self._digests: DigestCache | None = None

    @classmethod
    def open(
        cls, path: str | os.PathLike[str] | None = None, create: bool = True, readonly: bool = False
    ) -> Workspace:
        """Open a workspace and check that it can be used.

        Args:
            path: the directory; None for ``$SPARSEVIT_WORKSPACE``, else ``work_dirs``.
            create: make it where it is missing; otherwise it must be there.
            readonly: write nothing, so nothing is made either: a missing one is empty.

        Raises:
            UserError: it is no directory, cannot be written, is missing with ``create=False``, or
                its record is broken or of a newer sparsevit.
        """
        given = path if path is not None else os.environ.get(ENVIRONMENT_VARIABLE)
        workspace = cls(given or DEFAULT_DIRECTORY, readonly)
        try:
            os.fspath(workspace.path).encode("utf-8")
        except UnicodeEncodeError as error:
            raise UserError(
                f"The name of the workspace {workspace.path} is not UTF-8, as its record must be.",
                "Give another directory with --workspace or SPARSEVIT_WORKSPACE.",
            ) from error
        workspace._check_directory(create)
        read_document(workspace.path)
        return workspace

    def run(
        self,
        phase: str,
        inputs: Mapping[str, Any],
        *,
        force: bool = False,
        resume: bool = False,
        extendable: Collection[str] = (),
    ) -> Run:
        """A run of ``phase``, to be entered with ``with``; the workspace is locked within.

        A run with the same inputs that did not finish (killed, failed, interrupted) goes on in its
        directory. Other inputs begin a new run. Leaving the block finishes the run; an exception
        makes it failed; Ctrl-C and SIGTERM make it interrupted.

        Args:
            phase: its name: lower case letters, digits, ``-`` and ``_``.
            inputs: what makes it this run and no other; files as :meth:`reference`.
            force: begin a new run whatever there is; older ones are kept.
            resume: go on from the newest run with the same inputs, though it be finished.
            extendable: inputs that may change on ``resume``, such as a number of trials.

        Raises:
            UserError: on entering: it is already done; there is none with these inputs to resume;
                another process writes the workspace; it cannot be written.
        """
        if self.readonly:
            raise RuntimeError("a workspace that was opened readonly has no runs")
        if not _PHASE_NAME.fullmatch(phase):
            raise ValueError(f"{phase!r} is not a valid name for a phase")
        if force and resume:
            raise UserError(
                "--force and --resume cannot be used together: one starts a new run, the other "
                "continues the last.",
                "Give only one of them.",
            )
        return Run(
            self.path,
            phase,
            inputs,
            force=force,
            resume=resume,
            extendable=extendable,
            digests=self._cache(),
        )

    def history(self, phase: str) -> list[RunRecord]:
        """The runs of ``phase``, the one that ran last at the end."""
        return records(self._document(), phase)

    def last(self, phase: str, finished: bool = True) -> RunRecord | None:
        """The run of ``phase`` that ran last; with ``finished`` the last of those that finished."""
        runs = [run for run in self.history(phase) if run.status == FINISHED or not finished]
        return runs[-1] if runs else None

    def find(self, phase: str, inputs: Mapping[str, Any]) -> RunRecord | None:
        """The newest finished run of ``phase`` with these inputs: what need not be done again."""
        wanted = inputs_digest(inputs)
        runs = [run for run in self.history(phase) if run.status == FINISHED]
        return next((r for r in reversed(runs) if inputs_digest(r.inputs) == wanted), None)

    def output(self, phase: str, key: str) -> Path | None:
        """What the last finished run of ``phase`` made under the name ``key``: absolute path."""
        run = self.last(phase)
        return self.locate(run, key) if run is not None else None

    def locate(self, run: RunRecord, key: str) -> Path | None:
        """The absolute path of the output ``key`` of ``run``."""
        path = run.outputs.get(key)
        return self.path / path if path is not None else None

    def directory_of(self, run: RunRecord) -> Path:
        """The absolute path of the directory of ``run``."""
        return self.path / run.directory

    def status_rows(self) -> list[RunRecord]:
        """Every run, in the order in which they were first started."""
        document = self._document()
        runs = [run for phase in document["phases"] for run in records(document, phase)]
        return sorted(runs, key=lambda run: run.started)

    def writer(self) -> Holder | None:
        """Who writes the workspace at this moment, None where nobody does."""
        return read_holder(self.path) if is_locked(self.path) else None

    def file_digest(self, path: str | os.PathLike[str]) -> str:
        """``sha256:...`` of a file; it is read again only if its size or time has changed.

        Raises:
            UserError: it cannot be read.
        """
        return self._cache().digest(path)

    def reference(self, path: str | os.PathLike[str]) -> dict[str, str]:
        """A file as an input of a run: ``{"path", "sha256"}``, the same wherever it is moved to.

        Raises:
            UserError: it cannot be read.
        """
        return {"path": self._shown(Path(path).absolute()), "sha256": self.file_digest(path)}

    def resolve_checkpoint(
        self, explicit: str | os.PathLike[str] | None, phases: Sequence[str]
    ) -> Resolved | None:
        """The checkpoint to use: the given one, else that of the first of ``phases`` that has one.

        Raises:
            UserError: the given file is missing, or the one that a run recorded is gone.
        """
        if explicit is None:
            return self._made(CHECKPOINT, phases)
        path = Path(os.path.expanduser(explicit))
        if path.is_file():
            return Resolved(path.absolute(), GIVEN)
        # a Path has lost one of the two slashes
        address = re.fullmatch(r"([A-Za-z][\w+.-]+):/+(.*)", str(explicit), re.DOTALL)
        if address is not None:
            raise UserError(
                f"The checkpoint {address[1]}://{address[2]} is a URL, not a file.",
                "Download it and give the path of the file.",
            )
        raise UserError(
            f"The checkpoint {explicit} is not a file.",
            "Check the path, or leave it out to use the workspace's.",
        )

    def resolve_config(
        self, explicit: str | os.PathLike[str] | None, phases: Sequence[str]
    ) -> Resolved | None:
        """The config to use: the given one (a path or a name, not checked), else as a checkpoint.

        Raises:
            UserError: the file that a run recorded is gone.
        """
        if explicit is None:
            return self._made(CONFIG, phases)
        return Resolved(Path(explicit), GIVEN)

    def best_configuration(self) -> Path | None:
        """The file of the best sparsity found: the last finished search's, else ``best.yaml``."""
        found = self.output("search", BEST)
        if found is not None and found.is_file():
            return found
        path = self.path / BEST_NAME
        return path if path.is_file() else None

    def _made(self, key: str, phases: Sequence[str]) -> Resolved | None:
        for phase in phases:
            run = self.last(phase)
            path = self.locate(run, key) if run is not None else None
            if run is None or path is None:
                continue
            if not path.is_file():
                raise UserError(
                    f"The {key} of {run.name}, {path}, no longer exists.",
                    f"Run `sparsevit {phase} --force` again, or give the {key} yourself.",
                )
            return Resolved(path, run.name)
        return None

    def _document(self) -> Document:
        document = read_document(self.path)
        running = any(
            run.status == RUNNING
            for phase in document["phases"]
            for run in records(document, phase)
        )
        if not running or is_locked(self.path):
            return document
        # its writer may have ended it between the two looks
        document = read_document(self.path)
        mark_left_over(document, self.path)
        return document

    def _cache(self) -> DigestCache:
        if self._digests is None:
            self._digests = DigestCache(read_document(self.path)["digests"])
        return self._digests

    def _shown(self, path: Path) -> str:
        return path.relative_to(self.path).as_posix() if self.path in path.parents else str(path)

    def _check_directory(self, create: bool) -> None:
        try:
            self._make_directory(create)
        except OSError as error:
            raise unwritable(self.path, error) from error
        if self.readonly:
            return
        # a missing one is made by the first run in it
        there = next(path for path in (self.path, *self.path.absolute().parents) if path.is_dir())
        if not os.access(there, os.W_OK | os.X_OK):
            raise unwritable(self.path)

    def _make_directory(self, create: bool) -> None:
        if self.path.is_dir():
            return
        blocker = next((p for p in (self.path, *self.path.parents) if p.exists()), None)
        if blocker is not None and not blocker.is_dir():
            raise UserError(
                f"The workspace {self.path} is not a directory: {blocker} is a file.",
                "Give a directory with --workspace or SPARSEVIT_WORKSPACE.",
            )
        if not create:
            raise UserError(
                f"There is no workspace {self.path}.",
                "Check the path, or make one by running a phase, e.g. `sparsevit demo`.",
            )
