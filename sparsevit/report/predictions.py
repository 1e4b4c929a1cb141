"""The table of what was predicted."""

from __future__ import annotations

import statistics
from collections import Counter
from typing import TYPE_CHECKING

from rich.console import Group
from rich.markup import escape
from rich.table import Table

from sparsevit.report.columns import add_figures
from sparsevit.report.ratios import short_ratios

if TYPE_CHECKING:
    from sparsevit.phases.predict import PredictResult

MOST_ROWS = 20


def predictions_table(result: PredictResult) -> Group:
    """A row an image, or a video: how much was found, and how long a call took."""
    table = Table(title=f"{result.task}, {len(result.images)} images", title_justify="left")
    table.add_column("image", overflow="fold")
    compared = result.dense_milliseconds is not None
    add_figures(table, "found", *(("dense ms",) if compared else ()), "ms")
    found = Counter(one["image_id"] for one in result.predictions)
    by_file: dict[str, list[dict[str, object]]] = {}
    for image in result.images:
        by_file.setdefault(str(image["file"]), []).append(image)
    for file, images in list(by_file.items())[:MOST_ROWS]:
        name = escape(file) if len(images) == 1 else f"{escape(file)}, {len(images)} frames"
        times = [
            f"{statistics.median([float(str(image[key])) for image in images]):.1f}"
            for key in (("dense_milliseconds",) if compared else ()) + ("milliseconds",)
        ]
        table.add_row(name, str(sum(found[image["id"]] for image in images)), *times)
    left = len(by_file) - MOST_ROWS
    lines = [f"and {left} more; --json shows all"] if left > 0 else []
    speed = f"median {result.milliseconds:.1f} ms an image"
    if result.dense_milliseconds is not None:
        ratio = result.dense_milliseconds / result.milliseconds
        speed += f", dense {result.dense_milliseconds:.1f} ms ({result.dense_source}): {ratio:.2f}x"
    if result.frames_per_second is not None:
        speed += f"; {result.frames_per_second:.1f} a second with reading, drawing and writing"
    return Group(
        table,
        *lines,
        speed,
        f"sparsity {short_ratios(result.sparsity)} ({result.sparsity_source})",
        *([f"pictures and predictions.json: {result.out}"] if result.files else []),
    )
