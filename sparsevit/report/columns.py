"""Columns of tables that stay whole on a narrow terminal."""

from __future__ import annotations

from rich.table import Table


def add_figures(table: Table, *headings: str) -> None:
    """Add columns of numbers: what stands beside them is wrapped before a number is cut."""
    for heading in headings:
        width = max(map(len, heading.split()), default=1)
        table.add_column(heading, justify="right", min_width=max(width, 5))
