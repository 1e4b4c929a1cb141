"""The demo in its short form, from nothing to the table, killed on its way."""

from __future__ import annotations

import time

import pytest
import tiny

ENVIRONMENT = tiny.user_environment()


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A short demo that was killed while it adapted, and run again to its end."""
    path = tmp_path_factory.mktemp("demo") / "workspace"
    words = ("demo", "--short", "--workspace", path)
    process = tiny.start(*words, env=ENVIRONMENT)
    give_up = time.monotonic() + 200
    while not (path / "adapt/run-001/training.py").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < give_up
        time.sleep(0.02)
    process.kill()
    process.communicate()
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
    assert (path / "demo/run-001/kept_windows.png").stat().st_size > 1000
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
