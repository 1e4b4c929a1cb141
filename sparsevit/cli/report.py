"""``sparsevit report``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparsevit.cli import console
from sparsevit.cli.options import JsonOption, WorkspaceOption

if TYPE_CHECKING:
    from sparsevit.phases.report import ReportResult


def report(
    workspace: WorkspaceOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            show_default="report.html in the workspace",
            help="The page to write. An earlier report is replaced, any other file is not.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write what a workspace holds as one HTML page, to send to a colleague.

    Runs, scores, curves, searches, latencies and pictures; the page loads nothing from elsewhere.
    """
    from sparsevit.phases.report import report as write_report

    console.emit(write_report(workspace, out), as_json, _render)


def _render(result: ReportResult) -> str:
    lines = (
        f"{result.file}: {', '.join(result.sections)}",
        *(f"not in it: {said}" for said in result.unread),
    )
    return "\n".join(lines)
