"""Files that hold no study of ours are named and left as they are; reading one never writes."""

from __future__ import annotations

import os
import sqlite3

import pytest

from sparsevit.errors import UserError
from sparsevit.search import files
from sparsevit.search.read import read_search
from sparsevit.search.study import open_study


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A study's file."""
    path = tmp_path_factory.mktemp("study") / "good.db"
    open_study(path, "x")
    return path.read_bytes()


def foreign(path, good):
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE mine (a)")


FILES = {
    "foreign.db": foreign,
    "text.db": lambda path, good: path.write_text("hello, this is a text"),
    "notes.log": lambda path, good: path.write_text("hello\nworld\n"),
    "other.log": lambda path, good: path.write_text('{"a": 1}\n'),
    "cut.db": lambda path, good: path.write_bytes(good[: len(good) // 2]),
    "corrupt.db": lambda path, good: path.write_bytes(good[:12288] + b"\x5a" * 8192 + good[20480:]),
    "pipe.db": lambda path, good: os.mkfifo(path),
    "pipe.log": lambda path, good: os.mkfifo(path),
    "folder.db": lambda path, good: path.mkdir(),
}


@pytest.mark.parametrize("open_it", [open_study, read_search])
@pytest.mark.parametrize("name", FILES)
def test_what_is_no_study_is_named_and_left_as_it_is(tmp_path, good, name, open_it):
    path = tmp_path / name
    FILES[name](path, good)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(UserError, match=name):
        open_it(path, "x")
    assert os.listdir(tmp_path) == [name]
    assert before is None or path.read_bytes() == before


def test_reading_makes_no_study(tmp_path, good):
    for name in ("a.db", "a.log"):
        with pytest.raises(UserError, match="cannot be read"):
            read_search(tmp_path / name, "x")
    path = tmp_path / "good.db"
    path.write_bytes(good)
    with pytest.raises(UserError, match="Nothing was searched yet"):
        read_search(path, "x")
    with pytest.raises(UserError, match="no study 'y'"):
        read_search(path, "y")
    assert os.listdir(tmp_path) == ["good.db"]
    assert path.read_bytes() == good


def test_a_locked_file_is_said_to_be(tmp_path, good, monkeypatch):
    monkeypatch.setattr(files, "_LOCKED_SECONDS", 0.01)
    path = tmp_path / "good.db"
    path.write_bytes(good)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    for open_it in (open_study, read_search):
        with pytest.raises(UserError, match="locked by another program"):
            open_it(path, "x")
    holder.close()


def test_a_study_with_other_objectives_is_not_gone_on_with(tmp_path):
    open_study(tmp_path / "a.db", "x", directions=("maximize", "minimize"))
    with pytest.raises(UserError, match="something else"):
        open_study(tmp_path / "a.db", "x")
