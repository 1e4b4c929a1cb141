"""What a workspace holds."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sparsevit.workspace import FORMAT_VERSION, Holder, RunRecord, Workspace


@dataclass(frozen=True)
class StatusResult:
    """What a workspace holds.

    Args:
        workspace: absolute path.
        version: format version of its record.
        writer: who writes it at this moment, None where nobody does.
        runs: every run, in the order in which they were first started.
    """

    workspace: Path
    version: int
    writer: Holder | None
    runs: tuple[RunRecord, ...]


def status(workspace: str | os.PathLike[str] | None = None) -> StatusResult:
    """Read a workspace, also while another process writes it; nothing is written.

    Args:
        workspace: the directory; None for ``$SPARSEVIT_WORKSPACE``, else ``work_dirs``.

    Raises:
        UserError: there is none, or its record is broken or of a newer sparsevit.
    """
    opened = Workspace.open(workspace, create=False, readonly=True)
    return StatusResult(
        workspace=opened.path,
        version=FORMAT_VERSION,
        writer=opened.writer(),
        runs=tuple(opened.status_rows()),
    )
