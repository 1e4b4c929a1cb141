"""The demo in its short form, from nothing to the table, killed on its way."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
import tiny
from rich.console import Console

from sparsevit.cli.console import to_plain
from sparsevit.data.make import make_dataset
from sparsevit.data.spec import DatasetSpec
from sparsevit.phases import demo as phase
from sparsevit.phases.demo import DemoResult, DemoRow
from sparsevit.report.demo import demo_table

ENVIRONMENT = tiny.user_environment()


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A short demo that was killed while it adapted, and run again to its end."""
    path = tmp_path_factory.mktemp("demo") / "workspace"
    words = ("demo", "--short", "--workspace", path)
    process = tiny.start(*words, env=ENVIRONMENT)
    give_up = time.monotonic() + 200
    try:
        while not (path / "adapt/run-001/training.py").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < give_up
            time.sleep(0.02)
    finally:
        process.kill()
        process.communicate()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phase, "SHORT_TIMING_SECONDS", (0.01, 0.01))
        return path, tiny.run(*words, "--json")


def test_it_goes_on_where_it_was_killed_and_compares_what_it_made(demo):
    path, done = demo
    assert done.code == 0, done.err
    assert "pretrain is already done" in done.err
    rows = {row["name"]: row for row in done.document["rows"]}
    assert list(rows) == [
        "dense",
        "adapted, run dense",
        "searched, never adapted",
        "searched",
        "searched and finetuned",
    ]
    assert rows["dense"]["backbone_speedup"] == 1
    assert not any(rows["dense"]["sparsity"].values())
    assert any(rows["searched"]["sparsity"].values())
    for name in ("kept_windows", "predictions"):
        assert (path / f"demo/run-001/{name}.png").stat().st_size > 1000
    runs = tiny.run("status", "--workspace", path, "--json").document["runs"]
    assert {run["phase"]: run["status"] for run in runs} == dict.fromkeys(
        ("demo", "pretrain", "adapt", "search", "finetune"), "finished"
    )
    assert len(runs) == 5


def test_run_again_it_says_that_it_is_done(demo):
    path, _ = demo
    again = tiny.run("demo", "--short", "--workspace", path)
    assert again.code == 2
    assert "already done" in again.err
    assert again.err.count("─ Error ─") == 1


@pytest.mark.parametrize(
    ("task", "whole", "scores", "shown"),
    [
        ("detection", "detector", {"bbox_ap": 0.5, "segm_ap": 0.25}, ("bbox AP", "0.500", "0.250")),
        ("segmentation", "segmentor", {"mIoU": 71.234}, ("mIoU", "71.23")),
        # of fewer than five classes there is no top-5
        ("classification", "classifier", {"top1": 71.234}, ("top-1", "71.23", "top-5")),
    ],
)
def test_a_row_has_the_figures_of_its_task(tmp_path, task, whole, scores, shown):
    timed = {f"{whole}_ms": 20.0, f"{whole}_speedup": 1.5}
    row = DemoRow("searched", {"backbone.stages.0": 0.5}, 10.0, 2.0, timed, scores)
    result = DemoResult(task, [row], tmp_path, 4, (224, 224), (5.0, 6.0), None, None, 60.0)
    figures = {
        "name": "searched",
        "sparsity": {"backbone.stages.0": 0.5},
        "backbone_ms": 10.0,
        "backbone_speedup": 2.0,
        **timed,
        **scores,
    }
    assert to_plain(result)["rows"] == [figures] == [row.figures()]
    printed = io.StringIO()
    Console(width=100, file=printed).print(demo_table(result))
    assert all(text in printed.getvalue() for text in (f"{whole} ms", *shown))


@pytest.mark.slow
def test_it_takes_own_data(tmp_path):
    classes = ("circle", "square")
    spec = DatasetSpec(train=8, val=4, width=224, height=224, classes=classes, labels=True)
    make_dataset(tmp_path / "data", spec)
    (tmp_path / "own.yaml").write_text("task: segmentation\nimages: data\nannotations: data/labels")
    words = ("demo", "--short", "--data", tmp_path / "own.yaml", "--workspace", tmp_path / "ws")
    done = tiny.run(*words, "--json")
    assert done.code == 0, done.err
    assert done.document["task"] == "segmentation"
    assert [row["name"] for row in done.document["rows"]][-1] == "searched and finetuned"
    assert done.document["rows"][0]["mIoU"] > 0
    for picture in ("picture", "predictions"):
        assert Path(done.document[picture]).stat().st_size > 1000


def test_what_to_generate_and_own_data_are_not_both_given(tmp_path):
    done = tiny.run("demo", "--task", "segmentation", "--data", tmp_path, "--workspace", tmp_path)
    assert done.code == 2
    assert "Leave --task out" in done.err
