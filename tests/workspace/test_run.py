"""When a run is new, goes on, or is refused; what is recorded of it."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from sparsevit.errors import UserError
from sparsevit.workspace import Terminated, Workspace

INPUTS = {"config": "a.py", "seed": 0}


@pytest.fixture
def ws(tmp_path):
    return Workspace.open(tmp_path / "ws")


def finish(ws, phase="adapt", inputs=INPUTS, **how):
    with ws.run(phase, inputs, **how) as run:
        run.update(metrics={"loss": 0.5})
    return run


def fail(ws, inputs=INPUTS, error=RuntimeError("boom")):
    with pytest.raises(type(error)), ws.run("adapt", inputs):
        raise error


def test_a_finished_run_is_recorded_for_a_person_to_read(ws):
    run = finish(ws)
    text = (ws.path / "workspace.json").read_text()
    assert text.startswith('{\n  "version": 1,')
    entry = json.loads(text)["phases"]["adapt"]["runs"][0]
    assert entry == ws.last("adapt").to_dict() == run.record.to_dict()
    assert list(entry)[:4] == ["id", "phase", "status", "started"]
    assert entry["status"] == "finished"
    assert entry["inputs"] == INPUTS
    assert entry["metrics"] == {"loss": 0.5}
    assert entry["started"].endswith("+00:00")
    assert entry["started"] <= entry["ended"]
    assert entry["directory"] == "adapt/run-001"
    assert {"python", "torch", "sparsevit", "numpy"} <= set(entry["versions"])
    assert entry["pid"] == os.getpid()
    assert entry["command"]


def test_the_state_of_the_repository_around_it_is_recorded(ws, tmp_path, monkeypatch):
    repository = tmp_path / "repository"
    repository.mkdir()
    monkeypatch.chdir(repository)
    assert finish(ws).record.git is None

    def git(*words):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        return subprocess.run(
            ["git", *identity, *words], check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init")
    Path("a.py").write_text("a = 1")
    git("add", "a.py")
    git("commit", "-m", "a")
    assert finish(ws, force=True).record.git == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    Path("a.py").write_text("a = 2")
    assert finish(ws, force=True).record.git["dirty"]


def test_a_finished_run_with_the_same_inputs_asks_for_force_or_resume(ws):
    finish(ws)
    before = (ws.path / "workspace.json").read_bytes()
    with pytest.raises(UserError, match=r"already done.*run-001.*--force.*--resume"):
        finish(ws, inputs={"seed": 0, "config": "a.py"})
    assert (ws.path / "workspace.json").read_bytes() == before


def test_a_finished_run_whose_output_was_deleted_says_so(ws):
    with ws.run("adapt", INPUTS) as run:
        (run.directory / "a.pth").touch()
        run.update(outputs={"checkpoint": run.directory / "a.pth"})
    (run.directory / "a.pth").unlink()
    with pytest.raises(UserError, match=r"adapt/run-001/a\.pth no longer exists"):
        finish(ws)


def test_force_begins_a_new_run_and_keeps_the_old(ws):
    first = finish(ws)
    (first.directory / "mine").touch()
    second = finish(ws, force=True)
    assert second.directory.name == "run-002"
    assert not second.resumed
    assert (first.directory / "mine").exists()
    assert [run.id for run in ws.history("adapt")] == ["run-001", "run-002"]


def test_resume_continues_a_finished_run(ws):
    finish(ws)
    with ws.run("adapt", INPUTS, resume=True) as run:
        assert run.resumed
        assert run.record.metrics == {"loss": 0.5}
    assert [(run.id, run.attempts) for run in ws.history("adapt")] == [("run-001", 2)]


def test_resume_with_nothing_there_begins(ws):
    assert not finish(ws, resume=True).resumed


def test_resume_with_other_inputs_names_what_differs(ws):
    finish(ws)
    with pytest.raises(UserError, match=r"run-001 differs in seed, lr\b"):
        finish(ws, inputs={**INPUTS, "seed": 1, "lr": 0.1}, resume=True)
    assert len(ws.history("adapt")) == 1


def test_resume_may_change_an_extendable_input(ws):
    finish(ws, inputs={**INPUTS, "trials": 4}, extendable=["trials"])
    more = {**INPUTS, "trials": 8}
    with ws.run("adapt", more, resume=True, extendable=["trials"]) as run:
        assert run.resumed
    assert ws.last("adapt").inputs == more
    with pytest.raises(UserError, match="already done"):
        finish(ws, inputs=more, extendable=["trials"])


def test_without_resume_an_extendable_input_makes_another_run(ws):
    finish(ws, inputs={"trials": 4}, extendable=["trials"])
    assert finish(ws, inputs={"trials": 8}, extendable=["trials"]).record.id == "run-002"


def test_force_and_resume_exclude_each_other(ws):
    with pytest.raises(UserError, match="cannot be used together"):
        ws.run("adapt", INPUTS, force=True, resume=True)


def test_other_inputs_begin_a_new_run(ws):
    finish(ws)
    assert finish(ws, inputs={**INPUTS, "seed": 1}).record.id == "run-002"


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt()])
def test_a_run_that_did_not_finish_goes_on_by_itself(ws, error):
    fail(ws, error=error)
    with ws.run("adapt", INPUTS) as run:
        assert run.resumed
        assert run.record.error is None
    assert [(run.id, run.status) for run in ws.history("adapt")] == [("run-001", "finished")]


def test_an_unfinished_run_goes_on_although_others_came_between(ws):
    fail(ws)
    finish(ws, inputs={"seed": 7})
    assert finish(ws).record.id == "run-001"
    assert ws.last("adapt").id == "run-001"
    assert [run.id for run in ws.history("adapt")] == ["run-002", "run-001"]


def test_force_leaves_an_unfinished_run_alone(ws):
    fail(ws)
    assert finish(ws, force=True).record.id == "run-002"


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (RuntimeError("boom"), "failed", "RuntimeError: boom"),
        (UserError("No data.", "Make some."), "failed", "No data. Make some."),
        (KeyboardInterrupt(), "interrupted", "KeyboardInterrupt"),
        (SystemExit(3), "interrupted", "SystemExit: 3"),
    ],
)
def test_what_ended_a_run_is_recorded(ws, error, status, text):
    fail(ws, error=error)
    run = ws.last("adapt", finished=False)
    assert (run.status, run.error) == (status, text)
    assert run.ended is not None
    assert ws.last("adapt") is None
    assert ws.writer() is None


def test_the_time_of_all_attempts_is_added_up(ws, monkeypatch):
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr("sparsevit.workspace.run.time.monotonic", lambda: next(clock))
    fail(ws)
    assert ws.last("adapt", finished=False).seconds == 10
    assert finish(ws).record.seconds == 30


def test_an_update_is_on_disk_at_once_and_adds_to_earlier_ones(ws):
    with ws.run("adapt", INPUTS) as run:
        run.update(metrics={"a": 1})
        run.update(metrics={"b": math.nan}, outputs={"log": "train.log"})
        other = Workspace.open(ws.path, readonly=True).history("adapt")[0]
        assert other.metrics == {"a": 1, "b": "nan"}
        assert other.outputs == {"log": "adapt/run-001/train.log"}
        assert other.status == "running"


def test_outputs_are_kept_relative_to_the_workspace_where_they_lie_within(ws, tmp_path):
    ws.path.mkdir()
    (ws.path / "best.yaml").touch()
    with ws.run("search", {}) as run:
        run.update(
            outputs={
                "study": run.directory / "study.db",
                "best": "best.yaml",
                "elsewhere": tmp_path / "x.pth",
            }
        )
    assert run.record.outputs == {
        "study": "search/run-001/study.db",
        "best": "best.yaml",
        "elsewhere": str(tmp_path / "x.pth"),
    }
    assert ws.output("search", "study") == ws.path / "search/run-001/study.db"
    assert ws.output("search", "elsewhere") == tmp_path / "x.pth"
    assert ws.output("search", "none") is None


def test_a_file_name_that_is_no_text_survives(ws):
    name = os.fsdecode(b"caf\xe9.pth")
    with ws.run("adapt", {"é": "ü"}) as run:
        run.update(outputs={"checkpoint": name})
    assert ws.output("adapt", "checkpoint") == run.directory / name


def test_names_that_this_version_does_not_know_are_kept(ws):
    finish(ws)
    path = ws.path / "workspace.json"
    document = json.loads(path.read_text())
    document["note"] = "mine"
    document["phases"]["adapt"]["runs"][0]["note"] = "mine too"
    path.write_text(json.dumps(document))
    finish(ws, resume=True)
    document = json.loads(path.read_text())
    assert document["note"] == "mine"
    assert document["phases"]["adapt"]["runs"][0]["note"] == "mine too"


def test_a_run_within_a_run_keeps_both(ws):
    with ws.run("demo", {}) as outer:
        outer.update(metrics={"phases": 0})
        finish(Workspace.open(ws.path), "pretrain")
        outer.update(metrics={"phases": 1})
    assert [(run.phase, run.status) for run in ws.status_rows()] == [
        ("demo", "finished"),
        ("pretrain", "finished"),
    ]


def test_a_run_does_not_take_itself_for_a_left_over(ws):
    with ws.run("adapt", INPUTS), pytest.raises(UserError, match="already running in this process"):
        finish(ws)
    assert [run.status for run in ws.history("adapt")] == ["finished"]


def test_another_thread_is_a_second_writer(ws):
    errors = []

    def write():
        try:
            finish(ws, "pretrain")
        except UserError as error:
            errors.append(str(error))

    with ws.run("adapt", INPUTS):
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
    assert f"in use by process {os.getpid()}" in errors[0]
    assert ws.history("pretrain") == []


def test_a_record_moved_away_in_a_run_is_written_again(ws):
    with ws.run("adapt", INPUTS):
        (ws.path / "workspace.json").unlink()
    assert ws.last("adapt").id == "run-001"


def test_directories_of_a_lost_record_are_not_written_into(ws):
    finish(ws)
    (ws.path / "workspace.json").unlink()
    assert finish(ws).record.id == "run-002"


def test_a_record_that_breaks_in_a_run_does_not_hide_what_went_wrong(ws):
    def break_record_and_fail():
        with ws.run("adapt", INPUTS):
            (ws.path / "workspace.json").write_text("{")
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        break_record_and_fail()
    assert ws.writer() is None


def test_sigterm_keeps_its_meaning_after_and_where_someone_handles_it(ws):
    with pytest.raises(Terminated), ws.run("adapt", INPUTS):
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

    heard = []
    signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
    try:
        with ws.run("adapt", INPUTS):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert heard == [1]
    assert ws.last("adapt").status == "finished"


def test_a_forked_child_that_leaves_the_block_records_nothing(ws):
    with ws.run("adapt", INPUTS) as run:
        pid = os.fork()
        if pid == 0:
            run.__exit__(None, None, None)
            os._exit(0)
        os.waitpid(pid, 0)
        assert ws.history("adapt")[0].status == "running"
        assert ws.writer() is not None


def test_a_phase_name_that_would_leave_the_workspace_is_refused(ws):
    with pytest.raises(ValueError, match="name for a phase"):
        ws.run("../adapt", {})
