"""Tables of a user's own data: what was chosen for it, and what is in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table

from sparsevit.report.columns import add_figures

if TYPE_CHECKING:
    from sparsevit.data.own import Choice
    from sparsevit.phases.own import CheckResult, OwnConfig

_MOST_ROWS = 40
_MOST_SIZES = 5
_COUNTED = {"detection": "objects", "segmentation": "pixels", "classification": "labels"}


def choices_table(made: OwnConfig) -> Group:
    """What was found and chosen, and why."""
    return Group(_choices("own data", made.choices), f"config: {made.config!s}")


def _choices(title: str, choices: Sequence[Choice]) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in ("what", "chosen", "why"):
        table.add_column(heading)
    for one in choices:
        table.add_row(one.what, one.chosen, one.why)
    return table


def check_report(result: CheckResult) -> Group:
    """Counts by class and split, sizes, windows, and what to look at."""
    what = _COUNTED[result.task]
    counts = Table(title=f"{result.task}: {result.root!s}", title_justify="left")
    counts.add_column("class")
    for split in result.splits:
        add_figures(counts, f"{split} {what}")
        add_figures(counts, "images")
    for name in result.classes[:_MOST_ROWS]:
        cells = [
            f"{number:,}"
            for split in result.splits.values()
            for number in (split.amounts[name], split.images_with[name])
        ]
        counts.add_row(name, *cells)
    if len(result.classes) > _MOST_ROWS:
        counts.add_row(f"... and {len(result.classes) - _MOST_ROWS} more")
    totals = [
        cell
        for split in result.splits.values()
        for cell in (f"{sum(split.amounts.values()):,}", f"{split.images:,}")
    ]
    counts.add_section()
    counts.add_row("all", *totals)
    sizes = ", ".join(f"{w}x{h} ({n})" for w, h, n in result.sizes[:_MOST_SIZES])
    if len(result.sizes) > _MOST_SIZES:
        sizes += f", and {len(result.sizes) - _MOST_SIZES} more"
    windows = Table(title="windows, --model tiny", title_justify="left")
    for heading in ("stage", "map", "windows", "of which padding"):
        add_figures(windows, heading)
    for one in result.windows:
        across, down = one.windows
        windows.add_row(
            str(one.stage),
            f"{one.map[0]}x{one.map[1]}",
            f"{across}x{down} = {across * down}",
            f"{100 * one.padding:.0f} %",
        )
    said = [f"images: {sizes}", *(f"look at: {text}" for text in result.warnings)]
    said += [f"cannot be used: {text}" for text in result.faults]
    if result.picture is not None:
        said.append(f"contact sheet: {result.picture!s}")
    return Group(counts, _choices("would be chosen", result.choices), windows, *said)
