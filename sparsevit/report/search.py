"""A search on the terminal: its progress while it runs, and its table at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from sparsevit.report.columns import add_figures
from sparsevit.report.ratios import short_ratios
from sparsevit.search.front import Reference, front_of
from sparsevit.search.options import described
from sparsevit.search.results import Progress as SearchProgress
from sparsevit.search.results import SearchResult
from sparsevit.search.trial import Trial
from sparsevit.sparsity import Configuration
from sparsevit.tasks import in_points

if TYPE_CHECKING:
    from sparsevit.phases.search import SearchPhaseResult
    from sparsevit.phases.searching.show import ShownSearch

_STAGES = {
    "bounds": "Timing dense and sparsest",
    "search": "Searching",
    "confirm": "Timing the best again",
    "done": "Searched",
}


@contextmanager
def render_progress(console: Console) -> Iterator[Callable[[SearchProgress], None]]:
    """Draws one progress display; what it yields is a search's ``on_event``.

    Where the console is no terminal, a line is printed for every new best instead.

    Args:
        console: where to draw, commonly one on stderr.
    """
    if not console.is_terminal:
        yield _print_new_bests(console)
        return
    display = _Display(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[scored]}"),
        console=console,
    )
    task = display.add_task(_STAGES["bounds"], total=None, scored="", counts="", best="")

    def on_event(event: SearchProgress) -> None:
        # shown from the first event to the last, so that whatever else the caller does before and
        # after may have a display of its own
        if not display.live.is_started and event.stage != "done":
            display.start()
        _draw(display, task, event)
        if event.stage == "done":
            display.stop()

    try:
        yield on_event
    finally:
        display.stop()


class _Display(Progress):
    """A line with the bar, and below it what would not fit beside it in 80 columns."""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            for name, style in (("counts", ""), ("best", "green")):
                if task.fields[name]:
                    yield Padding(Text(task.fields[name], style), (0, 0, 0, 2))


def _draw(display: Progress, task: TaskID, event: SearchProgress) -> None:
    scored, *counts = _counts(event)
    if event.stage == "search":
        counts += filter(None, [time_left(event.eta_seconds)])
    best = event.best
    display.update(
        task,
        description=_STAGES[event.stage],
        total=None if event.stage == "bounds" else event.target,
        completed=event.scored,
        scored=scored,
        counts=", ".join(counts),
        best="" if best is None else f"best {_brief(best)}: {_ratios(best.configuration)}",
    )


def _print_new_bests(console: Console) -> Callable[[SearchProgress], None]:
    printed: list[int] = []

    def on_event(event: SearchProgress) -> None:
        if event.best is None or printed[-1:] == [event.best.number]:
            return
        printed.append(event.best.number)
        left = time_left(event.eta_seconds)
        console.print(
            f"{counts_line(event)}; best so far {_brief(event.best)}: "
            f"ratios {_ratios(event.best.configuration)}" + (f"; {left}" if left else ""),
            markup=False,
            highlight=False,
            soft_wrap=True,
        )

    return on_event


def counts_line(event: SearchProgress) -> str:
    """``12/50 scored, 2 running, 38 left, 40 drawn, 35% in the interval``.

    Where latencies are predicted, and some were measured: ``predictions off by 1.2%``.
    """
    return ", ".join(_counts(event))


def _counts(event: SearchProgress) -> list[str]:
    parts = [f"{event.scored}/{event.target} scored"]
    if event.running:
        parts.append(f"{event.running} running")
    parts.append(f"{max(0, event.target - event.scored)} left")
    parts.append(f"{event.candidates} drawn")
    if event.feasible_share is not None:
        parts.append(f"{event.feasible_share:.0%} in the interval")
    if event.prediction_error is not None:
        parts.append(f"predictions off by {event.prediction_error:.1%}")
    return parts


def time_left(seconds: float | None) -> str:
    """``0:03:20 left``; nothing where it is not known."""
    return "" if seconds is None else f"{timedelta(seconds=round(seconds))} left"


def results_table(result: SearchResult, top: int = 10) -> Table:
    """The best configurations of a search, the winner first.

    Args:
        result: of the search.
        top: at most so many rows.
    """
    table = Table(
        title=f"Search within {_interval(result)} ms{_speedups(result)}",
        caption=summary_line(result),
        caption_justify="left",
    )
    table.add_column("", no_wrap=True)
    add_figures(table, "score", "ms", "ms again", "speedup")
    table.add_column("ratios", overflow="fold")
    add_figures(table, "trial")
    for trial in _best_first(result)[:top]:
        table.add_row(*_row(trial, result), style=_style(trial, result))
    return table


def _interval(result: SearchResult) -> str:
    return f"{result.min_ms:.5g} to {result.max_ms:.5g}"


def _speedups(result: SearchResult) -> str:
    """`` (1.80x to 1.98x)``, where the interval is one of the sparse model's alone."""
    if not 0 < result.min_ms <= result.max_ms <= result.dense_ms:
        return ""
    return f" ({result.dense_ms / result.max_ms:.2f}x to {result.dense_ms / result.min_ms:.2f}x)"


def summary_line(result: SearchResult) -> str:
    """What was drawn and scored, why the search ended, and what the device can reach."""
    reasons = {
        "trials": "",
        "candidates": " (the limit on candidates was reached)",
        "exhausted": " (the whole space was searched)",
    }
    same = f" ({result.same_network} of them the same network as another)"
    line = (
        f"{result.feasible} scored of {result.distinct} different configurations"
        f"{same if result.same_network else ''}, "
        f"{result.candidates} drawn{reasons[result.stopped]}; "
        f"dense {result.dense_ms:.4g} ms, sparsest {result.fastest_ms:.4g} ms."
    )
    missed = len(result.unconfirmed)
    if missed:
        better = "better one" if missed == 1 else "better ones"
        line += f" {missed} {better} missed the interval when measured again."
    return line if result.best is not None else f"Nothing was found. {line}"


def _best_first(result: SearchResult) -> list[Trial]:
    remeasured = {trial.number: trial for trial in result.unconfirmed}
    if result.best is not None:
        remeasured[result.best.number] = result.best
    scored = [
        remeasured.get(trial.number, trial) for trial in result.trials if trial.state == "scored"
    ]
    winner = None if result.best is None else result.best.number
    return sorted(
        scored, key=lambda trial: (trial.number != winner, -(trial.score or 0), trial.latency_ms)
    )


def _row(trial: Trial, result: SearchResult) -> tuple[str, ...]:
    assert trial.configuration is not None
    latency_ms = trial.confirmed_ms or trial.latency_ms
    return (
        _mark(trial, result),
        f"{trial.score:.4g}",
        f"{trial.latency_ms:.2f}",
        "" if trial.confirmed_ms is None else f"{trial.confirmed_ms:.2f}",
        f"{result.dense_ms / latency_ms:.2f}x" if latency_ms else "",
        _ratios(trial.configuration),
        str(trial.number),
    )


def _mark(trial: Trial, result: SearchResult) -> str:
    if result.best is not None and trial.number == result.best.number:
        return "best"
    return "missed" if trial in result.unconfirmed else ""


def _style(trial: Trial, result: SearchResult) -> str | None:
    return {"best": "bold green", "missed": "dim"}.get(_mark(trial, result))


def _ratios(configuration: Configuration | None) -> str:
    return "" if configuration is None else short_ratios(configuration)


def _brief(trial: Trial) -> str:
    if trial.predicted_ms is None or trial.confirmed_ms is None:
        return f"{trial.score:.4g} at {trial.latency_ms:.1f} ms"
    return f"{trial.score:.4g} at {trial.confirmed_ms:.1f} ms (predicted {trial.predicted_ms:.1f})"


def _latency_source(result: SearchPhaseResult) -> str:
    if result.prediction_error is None:
        return result.latency
    return f"{result.latency} (off by {result.prediction_error:.1%} on average where checked)"


def search_summary(result: SearchPhaseResult) -> Group:
    """The tables of a search and where its results are."""
    how = result.execution
    height, width = how.img_size
    return Group(
        *_tables(result.searches, result.references),
        f"score: {in_points(result.metric)} on {result.images} images of the {result.split} split; "
        f"latency: {how.scope}, "
        f"{how.batch_size} x {width}x{height}, {how.backend} {how.precision}, "
        f"{how.device}, {_latency_source(result)}",
        *([] if result.best is None else [f"best: {result.best}"]),
        *_how_to_name(result.bests),
        f"log: {result.log}",
        f"plot: {result.plot}",
        f"study: {result.storage} (open it with optuna-dashboard)",
    )


def shown_summary(shown: ShownSearch) -> Group:
    """The tables of a search that ran before."""
    timing = shown.timing
    height, width = timing["img_size"]
    return Group(
        *_tables(shown.searches, shown.references),
        f"{shown.run}, {shown.status}; score: {in_points(shown.metric)}; "
        f"latency: {timing['scope']}, {timing['batch_size']} x {width}x{height}, "
        f"{timing['backend']} {timing['precision']}, {timing['device']}",
        *[f"best for {described(budget)}: {path}" for budget, path in shown.bests.items()],
        *([] if shown.plot is None else [f"plot: {shown.plot}"]),
        f"study: {shown.storage} (open it with optuna-dashboard)",
    )


def budgets_table(searches: Sequence[SearchResult], references: Sequence[Reference]) -> Table:
    """The best of each interval, beside the dense model and uniform ratios.

    Args:
        searches: one an interval.
        references: what they are compared with.
    """
    table = Table(
        title="Best of each interval" if len(searches) > 1 else "Compared with dense and uniform"
    )
    table.add_column("")
    add_figures(table, "score", "ms", "speedup")
    table.add_column("ratios", overflow="fold")
    dense_ms = searches[0].dense_ms
    for reference in references:
        ratios = _ratios(reference.configuration)
        table.add_row(
            *_line(reference.name, reference.score, reference.latency_ms, dense_ms, ratios)
        )
    for result in searches:
        best = result.best
        name = "best" if result.max_ms == float("inf") else _interval(result)
        if best is None:
            table.add_row(f"{name} ms", "nothing found", "", "", "")
            continue
        latency_ms = best.confirmed_ms or best.latency_ms or float("nan")
        ratios = _ratios(best.configuration)
        table.add_row(
            *_line(f"{name} ms", best.score, latency_ms, result.dense_ms, ratios),
            style="bold green",
        )
    return table


def front_table(result: SearchResult) -> Table:
    """The trials that no other beats in both score and latency, the fastest first."""
    front = front_of(result.trials)
    table = Table(
        title="Front: no trial is better in both score and latency",
        caption=summary_line(result),
        caption_justify="left",
    )
    add_figures(table, "score", "ms", "speedup")
    table.add_column("ratios", overflow="fold")
    add_figures(table, "trial")
    for trial in front:
        latency_ms = trial.latency_ms or float("nan")
        line = _line("", trial.score, latency_ms, result.dense_ms, _ratios(trial.configuration))
        table.add_row(*line[1:], str(trial.number))
    return table


def _line(
    name: str, score: float | None, latency_ms: float, dense_ms: float, ratios: str
) -> tuple[str, ...]:
    speedup = f"{dense_ms / latency_ms:.2f}x" if latency_ms else ""
    return name, f"{score:.4g}", f"{latency_ms:.2f}", speedup, ratios


def _tables(searches: Sequence[SearchResult], references: Sequence[Reference]) -> list[Table]:
    whole = searches[0].max_ms == float("inf")
    found = [front_table(searches[0])] if whole else [results_table(each) for each in searches]
    return [*found, budgets_table(searches, references)] if references else found


def _how_to_name(bests: Mapping[str, Path]) -> list[str]:
    if len(bests) < 2:
        return []
    first, second = list(bests)[:2]
    lines = [f"best for {described(budget)}: {path}" for budget, path in bests.items()]
    return [
        *lines,
        f"The next phase uses the best for {described(first)}; choose another with "
        f"--budget {second}.",
    ]
