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
    "ok": "[green]ok[/green]",
    "note": "[dim]absent[/dim]",
    "warning": "[yellow]warning[/yellow]",
    "problem": "[red]missing[/red]",
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
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for group in dict.fromkeys(finding.group for finding in diagnosis.findings):
        table.add_row(f"[bold]{group}[/bold]")
        for finding in (one for one in diagnosis.findings if one.group == group):
            value = escape(finding.value)
            if finding.remedy:
                value += f"\n[cyan]{escape(finding.remedy)}[/cyan]"
            table.add_row(f"  {escape(finding.name)}", MARKS[finding.status.value], value)
    verdict = (
        "[green]Everything that is needed is installed.[/green]"
        if diagnosis.ok
        else "[red]Something that is needed is missing: see above.[/red]"
    )
    return Group(table, "", verdict)
