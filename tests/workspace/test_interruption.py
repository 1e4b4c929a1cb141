"""Signals are remembered, whatever a library makes of their exceptions."""

from __future__ import annotations

import contextlib
import os
import signal
from types import SimpleNamespace

import pytest
from mmengine.config import Config

from sparsevit import interruption
from sparsevit.atomic import write_atomic
from sparsevit.errors import UserError
from sparsevit.interruption import Terminated
from sparsevit.phases.inputs import save_config
from sparsevit.workspace import Workspace

RAISED = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}


@pytest.fixture
def ws(tmp_path):
    return Workspace.open(tmp_path)


def formatted_by_mmengine(number):
    """What mmengine's config formatter does with every exception."""
    try:
        signal.raise_signal(number)
    except:  # noqa: E722
        raise SyntaxError("Failed to format the config file") from None


def swallowed(number):
    with contextlib.suppress(BaseException):
        signal.raise_signal(number)


@pytest.mark.parametrize("number", RAISED)
def test_a_signal_that_a_library_made_another_error_of_is_an_interruption(ws, number):
    with pytest.raises(RAISED[number]), ws.run("adapt", {}):
        formatted_by_mmengine(number)
    (run,) = ws.history("adapt")
    assert run.status == "interrupted"
    assert run.error == {2: "KeyboardInterrupt", 15: "SIGTERM"}[number]


@pytest.mark.parametrize("number", RAISED)
def test_a_signal_that_was_swallowed_stops_the_run_at_its_next_report(ws, number):
    reached = []

    def work():
        with ws.run("adapt", {}) as run:
            swallowed(number)
            run.update(metrics={"step": 1})
            reached.append(1)

    with pytest.raises(RAISED[number]):
        work()
    assert not reached
    assert ws.history("adapt")[0].status == "interrupted"


def test_a_run_that_reports_no_more_is_not_finished_by_a_swallowed_signal(ws):
    with pytest.raises(KeyboardInterrupt), ws.run("adapt", {}):
        swallowed(signal.SIGINT)
    assert ws.last("adapt") is None


def test_handlers_are_given_back_and_nothing_is_remembered_after(ws):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), ws.run("adapt", {}):
        signal.raise_signal(signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert interruption.received() is None


def test_a_signal_waits_for_a_write_to_end(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    monkeypatch.setattr("os.fsync", lambda descriptor: signal.raise_signal(signal.SIGINT))
    with interruption.remembered(), pytest.raises(KeyboardInterrupt):
        write_atomic(path, "whole")
    assert path.read_text() == "whole"
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("end", [KeyboardInterrupt, RuntimeError, UserError("no", "yes")])
def test_a_finished_run_stays_as_it_is_whatever_becomes_of_a_later_attempt(ws, end):
    with ws.run("adapt", {"seed": 0}) as run:
        (run.directory / "a.pth").write_text("finished")
        run.update(metrics={"loss": 1.0}, outputs={"checkpoint": "a.pth"})

    def attempt():
        with ws.run("adapt", {"seed": 0}, resume=True) as run:
            assert run.resumed
            (run.directory / "a.pth").write_text("half")
            run.update(metrics={"loss": 2.0}, outputs={"checkpoint": "a.pth"})
            raise end

    with pytest.raises(type(end) if isinstance(end, Exception) else end):
        attempt()
    assert ws.last("adapt").metrics == {"loss": 1.0}
    assert ws.output("adapt", "checkpoint").read_text() == "finished"
    assert ws.history("adapt")[0].status == "finished"
    with pytest.raises(UserError, match="already done"), ws.run("adapt", {"seed": 0}):
        pass
    with ws.run("adapt", {"seed": 0}, resume=True) as run:
        # an attempt that was interrupted goes on; one that failed is begun anew
        expected = "half" if end is KeyboardInterrupt else "finished"
        assert (run.directory / "a.pth").read_text() == expected
        (run.directory / "a.pth").write_text("better")
    assert [(r.id, r.status) for r in ws.history("adapt")] == [("run-001", "finished")]
    assert ws.output("adapt", "checkpoint").read_text() == "better"


def test_what_killed_writers_left_is_removed_and_nothing_else(ws):
    with ws.run("adapt", {}) as run:
        folder = run.directory
    left = folder / ".points.json.999999999-0123abcd.tmp"
    theirs = [folder / ".notes.tmp", folder / "a.999999999.tmp"]
    for path in (left, *theirs):
        path.touch()
    with ws.run("adapt", {}, resume=True):
        pass
    assert not left.exists()
    assert all(path.exists() for path in theirs)


def test_a_link_at_a_temporary_name_is_not_followed(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    for name in (".x.yaml.tmp", f".x.yaml.{os.getpid()}.tmp"):
        (tmp_path / name).symlink_to(precious)
    write_atomic(tmp_path / "x.yaml", "new")
    assert precious.read_text() == "mine"


def test_a_config_that_was_made_a_link_is_replaced_and_what_it_leads_to_is_not(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "config.py").symlink_to(precious)
    given = SimpleNamespace(base=Config({"a": 5})), SimpleNamespace(directory=tmp_path)
    assert save_config(*given).read_text() == "a = 5\n"
    assert precious.read_text() == "mine"
