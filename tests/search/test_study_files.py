"""Files that hold no study of ours are named and left as they are; reading one never writes."""

from __future__ import annotations

import os
import sqlite3

import optuna
import pytest

from sparsevit.errors import UserError
from sparsevit.search import files, study
from sparsevit.search.read import read_search
from sparsevit.search.study import claim_study, open_study, reading
from sparsevit.search.trial import CONFIGURATION, ITERATION


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


def test_a_storage_or_study_without_a_name_that_can_be_kept_makes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for storage in (" ", "-"):
        with pytest.raises(UserError, match="names no file"):
            open_study(storage, "x")
    for storage in (":memory:", "sqlite:///:memory:", "sqlite:///"):
        with pytest.raises(UserError, match="is gone when"):
            open_study(storage, "x")
    for storage in ("sqlite:///~/x.db", "~nobody-of-this-name/x.db"):
        with pytest.raises(UserError, match="home folder"):
            open_study(storage, "x")
    with pytest.raises(UserError, match="not UTF-8"):
        open_study("\udcff.db", "x")
    with pytest.raises(UserError, match="postgresql://"):
        open_study("postgresql:me:secret@127.0.0.1/studies", "x")
    for show in (open_study, lambda storage, _: reading(storage).__enter__()):
        with pytest.raises(UserError, match=r"needs \w+, which is not installed"):
            show("mysql://me@127.0.0.1:9/studies", "x")
    for name in ("\udcff", "\x1b[31m"):
        with pytest.raises(UserError, match="study's name"):
            open_study(tmp_path / "new.db", name)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE trials SET number = NULL",
        "UPDATE trials SET state = 'WAITING'",
        "UPDATE trial_values SET value = NULL",
        "UPDATE trial_values SET value = 'x'",
        "UPDATE trial_values SET value_type = 'X'",
        "DELETE FROM trial_values",
        "UPDATE trial_params SET distribution_json = '-5'",
        "UPDATE trial_user_attributes SET value_json = '[]' WHERE key = 'configuration'",
        "UPDATE study_user_attributes SET value_json = ''",
        f"UPDATE trial_user_attributes SET value_json = '{'[' * 9000}'",
    ],
)
def test_a_study_whose_trials_are_damaged_is_not_gone_on_with(tmp_path, damage):
    path = tmp_path / "study.db"
    study = open_study(path, "x")
    claim_study(study, {})
    study.add_trial(
        optuna.create_trial(
            params={"a": 0.5},
            distributions={"a": optuna.distributions.CategoricalDistribution([0.0, 0.5])},
            value=1.0,
            user_attrs={CONFIGURATION: {"a": 0.5}, ITERATION: 0},
        )
    )
    with sqlite3.connect(path) as database:
        assert database.execute(damage).rowcount
    with pytest.raises(UserError, match="damaged"):
        claim_study(open_study(path, "x"), {})


def test_a_study_of_unknown_directions_is_damaged(tmp_path):
    path = tmp_path / "study.db"
    claim_study(open_study(path, "x"), {})
    with sqlite3.connect(path) as database:
        database.execute("UPDATE study_directions SET direction = 'UP'")
    for open_it in (open_study, read_search):
        with pytest.raises(UserError):
            open_it(path, "x")


def test_notes_in_a_journal_are_left_alone(tmp_path):
    path = tmp_path / "x.log"
    open_study(path, "a")
    text = path.read_bytes()
    path.write_bytes(text + b"my notes\n")
    with pytest.raises(UserError, match=f"its line {len(text.splitlines()) + 1} is not"):
        open_study(path, "a")
    assert path.read_bytes() == text + b"my notes\n"
    # what a killed process has left of a line
    path.write_bytes(text + text[:20])
    open_study(path, "a")


def test_a_journal_whose_lock_was_left_behind_is_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "_STALE_SECONDS", 1)
    open_study(tmp_path / "x.log", "a")
    (tmp_path / "x.log.lock").symlink_to("x.log")
    open_study(tmp_path / "x.log", "b")
    assert os.listdir(tmp_path) == ["x.log"]
