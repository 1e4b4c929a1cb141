"""The summary table of the demo."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group
from rich.table import Table

from sparsevit.report.ratios import short_ratios
from sparsevit.tasks import TASKS

if TYPE_CHECKING:
    from sparsevit.phases.demo import DemoResult


def demo_table(result: DemoResult) -> Group:
    """Latency, speedup and scores of every model of the demo."""
    height, width = result.img_size
    task = TASKS[result.task]
    table = Table(
        title=f"{task.whole.capitalize()}, {result.batch_size} x {width}x{height}",
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
    for row in result.rows:
        table.add_row(
            row.name,
            f"{row.backbone_ms:.1f}",
            f"{row.backbone_speedup:.2f}x",
            f"{row.whole[f'{task.whole_key}_ms']:.1f}",
            f"{row.whole[f'{task.whole_key}_speedup']:.2f}x",
            *(task.shown(name, row.scores.get(task.figure(name))) for name in task.headlines),
            style="bold" if row is result.rows[-1] else None,
        )
    pictures = {"kept windows": result.picture, "predictions": result.predictions}
    return Group(
        table,
        f"searched: {short_ratios(result.rows[-1].sparsity)}",
        f"{timedelta(seconds=round(result.seconds))} in all; workspace {result.workspace} "
        "(`sparsevit status` shows it)",
        *(f"{name}: {path}" for name, path in pictures.items() if path is not None),
    )
