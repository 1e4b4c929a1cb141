"""What each knob changes, as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.table import Table

from sparsevit.report.ratios import short_names, signed
from sparsevit.sparsity.configuration import format_ratio


def change_table(changes: Mapping[str, Iterable[tuple[float, float]]], title: str) -> Table:
    """A row a knob, a column a ratio above 0: the difference from dense.

    Args:
        changes: knob -> (ratio, change) each.
    """
    rows = {knob: dict(row) for knob, row in changes.items()}
    ratios = sorted({ratio for row in rows.values() for ratio in row} - {0.0})
    places = [(knob, ratio) for knob, row in rows.items() for ratio in ratios if ratio in row]
    texts = dict(zip(places, signed(rows[knob][ratio] for knob, ratio in places), strict=True))
    table = Table(title=title, title_justify="left")
    table.add_column("knob", no_wrap=True)
    for ratio in ratios:
        table.add_column(format_ratio(ratio), justify="right", no_wrap=True)
    for knob, short in zip(rows, short_names(rows), strict=True):
        table.add_row(short, *(texts.get((knob, ratio), "") for ratio in ratios))
    return table
