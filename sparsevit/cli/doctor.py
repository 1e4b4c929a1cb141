"""``sparsevit doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from sparsevit.cli.console import emit
from sparsevit.cli.options import JsonOption, WorkspaceOption

if TYPE_CHECKING:
    from rich.console import Group

    from sparsevit.phases.doctor import Diagnosis

MARKS = {
    "ok": ("ok", "green"),
    "note": ("absent", "dim"),
    "warning": ("warning", "yellow"),
    "problem": ("missing", "red"),
}


def doctor(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Show what is installed, which ops and devices are used, and what is missing.

    Exit code 1 when something that is needed is missing; the table says what to do about it.
    """
    from sparsevit.phases.doctor import diagnose

    diagnosis = diagnose(workspace)
    emit(diagnosis, as_json, _render)
    if not diagnosis.ok:
        raise typer.Exit(1)


def _render(diagnosis: Diagnosis) -> Group:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for group in dict.fromkeys(finding.group for finding in diagnosis.findings):
        table.add_row(Text(group, "bold"))
        for finding in (one for one in diagnosis.findings if one.group == group):
            value = Text(finding.value)
            if finding.remedy:
                value.append(f"\n{finding.remedy}", "cyan")
            table.add_row(f"  {finding.name}", Text(*MARKS[finding.status.value]), value)
    verdict = (
        Text("Everything that is needed is installed.", "green")
        if diagnosis.ok
        else Text("Something that is needed is missing: see above.", "red")
    )
    return Group(table, "", verdict)
