"""The summary table of the demo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group
from rich.table import Table

from sparsevit.report.ratios import short_ratios
from sparsevit.tasks import TASKS, Task

if TYPE_CHECKING:
    from sparsevit.phases.demo import DemoResult


def demo_table(result: DemoResult) -> Group:
    """Latency, speedup and scores of every model of the demo."""
    height, width = result.img_size
    pictures = {"kept windows": result.picture, "predictions": result.predictions}
    return Group(
        figures_table(
            TASKS[result.task],
            [row.figures() for row in result.rows],
            f", {result.batch_size} x {width}x{height}",
        ),
        f"searched: {short_ratios(result.rows[-1].sparsity)}",
        f"{timedelta(seconds=round(result.seconds))} in all; workspace {result.workspace} "
        "(`sparsevit status` shows it)",
        *(f"{name}: {path}" for name, path in pictures.items() if path is not None),
    )


def figures_table(task: Task, rows: Sequence[Mapping[str, Any]], on: str = "") -> Table:
    """A row a model, the last one in bold.

    Args:
        task: what the models are for.
        rows: what :meth:`sparsevit.phases.demo.DemoRow.figures` gives of each.
        on: what was timed, for the title.
    """
    table = Table(
        title=f"{task.whole.capitalize()}{on}",
        title_justify="left",
        # without frames seven columns fit a terminal
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    table.add_column("", no_wrap=True)
    timed = ("backbone ms", "speed", f"{task.whole} ms", "speed")
    for name in (*timed, *task.headlines.values()):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            row["name"],
            f"{row['backbone_ms']:.1f}",
            f"{row['backbone_speedup']:.2f}x",
            f"{row[f'{task.whole_key}_ms']:.1f}",
            f"{row[f'{task.whole_key}_speedup']:.2f}x",
            *(task.shown(name, row.get(task.figure(name))) for name in task.headlines),
            style="bold" if row is rows[-1] else None,
        )
    return table
