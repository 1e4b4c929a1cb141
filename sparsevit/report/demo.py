"""The summary table of the demo."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group
from rich.table import Table

from sparsevit.report.ratios import short_ratios

if TYPE_CHECKING:
    from sparsevit.phases.demo import DemoResult


def demo_table(result: DemoResult) -> Group:
    """Latency, speedup and AP of every model of the demo."""
    height, width = result.img_size
    table = Table(
        title=f"A detector with a small Swin, {result.batch_size} x {width}x{height}",
        title_justify="left",
        # without frames seven columns fit a terminal
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    table.add_column("", no_wrap=True)
    for name in ("backbone ms", "speed", "detector ms", "speed", "bbox AP", "mask AP"):
        table.add_column(name, justify="right")
    for row in result.rows:
        table.add_row(
            row.name,
            f"{row.backbone_ms:.1f}",
            f"{row.backbone_speedup:.2f}x",
            f"{row.detector_ms:.1f}",
            f"{row.detector_speedup:.2f}x",
            f"{row.bbox_ap:.3f}",
            f"{row.segm_ap:.3f}",
            style="bold" if row is result.rows[-1] else None,
        )
    return Group(
        table,
        f"searched: {short_ratios(result.rows[-1].sparsity)}",
        f"{timedelta(seconds=round(result.seconds))} in all; workspace {result.workspace} "
        "(`sparsevit status` shows it)",
        f"kept windows: {result.picture}",
    )
