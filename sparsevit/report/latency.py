"""The table of ``sparsevit latency``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.markup import escape
from rich.table import Table

from sparsevit.report.ratios import short_ratios

if TYPE_CHECKING:
    from sparsevit.phases.latency import BackendRow, BackendsResult, LatencyResult, Row

MEAN = "mean: over the middle half of the runs, as in the paper."
# What others are compared with, where nothing is compared with dense.
FIRST = ("eager", "fp32")


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
    return Group(table, MEAN, _where(result, str(how.device)))


def backends_table(result: BackendsResult) -> Group:
    """One model in every backend and precision, and why some cannot be had."""
    height, width = result.img_size
    timed = [each for each in result.backends if each.rows]
    several = any(len(each.rows) > 1 for each in timed)
    table = Table(
        title=f"{result.subject}: {result.scope}, {result.batch_size} x {width}x{height}",
        caption=_ratios(timed),
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("backend")
    table.add_column("precision")
    for name in (["dense ms"] if several else []) + ["mean ms", "std", "runs"]:
        table.add_column(name, justify="right")
    table.add_column("speedup" if several else "of eager fp32", justify="right")
    first = next((each for each in timed if (each.backend, each.precision) == FIRST), None)
    for each in timed:
        mine = each.rows[-1]
        speedup = mine.speedup if several else None
        if not several and first is not None:
            speedup = first.rows[-1].latency.mean_ms / mine.latency.mean_ms
        table.add_row(
            each.backend,
            each.precision,
            *([f"{each.rows[0].latency.mean_ms:.2f}"] if several else []),
            f"{mine.latency.mean_ms:.2f}",
            f"{mine.latency.std_ms:.2f}",
            str(mine.latency.repeats),
            f"{speedup:.2f}x" if speedup else "",
        )
    missing = [
        f"{each.backend} {each.precision}: {each.missing}"
        for each in result.backends
        if each.missing is not None
    ]
    not_here = ["", "Not here:", *missing] if missing else []
    return Group(table, MEAN, _where(result, result.device), *map(escape, not_here))


def _ratios(timed: list[BackendRow]) -> str:
    mine = timed[0].rows[-1].sparsity if timed else {}
    return f"ratios: {short_ratios(mine) if any(mine.values()) else 'dense'}"


def _where(result: LatencyResult | BackendsResult, device: str) -> str:
    count = result.torch_threads
    threads = f", {count} thread{'s' * (count != 1)}" if device == "cpu" else ""
    note = (
        f"{result.device_name} ({device}{threads}), torch {result.torch_version}; "
        f"{result.parameters / 1e6:.1f} M parameters."
    )
    return f"{note}\nBeware: {result.busy}." if result.busy else note


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
