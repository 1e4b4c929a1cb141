"""A search on the terminal: one display while it runs, one table at the end."""

import io
import re

import pytest
from rich.console import Console

from sparsevit.report.search import budgets_table, render_progress, results_table, summary_line
from sparsevit.search.loop import search
from sparsevit.search.options import SearchOptions
from sparsevit.sparsity import Space

SPACE = Space.staged((2, 2, 6, 2), prefix="backbone.stages")


def run(on_event=None, measure=None, **changes):
    return search(
        SPACE,
        measure or (lambda configuration: 60 - 50 * configuration.mean()),
        lambda configuration: 40 - configuration["backbone.stages.0"],
        SearchOptions(**{"min_ms": 37, "max_ms": 42, "trials": 5, **changes}),
        on_event=on_event,
    )


def drawn(renderable, width=100):
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    return console.file.getvalue()


def test_the_winner_stands_first_with_its_speedup():
    result = run()
    text = drawn(results_table(result))
    rows = [line for line in text.splitlines() if line.startswith("│")]
    assert rows[0].startswith("│ best │")
    assert f"{result.dense_ms / result.best.latency_ms:.2f}x" in rows[0]
    assert len(rows) == 5
    assert "dense 60 ms" in text


def test_the_table_fits_a_narrow_terminal():
    assert all(len(line) <= 80 for line in drawn(results_table(run()), width=80).splitlines())


def test_a_better_one_that_missed_the_interval_is_shown_as_missed():
    calls = []

    def measure(configuration):
        calls.append(configuration)
        return 60 - 50 * configuration.mean() if calls.count(configuration) == 1 else missed.pop()

    missed = [40.0, 99.0]
    result = run(measure=measure)
    text = drawn(results_table(result))
    assert "missed" in text
    assert "99.00" in text
    assert "1 better one missed the interval" in summary_line(result)


def test_nothing_found_is_said():
    result = run(min_ms=38.00001, max_ms=38.00002, max_candidates=5)
    assert summary_line(result).startswith("Nothing was found.")
    assert "the limit on candidates was reached" in " ".join(drawn(results_table(result)).split())


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_says_the_counts_and_the_best(terminal):
    console = Console(file=io.StringIO(), width=160, force_terminal=terminal)
    with render_progress(console) as on_event:
        run(on_event=on_event)
    text = console.file.getvalue()
    assert "/5 scored" in text
    assert "in the interval" in text
    assert "best" in text


def test_without_a_terminal_only_a_new_best_gets_a_line():
    console = Console(file=io.StringIO(), width=160, force_terminal=False)
    events = []
    with render_progress(console) as on_event:
        run(on_event=lambda event: (events.append(event.best), on_event(event)))
    lines = console.file.getvalue().splitlines()
    assert len(lines) == len({best.number for best in events if best is not None})


@pytest.mark.parametrize("width", [60, 80])
def test_progress_and_figures_stay_whole_on_a_narrow_terminal(width):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    with render_progress(console) as on_event:
        result = run(on_event=on_event)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue())
    assert all(len(line) <= width for line in re.split(r"[\r\n]", shown))
    assert f"best {result.best.score:.4g} at {result.best.latency_ms:.1f} ms" in shown
    for table in (results_table(result), budgets_table([result], [])):
        text = drawn(table, width)
        assert "…" not in text
        assert f"{result.best.latency_ms:.2f}" in text
