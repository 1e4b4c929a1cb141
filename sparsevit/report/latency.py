"""The table of ``sparsevit latency``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table

from sparsevit.report.ratios import short_ratios

if TYPE_CHECKING:
    from sparsevit.phases.latency import LatencyResult, Row


def latency_table(result: LatencyResult) -> Group:
    """Latency, multiplications and speedup of every configuration that was timed."""
    how = result.execution
    height, width = how.img_size
    table = Table(
        title=f"{result.subject}: {how.scope}, {how.batch_size} x {width}x{height}, "
        f"{how.precision}, {how.backend}",
        title_justify="left",
    )
    table.add_column("ratios")
    for name in ("mean ms", "median", "p95", "std", "runs", "GMACs", "speedup"):
        table.add_column(name, justify="right")
    for row in result.rows:
        table.add_row(*_cells(row))
    count = result.torch_threads
    threads = f", {count} thread{'s' * (count != 1)}" if how.device.type == "cpu" else ""
    note = (
        f"{result.device_name} ({how.device}{threads}), torch {result.torch_version}; "
        f"{result.parameters / 1e6:.1f} M parameters."
    )
    return Group(table, "mean: over the middle half of the runs, as in the paper.", note)


def _cells(row: Row) -> list[str]:
    taken = row.latency
    return [
        short_ratios(row.sparsity) if any(row.sparsity.values()) else row.name,
        f"{taken.mean_ms:.2f}",
        f"{taken.median_ms:.2f}",
        f"{taken.p95_ms:.2f}",
        f"{taken.std_ms:.2f}",
        str(taken.repeats),
        f"{row.gmacs:.2f}",
        f"{row.speedup:.2f}x" if row.speedup else "",
    ]
