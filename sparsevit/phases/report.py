"""A workspace as a page to send: what ran on what, and what came of it, as the record has it."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rich.table import Table

import sparsevit
from sparsevit.errors import UserError
from sparsevit.latency.execution import Execution
from sparsevit.latency.predictor import Calibration
from sparsevit.phases.calibrate import CalibrateResult
from sparsevit.phases.inputs import PathLike
from sparsevit.phases.searching.show import show_search
from sparsevit.phases.sensitivity import SensitivityResult
from sparsevit.phases.status import StatusResult, status
from sparsevit.plain_files import open_file, parse_plain, read_record, read_text
from sparsevit.report import page
from sparsevit.report.calibration import calibration_report
from sparsevit.report.columns import add_figures
from sparsevit.report.demo import figures_table
from sparsevit.report.page import Section
from sparsevit.report.ratios import short_ratios
from sparsevit.report.search import shown_summary
from sparsevit.report.search_plot import front_figure
from sparsevit.report.sensitivity import sensitivity_report
from sparsevit.report.sensitivity_plot import curves_figure, sensitivity_figures
from sparsevit.report.status import (
    describe_cost,
    describe_measured,
    describe_metrics,
    describe_seconds,
)
from sparsevit.search.sensitivity import Curve, Sensitivity
from sparsevit.sparsity.files import write_text
from sparsevit.tasks import TASKS, headlines, shown
from sparsevit.workspace import RunRecord
from sparsevit.workspace.provenance import command_line
from sparsevit.workspace.record import FINISHED

NAME = "report.html"
_SUFFIXES = (".html", ".htm")
_PICTURES = (".png", ".jpg", ".jpeg")
_MOST_CURVES, _MOST_PICTURES = 12, 24
"""Of the runs of a page: the newest have theirs drawn."""
_MOST_LOG_BYTES = 1 << 26
_MODELS = {
    "pretrain": "dense",
    "adapt": "adapted",
    "search": "searched",
    "finetune": "finetuned",
    "evaluate": "evaluated",
}
"""What the model that a phase made is called; of other phases their name."""


@dataclass(frozen=True)
class ReportResult:
    """A report that was written.

    Attributes:
        workspace: that it is of, absolute.
        file: the page.
        runs: how many are in it.
        sections: titles of the parts that it has.
        unread: what of the workspace could not be read, and why.
    """

    workspace: Path
    file: Path
    runs: int
    sections: tuple[str, ...]
    unread: tuple[str, ...]


def report(workspace: PathLike | None = None, out: PathLike | None = None) -> ReportResult:
    """Write what a workspace holds as one HTML page; nothing else is written.

    Args:
        workspace: the directory; None for ``$SPARSEVIT_WORKSPACE``, else ``work_dirs``.
        out: the file, ``.html``; ``report.html`` in the workspace where None. An earlier report is
            replaced.

    Raises:
        UserError: there is no workspace, its record is broken, nothing ran in it, or ``out`` is
            another file or cannot be written. What is damaged beside the record is no error: the
            page, and ``unread``, say so.
    """
    held = status(workspace)
    if not held.runs:
        raise UserError(
            f"There is nothing to report of the workspace {held.workspace}: nothing has run in it.",
            "Check the path, or run a phase first, e.g. `sparsevit demo`.",
        )
    target = held.workspace / NAME if out is None else Path(os.path.expanduser(out)).absolute()
    _require_ours(target)
    every = [
        make(held)
        for make in (
            *(_results, _runs, _training, _search, _sensitivity, _latency, _pictures),
            _machines,
        )
    ]
    sections = [section for section in every if section.parts or section.unread]
    title = f"Report of {held.workspace.name}"
    write_text(target, page.page(title, _lead(held, every), sections))
    return ReportResult(
        workspace=held.workspace,
        file=target,
        runs=len(held.runs),
        sections=tuple(section.title for section in sections),
        unread=tuple(said for section in sections for said in section.unread),
    )


def _require_ours(target: Path) -> None:
    """Refuse to replace what is no earlier report.

    Raises:
        UserError: it is something else, or has another suffix.
    """
    remedy = "Give another file with --out."
    if os.path.isdir(target):
        raise UserError(f"{target} is a folder, not a file.", "Give a file in it with --out.")
    if target.suffix.lower() not in _SUFFIXES:
        raise UserError(
            f"A report is HTML, and {target} does not end in {' or '.join(_SUFFIXES)}.", remedy
        )
    if not os.path.lexists(target):
        return
    with open_file(target, "report") as file:
        ours = file.read(len(page.MARK)) == page.MARK.encode()
    if not ours:
        raise UserError(f"{target} is there already, and is no report of ours.", remedy)


def _lead(held: StatusResult, sections: Sequence[Section]) -> Iterator[str]:
    counts = Counter(run.status for run in held.runs)
    said = ", ".join(f"{count} {name}" for name, count in counts.items())
    first, last = held.runs[0], max(held.runs, key=lambda run: run.ended or run.started)
    yield page.paragraph(
        f"{len(held.runs)} run{'s' * (len(held.runs) != 1)}: {said}; from {_when(first.started)} "
        f"to {_when(last.ended or last.started)}."
    )
    if held.writer is not None:
        yield page.paragraph(f"{held.writer.phase} was still running when this was written.")
    absent = [s.title.lower() for s in sections if not s.parts and not s.unread]
    if absent:
        yield page.paragraph(f"The workspace has nothing for: {', '.join(absent)}.", "dim")
    made = datetime.now(timezone.utc).isoformat()
    yield (
        f'<p class="made">Written {page.text(_when(made))} by sparsevit '
        f"{page.text(sparsevit.__version__)}: <code>{page.text(command_line())}</code></p>"
    )


# --- parts of the page ---------------------------------------------------------------------------


def _results(held: StatusResult) -> Section:
    """Models with their scores and latencies, as they were recorded."""
    section = Section("Results")
    for run in held.runs:
        with section.reading(f"The comparison of {run.name}"):
            rows = run.metrics.get("rows")
            if rows:
                tasks = [one for one in TASKS.values() if f"{one.whole_key}_ms" in rows[0]]
                section.parts += [
                    page.rendered(figures_table(tasks[0], rows)),
                    page.paragraph(f"searched: {short_ratios(rows[-1]['sparsity'])}"),
                    _made_by(run),
                ]
    models: list[tuple[RunRecord, str, dict[str, float]]] = []
    for run in held.runs:
        if run.status == FINISHED:
            with section.reading(f"The scores of {run.name}"):
                models += [(run, *model) for model in _models(run)]
    if models:
        with section.reading("The table of models"):
            section.parts.append(page.rendered(_models_table(models)))
    return section


def _models(run: RunRecord) -> list[tuple[str, dict[str, float]]]:
    """What the models of a run are called, and their headline metrics."""
    name = _MODELS.get(run.phase, run.phase)
    after = run.metrics.get("after") or {}
    found = [
        (name if setting == "sparse" or setting == name else f"{name}, {setting}", scores)
        for setting, scores in after.items()
    ]
    metric, score = run.metrics.get("metric"), _number(run.metrics.get("score"))
    task = next((one for one in TASKS.values() if metric in one.headlines), None)
    if task is not None and score is not None:
        found.append((name, {str(metric): score / task.points}))
    if not found:
        found.append((name, run.metrics))
    headline = [
        (said, {key: value for key in headlines() if (value := _number(of.get(key))) is not None})
        for said, of in found
    ]
    return [model for model in headline if model[1]]


def _models_table(models: Sequence[tuple[RunRecord, str, dict[str, float]]]) -> Table:
    keys = [key for key in headlines() if any(key in scores for _, _, scores in models)]
    table = Table(title="Models", title_justify="left")
    for heading in ("model", "run"):
        table.add_column(heading, no_wrap=True)
    add_figures(table, *(headlines()[key] for key in keys), "ms", "dense ms")
    table.add_column("scored")
    table.add_column("command")
    for run, name, scores in models:
        took = (_number(run.metrics.get(key)) for key in ("latency_ms", "dense_ms"))
        table.add_row(
            name,
            run.name,
            *(shown(key, scores.get(key)) for key in keys),
            *("" if ms is None else f"{ms:.2f}" for ms in took),
            describe_measured(run),
            run.command,
        )
    return table


def _runs(held: StatusResult) -> Section:
    """Every run with its inputs, outputs and command."""
    section = Section("Runs")
    table = Table()
    for heading in ("run", "status", "started"):
        table.add_column(heading, no_wrap=True)
    table.add_column("took", justify="right", no_wrap=True)
    table.add_column("came to")
    folded = []
    for run in held.runs:
        with section.reading(run.name):
            came = (describe_metrics(run.metrics), describe_measured(run), describe_cost(run))
            tried = f" (x{run.attempts})" if run.attempts > 1 else ""
            took = describe_seconds(run.seconds)
            table.add_row(
                *(run.name + tried, run.status, _when(run.started), took),
                "\n".join(filter(None, (*came, run.error if run.status != FINISHED else ""))),
            )
            folded.append(page.folded(page.text(run.name), page.rendered(_details(run))))
    section.parts = [page.rendered(table), *folded]
    return section


def _details(run: RunRecord) -> Table:
    table = Table(show_header=False)
    table.add_column("", no_wrap=True)
    table.add_column("")
    table.add_row("command", run.command)
    inputs = {key: value for key, value in run.inputs.items() if value not in (None, "", [], {})}
    for key, value in inputs.items():
        table.add_row(key, _input_text(value))
    for key, path in run.outputs.items():
        table.add_row(f"made: {key}", path)
    if run.metrics.get("machine"):
        table.add_row("beware", str(run.metrics["machine"]))
    return table


def _input_text(value: Any) -> str:
    """An input of a run: a file with its digest, ratios, or anything as JSON."""
    if isinstance(value, Mapping) and isinstance(value.get("path"), str):
        return f"{value['path']} ({value.get('sha256')})"
    if isinstance(value, Mapping) and all(_number(one) is not None for one in value.values()):
        return f"{short_ratios(value)} ({', '.join(map(str, value))})"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _training(held: StatusResult) -> Section:
    """Curves of loss and score over the iterations of the newest trainings."""
    section = Section("Training")
    logged = [
        (run, logs)
        for run in held.runs
        if (logs := sorted((held.workspace / run.directory).glob("*/vis_data/scalars.json")))
    ]
    for run, logs in logged[-_MOST_CURVES:]:
        with section.reading(f"The log of {run.name}"):
            curves, damaged = _curves(logs)
            if damaged:
                lines = "a line" if damaged == 1 else f"{damaged} lines"
                section.unread.append(f"{lines} of the log of {run.name} cannot be read")
            drawn = [
                page.figure(curves_figure(found, what, "iteration"), f"{run.name}: {what}")
                for what, found in curves.items()
            ]
            if drawn:
                heading = f"<h3>{page.text(run.name)}</h3>"
                section.parts += [heading, page.side_by_side(drawn), _made_by(run)]
    _say_more(section, len(logged) - _MOST_CURVES, "trainings")
    return section


def _curves(logs: Sequence[Path]) -> tuple[dict[str, dict[str, Curve]], int]:
    """Loss and the first headline metric that was logged -> name -> (iteration, value) each; and
    how many lines could not be read.

    Args:
        logs: of the attempts at one run, the oldest first: what a later one says of an iteration
            counts.
    """
    points: dict[str, dict[float, float]] = {}
    damaged = 0
    for log in logs:
        for line in read_text(log, "log", _MOST_LOG_BYTES).splitlines():
            try:
                entry = parse_plain(line, "JSON")
                step = float(entry["step"])
            except (ValueError, TypeError, LookupError):
                damaged += 1
                continue
            for key, value in entry.items():
                if (number := _number(value)) is not None:
                    points.setdefault(key, {})[step] = number
    lines = {key: tuple(sorted(found.items())) for key, found in points.items()}
    curves = {"loss": {"loss": lines["loss"]}} if "loss" in lines else {}
    for metric, said in headlines().items():
        scores = {
            key.removesuffix(metric).rstrip("/") or "validation": line
            for key, line in lines.items()
            if key == metric or key.endswith(f"/{metric}")
        }
        if scores:
            return {**curves, said: scores}, damaged
    return curves, damaged


def _search(held: StatusResult) -> Section:
    """The last search: its tables, and its front with what was chosen."""
    section = Section("Search")
    runs = [run for run in held.runs if run.phase == "search"]
    if not runs:
        return section
    with section.reading("The study of the last search"):
        found = show_search(held.workspace)
        drawn = front_figure(found.searches, found.references, found.metric, found.searches)
        section.parts = [
            page.figure(drawn, f"{found.run}: latency and score of what was tried"),
            _in_workspace(held, page.rendered(shown_summary(found))),
            *(_made_by(run) for run in runs if run.name == found.run),
        ]
    plot = runs[-1].outputs.get("plot")
    if section.unread and plot is not None:
        with section.reading("The picture of the last search"):
            section.parts.append(page.picture(_inside(held, plot), f"{runs[-1].name}: {plot}"))
            section.parts.append(_made_by(runs[-1]))
    _say_more(section, len(runs) - 1, "searches")
    return section


def _sensitivity(held: StatusResult) -> Section:
    """How score and latency answer to each knob, as the last analysis found."""
    section = Section("Sensitivity")
    runs = [run for run in held.runs if run.status == FINISHED and "sensitivity" in run.outputs]
    for run in runs[-1:]:
        with section.reading(f"The result of {run.name}"):
            file = _inside(held, run.outputs["sensitivity"])
            metric = str(run.metrics["metric"])
            found = SensitivityResult(
                run=run.name,
                sensitivity=Sensitivity.from_dict(read_record(file)),
                metric=metric,
                file=file,
                plots={},
                execution=Execution.from_dict(run.inputs),
                resumed=False,
            )
            figures = sensitivity_figures(found.sensitivity, metric)
            section.parts += [
                page.side_by_side(
                    page.figure(drawn, f"{run.name}: {what}") for what, drawn in figures.items()
                ),
                _in_workspace(held, page.rendered(sensitivity_report(found))),
                _made_by(run),
            ]
    _say_more(section, len(runs) - 1, "analyses")
    return section


def _latency(held: StatusResult) -> Section:
    """What runs timed, and the calibrations of the machine."""
    section = Section("Latency")
    table = Table(title="Timed by runs", title_justify="left")
    table.add_column("run", no_wrap=True)
    table.add_column("of")
    add_figures(table, "dense ms", "chosen ms", "sparsest ms")
    table.add_column("beware")
    for run in held.runs:
        times = [_number(run.metrics.get(k)) for k in ("dense_ms", "latency_ms", "fastest_ms")]
        if times[0] is not None:
            cells = ("" if ms is None else f"{ms:.2f}" for ms in times)
            busy = str(run.metrics.get("machine") or "")
            table.add_row(run.name, _execution_text(run.inputs), *cells, busy)
    if table.row_count:
        section.parts.append(page.rendered(table))
    calibrations = {
        run.outputs["calibration"]: run for run in held.runs if "calibration" in run.outputs
    }
    for path, run in calibrations.items():
        with section.reading(f"The calibration of {run.name}"):
            file = _inside(held, path)
            made = Calibration.from_dict(read_record(file)["document"])
            result = CalibrateResult(
                calibration=made,
                accepted=made.accepted,
                file=file,
                reused=False,
                execution=Execution.from_dict(made.key),
                device_name=str(made.key["device_name"]),
                torch_threads=int(made.key["threads"]),
            )
            shown_here = _in_workspace(held, page.rendered(calibration_report(result)))
            section.parts += [shown_here, _made_by(run)]
    return section


def _execution_text(inputs: Mapping[str, Any]) -> str:
    """``backbone, 4 x 224x224, eager fp32, cpu``; nothing where a run does not say."""
    try:
        how = Execution.from_dict(inputs)
    except (KeyError, TypeError, ValueError, RuntimeError):
        return ""
    height, width = how.img_size
    return (
        f"{how.scope}, {how.batch_size} x {width}x{height}, {how.backend} {how.precision}, "
        f"{inputs.get('device_name') or how.device}"
    )


def _pictures(held: StatusResult) -> Section:
    """Pictures that runs made; those of curves are drawn anew elsewhere."""
    section = Section("Pictures")
    made = [
        (run, key, path)
        for run in held.runs
        for key, path in run.outputs.items()
        if path.lower().endswith(_PICTURES) and not key.startswith("plot")
    ]
    for run, key, path in made[-_MOST_PICTURES:]:
        with section.reading(f"The picture {path} of {run.name}"):
            drawn = page.picture(_inside(held, path), f"{run.name}: {key}")
            section.parts += [drawn, _made_by(run)]
    _say_more(section, len(made) - _MOST_PICTURES, "pictures")
    return section


def _machines(held: StatusResult) -> Section:
    """Versions and machines, a row for each that differ."""
    section = Section("Versions and machine")
    groups: dict[tuple[str, ...], list[str]] = {}
    for run in held.runs:
        with section.reading(f"The versions of {run.name}"):
            git = run.git or {}
            changed = " with changes" if git.get("dirty") else ""
            commit = f"{git['commit']}{changed}" if git else ""
            versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
            device = run.inputs.get("device_name") or run.inputs.get("device") or ""
            key = (run.host, str(device), versions, commit)
            groups.setdefault(key, []).append(run.name)
    table = Table()
    for heading in ("runs", "host", "device", "versions", "git commit"):
        table.add_column(heading)
    for known, names in groups.items():
        table.add_row(", ".join(names), *known)
    section.parts.append(page.rendered(table))
    return section


# --- words ---------------------------------------------------------------------------------------


def _made_by(run: RunRecord) -> str:
    """The command of a run, and how it ended."""
    said = f"{run.name}, {run.status}, {_when(run.ended or run.started)}"
    return f'<p class="made"><code>{page.text(run.command)}</code> {page.text(said)}</p>'


def _say_more(section: Section, more: int, what: str) -> None:
    if more > 0:
        section.parts.append(page.paragraph(f"{more} earlier {what} are not drawn.", "dim"))


def _inside(held: StatusResult, path: str) -> Path:
    """A file of the workspace. A record that came from elsewhere may name any, and none but the
    workspace's own are for whoever the page is sent to.

    Raises:
        ValueError: it lies elsewhere, or a link leads there.
    """
    root = held.workspace.resolve()
    file = (root / path).resolve()
    if root not in file.parents:
        raise ValueError(f"{path} does not lie in the workspace")
    return file


def _in_workspace(held: StatusResult, shown_paths: str) -> str:
    """HTML in which paths in the workspace begin there: where that lies is nobody's concern."""
    return shown_paths.replace(page.text(f"{held.workspace}{os.sep}"), "")


def _when(moment: str) -> str:
    """``2026-05-02 11:50 UTC``; what is no date as it is."""
    try:
        then = datetime.fromisoformat(moment)
        if then.tzinfo is None:
            then = then.replace(tzinfo=timezone.utc)
        return then.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError):
        return moment


def _number(value: Any) -> float | None:
    """A finite number, None where it is anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)
