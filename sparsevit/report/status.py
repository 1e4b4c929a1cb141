"""A workspace as a table."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

from sparsevit.report.ratios import short_ratios
from sparsevit.workspace import Holder, RunRecord

STYLES = {"finished": "green", "running": "cyan", "failed": "red", "interrupted": "yellow"}
WIDE = 120
MAX_METRICS = 4
MAX_INPUTS = 4

# What a reader looks for first, where a phase has more metrics than there is room for.
_KEY_METRICS = ("map", "ap", "miou", "score", "latency", "speedup", "loss")
_BEFORE, _AFTER = "before.", "after."
_MOST = 1e15


class StatusTable:
    """The runs of a workspace, for ``rich``. A narrow terminal is spared inputs and outputs, and
    has what is known of a run in fewer columns.

    Args:
        workspace: its directory, for the title.
        runs: in the order of the rows.
        writer: who writes it at this moment.
        now: for ages such as ``5 min ago``; the present by default.
    """

    def __init__(
        self,
        workspace: Path,
        runs: Sequence[RunRecord],
        writer: Holder | None = None,
        now: datetime | None = None,
    ) -> None:
        self._workspace = workspace
        self._runs = runs
        self._writer = writer
        self._now = now or datetime.now(timezone.utc)

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        yield Text.assemble("Workspace ", (str(self._workspace), "bold"))
        if self._writer is not None:
            yield Text(f"In use by process {self._writer.pid} on {self._writer.host}.", "cyan")
        if not self._runs:
            yield Text("Nothing has run here yet.")
            return
        wide = options.max_width >= WIDE
        yield self._table(wide)
        yield from self._errors()
        if not wide:
            yield Text(
                "A wider terminal also shows inputs and outputs; --json shows everything.", "dim"
            )

    def _table(self, wide: bool) -> Table:
        table = Table(header_style="bold")
        if not wide:
            table.show_lines = True
            for heading in ("Run", "Status"):
                table.add_column(heading, no_wrap=True)
            table.add_column("Metrics", overflow="fold")
            for run in self._runs:
                phase, name, status, when, took, metrics, *_ = self._cells(run)
                state = Text.assemble((status, STYLES.get(status, "")), f"\n{when}\n{took}")
                table.add_row(Text(f"{phase}\n{name}"), state, Text(metrics))
            return table
        for heading in ("Phase", "Run", "Status", "When"):
            table.add_column(heading, no_wrap=True)
        table.add_column("Took", justify="right", no_wrap=True)
        for heading in ("Metrics", "Inputs", "Outputs"):
            table.add_column(heading, overflow="fold")
        for run in self._runs:
            cells = [Text(cell) for cell in self._cells(run)]
            cells[2].stylize(STYLES.get(run.status, ""))
            table.add_row(*cells)
        return table

    def _cells(self, run: RunRecord) -> list[str]:
        found = (describe_metrics(run.metrics), describe_measured(run), describe_cost(run))
        tried = f" (x{run.attempts})" if run.attempts > 1 else ""
        return [
            run.phase,
            run.id + tried,
            run.status,
            describe_age(run.ended or run.started, self._now),
            describe_seconds(run.seconds),
            "\n".join(filter(None, found)),
            describe_inputs(run.inputs),
            "\n".join(run.outputs),
        ]

    def _errors(self) -> Iterator[Text]:
        for run in self._runs:
            if run.status == "failed" and run.error:
                yield Text.assemble((f"{run.name}: ", "red"), run.error)


def describe_seconds(seconds: float) -> str:
    """``0.4 s``, ``12 s``, ``3 min 05 s``, ``2 h 07 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def describe_age(moment: str, now: datetime) -> str:
    """``just now``, ``5 min ago``, ``3 h ago``, else the local date and time.

    Args:
        moment: ISO 8601; returned as it is where it is none.
    """
    try:
        then = datetime.fromisoformat(moment)
        then.timestamp()
    except (ValueError, OverflowError):
        return moment
    if then.tzinfo is None:
        then = then.replace(tzinfo=timezone.utc)
    seconds = (now - then).total_seconds()
    if not 0 <= seconds < 24 * 3600:
        return then.astimezone().strftime("%Y-%m-%d %H:%M")
    if seconds < 60:
        return "just now"
    if seconds < 3600:
        return f"{int(seconds // 60)} min ago"
    return f"{int(seconds // 3600)} h ago"


def describe_metrics(metrics: Mapping[str, Any]) -> str:
    """The key metrics, a line each: ``segm_mAP 0.332``.

    Of many COCO metrics the headlines are shown, and of values before and after a training those
    after.
    """
    flat = {name: value for name, value in _flatten(metrics) if not _is_detail(name)}
    if any(name.startswith(_AFTER) for name in flat):
        flat = {
            name.removeprefix(_AFTER): value
            for name, value in flat.items()
            if not name.startswith(_BEFORE)
        }
    chosen = sorted(flat, key=_metric_rank)[:MAX_METRICS]
    return "\n".join(f"{name} {_short(flat[name])}" for name in flat if name in chosen)


def describe_measured(run: RunRecord) -> str:
    """At which ratios and on which images a run's figures were measured, as far as it says:
    ``at 0.6 0 0.2/0.4 0 on val``."""
    if not run.metrics:
        return ""
    ratios = run.metrics.get("sparsity") or run.inputs.get("sparsity")
    parts = []
    if isinstance(ratios, Mapping) and all(isinstance(r, (int, float)) for r in ratios.values()):
        parts.append(f"at {short_ratios(ratios)}")
    split = run.metrics.get("split") or run.inputs.get("split")
    if isinstance(split, str):
        images = run.inputs.get("images") or run.inputs.get("eval_images")
        parts.append(f"on {split}" + (f", first {images} images" if images else ""))
    return " ".join(parts)


def describe_cost(run: RunRecord) -> str:
    """What masked weights leave to do: ``1.24 of 2.15 M parameters, 0.31 of 0.52 GMACs``."""
    cost = run.metrics.get("cost")
    names = ("parameters", "of_parameters", "gmacs", "of_gmacs")
    found: list[Any] = [cost.get(name) for name in names] if isinstance(cost, Mapping) else []
    if not found or not all(isinstance(one, (int, float)) and 0 <= one < _MOST for one in found):
        return ""
    kept, parameters, gmacs, of_gmacs = found
    return (
        f"{kept / 1e6:.3g} of {parameters / 1e6:.3g} M parameters, "
        f"{gmacs:.3g} of {of_gmacs:.3g} GMACs"
    )


def describe_inputs(inputs: Mapping[str, Any]) -> str:
    """The first inputs, a line each: ``checkpoint=latest.pth``; how many more there are."""
    told = {
        key: value
        for key, value in inputs.items()
        if value not in (None, "", [], {}) and not key.endswith("_sha256")
    }
    lines = [f"{key}={_short(value)}" for key, value in list(told.items())[:MAX_INPUTS]]
    more = len(told) - MAX_INPUTS
    return "\n".join([*lines, f"and {more} more"] if more > 0 else lines)


def _flatten(metrics: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        elif isinstance(value, (int, float, str)):
            yield f"{prefix}{name}", value


def _is_detail(name: str) -> bool:
    return (
        name == "split"
        or name.startswith(("sparsity.", "classes.", "cost."))
        or re.search(r"mAP_\w+$", name) is not None
    )


def _metric_rank(name: str) -> int:
    words = set(re.split(r"[^a-z]+", name.lower()))
    return next((i for i, key in enumerate(_KEY_METRICS) if key in words), len(_KEY_METRICS))


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        path = value.get("path")
        return PurePosixPath(path).name if isinstance(path, str) else f"{len(value)} values"
    if isinstance(value, list):
        return f"[{', '.join(map(_short, value[:3]))}{', ...' if len(value) > 3 else ''}]"
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else str(value)
    text = str(value)
    return text if len(text) <= 40 else f"...{text[-37:]}"
