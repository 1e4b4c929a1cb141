"""``sparsevit status``."""

from __future__ import annotations

from sparsevit.cli import console
from sparsevit.cli.options import JsonOption, WorkspaceOption


def status(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Show the runs of a workspace, with their inputs and results."""
    from sparsevit.phases.status import status as read_status
    from sparsevit.report.status import StatusTable

    result = read_status(workspace)
    console.emit(result, as_json, lambda it: StatusTable(it.workspace, it.runs, writer=it.writer))
