"""A workspace as a table, from the terminal on."""

from __future__ import annotations

import io
import json
from datetime import datetime, timezone
from pathlib import Path

import pytest
from rich.console import Console

from sparsevit.cli.status import status as status_command
from sparsevit.errors import UserError
from sparsevit.phases.status import status
from sparsevit.report.status import (
    StatusTable,
    describe_age,
    describe_cost,
    describe_inputs,
    describe_measured,
    describe_metrics,
    describe_seconds,
)
from sparsevit.workspace import Holder, RunRecord, Workspace

NOW = datetime(2026, 5, 2, 12, 0, tzinfo=timezone.utc)


def record(**changes):
    fields = {
        "id": "run-001",
        "phase": "adapt",
        "status": "finished",
        "started": "2026-05-02T11:50:00+00:00",
        "ended": "2026-05-02T11:55:00+00:00",
        "seconds": 300.0,
        "inputs": {"config": "configs/[demo].py", "checkpoint": {"path": "a/b.pth", "sha256": "x"}},
        "metrics": {"bbox_mAP": 0.3321, "loss": 0.5},
        "outputs": {"checkpoint": "adapt/run-001/latest.pth"},
        "directory": "adapt/run-001",
    }
    return RunRecord(**{**fields, **changes})


def render(*runs, width=160, writer=None):
    console = Console(file=io.StringIO(), width=width)
    console.print(StatusTable(Path("/somewhere/work_dirs"), runs, writer=writer, now=NOW))
    return console.file.getvalue()


def test_a_wide_terminal_shows_all():
    text = render(record())
    for word in (
        "/somewhere/work_dirs",
        "adapt",
        "run-001",
        "finished",
        "5 min ago",
        "5 min 00 s",
        "bbox_mAP 0.3321",
        "config=configs/[demo].py",
        "checkpoint=b.pth",
    ):
        assert word in text


def test_a_narrow_terminal_is_spared_inputs_and_outputs_and_told_so():
    text = render(record(), width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert "bbox_mAP 0.3321" in text
    assert "config=" not in text
    assert "wider terminal" in text


def test_a_failure_is_told_below_the_table():
    text = render(record(status="failed", error="UserError: [bad] ratio"))
    assert "adapt run-001: UserError: [bad] ratio" in text


def test_resumed_runs_and_the_writer_are_told():
    text = render(record(attempts=3), writer=Holder(pid=12, host="node"))
    assert "run-001 (x3)" in text
    assert "In use by process 12 on node." in text


def test_an_empty_workspace_says_so():
    assert "Nothing has run here yet." in render()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.42, "0.4 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (7620, "2 h 07 min"),
    ],
)
def test_durations_read_as_people_say_them(seconds, text):
    assert describe_seconds(seconds) == text


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        ("2026-05-02T11:59:30+00:00", "just now"),
        ("2026-05-02T11:30:00+00:00", "30 min ago"),
        ("2026-05-02T09:00:00", "3 h ago"),
        ("odd", "odd"),
    ],
)
def test_ages_read_as_people_say_them(moment, text):
    assert describe_age(moment, NOW) == text


def test_an_old_moment_and_one_in_the_future_are_dates():
    assert describe_age("2026-04-02T12:00:00+00:00", NOW).startswith("2026-04-0")
    assert describe_age("2026-05-03T12:00:00+00:00", NOW).startswith("2026-05-0")


def test_key_metrics_come_before_others_and_keep_their_order():
    metrics = {"epochs": 1, "lr": 0.1, "momentum": 0.9, "loss": 2.0, "dense": {"bbox_mAP": 0.5}}
    metrics = {**metrics, "curve": [1, 2], "latency_ms": 41.23456}
    assert describe_metrics(metrics).splitlines() == [
        "epochs 1",
        "loss 2",
        "dense.bbox_mAP 0.5",
        "latency_ms 41.23",
    ]


def test_of_coco_metrics_the_headlines_after_training_are_shown():
    coco = {"bbox_mAP": 0.3, "bbox_mAP_50": 0.5, "bbox_mAP_s": 0.2, "segm_mAP": 0.25}
    before = {"dense": coco, "uniform 0.3": coco}
    after = {"dense": coco, "uniform 0.3": {**coco, "bbox_mAP": 0.28}}
    assert describe_metrics({"before": before, "after": after, "loss": 0.7}).splitlines() == [
        "dense.bbox_mAP 0.3",
        "dense.segm_mAP 0.25",
        "uniform 0.3.bbox_mAP 0.28",
        "uniform 0.3.segm_mAP 0.25",
    ]


def test_inputs_are_short():
    inputs = {"a": None, "b": [0.25, 2, 3, 4], "c": "x" * 60, "d": {"k": 1}, "e": 0, "f": "nan"}
    assert describe_inputs(inputs).splitlines() == [
        "b=[0.25, 2, 3, ...]",
        f"c=...{'x' * 37}",
        "d=1 values",
        "e=0",
        "and 1 more",
    ]


@pytest.mark.parametrize("width", [60, 80])
def test_on_a_narrow_terminal_no_word_is_broken(width):
    figures = {"dense": {"bbox_mAP": 0.5123}, "uniform 0.3": {"bbox_mAP": 0.4987}}
    run = record(
        attempts=12,
        status="interrupted",
        ended="2026-04-02T11:55:00+00:00",
        seconds=86000.0,
        metrics={"after": figures, "iterations": 12000, "split": "val"},
        inputs={"sparsity": {f"backbone.stages.{n}": 0.1 * n for n in range(4)}},
    )
    text = render(run, width=width)
    assert max(map(len, text.splitlines())) <= width
    words = ("adapt", "run-001 (x12)", "interrupted", "23 h 53 min", "dense.bbox_mAP", "0.5123")
    for word in (*words, "uniform", "0.3.bbox_mAP", "0.4987", "on val"):
        assert word in text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metrics": {}, "inputs": {"split": "val"}}, ""),
        ({"metrics": {"bbox_mAP": 0.5}, "inputs": {"seed": 0}}, ""),
        (
            {"inputs": {"sparsity": {"a.0": 0.5, "a.1": 0}, "split": "test", "images": 4}},
            "at 0.5 0 on test, first 4 images",
        ),
        ({"metrics": {"score": 1.0, "sparsity": {"a.0": 0.5}, "split": "val"}}, "at 0.5 on val"),
        ({"metrics": {"score": 1.0, "sparsity": {"a.0": "odd"}}}, ""),
    ],
)
def test_where_figures_were_measured_is_told(changes, said):
    assert describe_measured(record(**changes)) == said


COST = {"parameters": 1_240_000, "of_parameters": 2_150_000, "gmacs": 0.31, "of_gmacs": 0.5}


@pytest.mark.parametrize(
    ("cost", "said"),
    [
        (COST, "1.24 of 2.15 M parameters, 0.31 of 0.5 GMACs"),
        ({}, ""),
        ("much", ""),
        ({**COST, "gmacs": "odd"}, ""),
        ({**COST, "parameters": 10**400}, ""),
        ({**COST, "of_gmacs": float("nan")}, ""),
    ],
)
def test_what_masked_weights_leave_is_told(cost, said):
    assert describe_cost(record(metrics={"after": {}, "cost": cost})) == said


@pytest.fixture
def workspace(tmp_path):
    with Workspace.open(tmp_path / "ws").run("pretrain", {"seed": 0}) as run:
        run.update(metrics={"bbox_mAP": 0.25}, outputs={"checkpoint": "latest.pth"})
    return tmp_path / "ws"


def test_the_phase_reads_without_writing(workspace):
    before = {path: path.read_bytes() for path in workspace.iterdir() if path.is_file()}
    result = status(workspace)
    assert [run.name for run in result.runs] == ["pretrain run-001"]
    assert (result.workspace, result.writer) == (workspace, None)
    assert before == {path: path.read_bytes() for path in workspace.iterdir() if path.is_file()}


def test_the_phase_works_while_a_run_goes_on(workspace):
    with Workspace.open(workspace).run("adapt", {}):
        result = status(workspace)
    assert result.writer is not None
    assert result.writer.phase == "adapt"
    assert [run.status for run in result.runs] == ["finished", "running"]


def test_a_workspace_that_is_not_there_is_the_users_mistake(tmp_path):
    with pytest.raises(UserError, match="no workspace"):
        status(tmp_path / "none")


def test_the_command_prints_a_table_or_one_document(workspace, capsys):
    status_command(workspace)
    assert "pretrain" in capsys.readouterr().out
    status_command(workspace, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["workspace"] == str(workspace)
    assert document["version"] == 1
    assert document["runs"][0]["metrics"] == {"bbox_mAP": 0.25}
