"""Nothing that comes from a file or a name steers the terminal."""

from __future__ import annotations

import io
import re
import sys
from types import SimpleNamespace

import pytest
from rich.table import Table
from rich.text import Text

from sparsevit.cli import console, main
from sparsevit.errors import UserError
from sparsevit.report.reporter import ConsoleReporter
from sparsevit.report.search_plot import draw_front
from sparsevit.report.sensitivity_plot import curves_figure
from sparsevit.report.terminal import Terminal, visible

HOSTILE = {
    "escape": "a\x1b[31mb",
    "title": "a\x1b]0;owned\x07b",
    "link": "a\x1b]8;;http://x\x1b\\b",
    "clear": "a\x1b[2J\x1b[Hb",
    "c1": "a\x9b31mb",
    "return": "safe\rhidden",
    "backspace": "a\b\b\bb",
    "bidi": "a\u202egnp.exe\u2066b\u200f",
    "separator": "a\u2028b\u0085c",
    "surrogate": "a\udce9b",
    "null": "a\x00b\x7fc",
    "markup": "[red]a[/red][link=http://x]b[/link]",
    "closing": "a[/]b[/bold]",
    "trailing": "a\\",
    "emoji": ":skull:",
}
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\u200f\ud800-\udfff]")


def printed(*what, terminal=True, width=200):
    """What a terminal would get, the styles of our own taken out."""
    file = io.StringIO()
    Terminal(file=file, force_terminal=terminal, width=width, color_system="standard").print(*what)
    return re.sub(r"\x1b\[[\d;]*m", "", file.getvalue())


def in_a_table(text):
    table = Table(title=text)
    table.add_column(text)
    table.add_row(text)
    table.add_row(Text(text, "bold"))
    return table


@pytest.mark.parametrize("wrap", [str, Text, in_a_table], ids=["text", "styled", "table"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_text_is_shown_and_steers_nothing(name, wrap):
    got = printed(wrap(HOSTILE[name]))
    assert not STEERING.search(got)
    if name in ("markup", "closing", "trailing", "emoji"):
        assert HOSTILE[name] in got
    if name == "escape":
        assert r"a\x1b[31mb" in got


def test_our_own_styles_still_reach_a_terminal():
    file = io.StringIO()
    Terminal(file=file, force_terminal=True, color_system="standard").print(Text("x", "bold"))
    assert "\x1b[1mx" in file.getvalue()


def test_ordinary_text_stays_as_it_is():
    text = "Größe 3² → 12 µm\twindows 日本 🙂\nnext"
    assert visible(text) == text


@pytest.mark.parametrize("name", HOSTILE)
def test_notes_and_progress_are_one_line_each(name, capsys):
    file = io.StringIO()
    reporter = ConsoleReporter(Terminal(file=file, force_terminal=False))
    reporter.note(f"{HOSTILE[name]}\nforged")
    reporter.heading(HOSTILE[name])
    with reporter.task(HOSTILE[name], 1) as task:
        task.advance(detail=HOSTILE[name])
    assert not STEERING.search(file.getvalue())
    assert len(file.getvalue().splitlines()) == 3


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("kind", [UserError, ValueError])
def test_an_error_steers_nothing(name, kind, capsys, monkeypatch):
    def fails(**_):
        raise kind(f"There is no {HOSTILE[name]}.")

    monkeypatch.setattr(main, "app", fails)
    monkeypatch.setattr(console, "err", Terminal(file=sys.stderr, width=200))
    assert main.main(["status"]) == (2 if kind is UserError else 1)
    assert not STEERING.search(capsys.readouterr().err)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_result_steers_nothing_as_a_table_and_as_json(name, capsys):
    console.emit({"name": HOSTILE[name]}, False, lambda result: result["name"])
    console.emit({"name": HOSTILE[name]}, True, str)
    assert not STEERING.search(capsys.readouterr().out)


@pytest.mark.parametrize("name", ["$x_{$", "a$b", r"\frac", *HOSTILE.values()])
def test_a_name_in_a_plot_is_no_formula(name, tmp_path):
    figure = curves_figure({name: [(0.0, 1.0), (0.5, 2.0)], "b": [(0.0, 1.0), (0.5, 2.0)]}, name)
    figure.savefig(tmp_path / "a.png")
    searched = SimpleNamespace(trials=(), best=None, max_ms=1.0, min_ms=0.0)
    assert draw_front([searched], [], metric=name, path=tmp_path / "b.png", scored_in=[searched])
