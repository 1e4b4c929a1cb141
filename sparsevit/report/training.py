"""Tables of the training phases and of an evaluation."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from rich.console import Group
from rich.markup import escape
from rich.table import Table

from sparsevit.report.columns import add_figures
from sparsevit.report.ratios import short_ratios
from sparsevit.tasks import TASKS, headlines, shown

if TYPE_CHECKING:
    from sparsevit.phases.evaluate import EvaluateResult
    from sparsevit.phases.training import TrainResult


def training_table(result: TrainResult) -> Group:
    """Headline metrics before and after, and where everything is."""
    table = Table(title=f"{result.phase} ({result.run})", title_justify="left")
    table.add_column("sparsity")
    measured = (*result.before.values(), *result.after.values())
    names = headlines()
    keys = [key for key in names if any(key in metrics for metrics in measured)]
    for key in keys:
        if result.before:
            add_figures(table, f"{names[key]} before")
        add_figures(table, "after" if result.before else names[key])
    for name, after in result.after.items():
        cells = [name if name != "sparse" else short_ratios(result.sparsity or {})]
        for key in keys:
            if result.before:
                cells.append(shown(key, result.before.get(name, {}).get(key)))
            cells.append(shown(key, after.get(key)))
        table.add_row(*cells)
    loss = "" if result.loss is None else f", loss {result.loss:.3f}"
    took = timedelta(seconds=round(result.seconds))
    return Group(
        table,
        f"{result.iterations} iterations{loss}, {took}; scores of the {result.split} split",
        f"checkpoint: {result.checkpoint}",
    )


def evaluation_table(result: EvaluateResult) -> Group:
    """The metrics of one evaluation."""
    how = f"{result.scope} in {result.backend} {result.precision}"
    plain = (result.backend, result.precision) == ("eager", "fp32")
    images = f"{result.images} images of the {result.split} split"
    title = images if plain else f"{images}, {how}"
    table = Table(title=title, title_justify="left")
    columns, rows = TASKS[result.task].table(result.metrics)
    table.add_column(columns[0])
    add_figures(table, *columns[1:])
    for row in rows:
        table.add_row(*row)
    ratios = short_ratios(result.sparsity)
    tables = [table]
    if result.classes:
        tables.append(Table(title="by class", title_justify="left"))
        columns, rows = TASKS[result.task].class_table(result.classes)
        tables[-1].add_column(columns[0])
        add_figures(tables[-1], *columns[1:])
        for row in rows:
            tables[-1].add_row(*map(escape, row))
    return Group(
        *tables,
        f"sparsity {ratios} ({result.sparsity_source})",
        f"checkpoint: {result.checkpoint} ({result.checkpoint_source})",
    )
