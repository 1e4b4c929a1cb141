"""Phases in two processes over gloo, started by ``--devices 2``."""

from __future__ import annotations

import pytest
import tiny

ENVIRONMENT = tiny.user_environment()


def in_two(*words, code=0, **how):
    done = tiny.run_alone(*words, "--devices", 2, "--json", env=ENVIRONMENT, timeout=280, **how)
    assert done.code == code, done.err
    return done


# five: one of the two has one image less
@pytest.mark.parametrize("images", [5])
def test_evaluate_scores_the_same_as_in_one_process_and_leaves_nothing_behind(
    workspace, images, tmp_path
):
    words = ("evaluate", "--workspace", workspace, "--eval-images", images)
    (tmp_path / "empty").mkdir()
    together = in_two(*words, cwd=tmp_path / "empty").document
    assert not list((tmp_path / "empty").iterdir())
    alone = tiny.run(*words, "--json").document
    assert together["metrics"] == alone["metrics"]
    assert together["images"] == images


def test_adapt_trains_together_and_one_process_writes(pretrained):
    words = ["adapt", "--workspace", pretrained, "--validate-at", "0.5", "--eval-images", 2]
    done = in_two(*words)
    made = done.document
    assert made["iterations"] == 4
    assert list(made["after"]) == ["dense", "uniform 0.5"]
    runs = tiny.run("status", "--workspace", pretrained, "--json").document["runs"]
    assert [run["status"] for run in runs] == ["finished", "finished"]
    assert done.err.count("adapt 4/4") == 1
    # and what it made is as any other: the next phase starts from it, in one process
    after = tiny.run("evaluate", "--workspace", pretrained, "--eval-images", 2, "--json")
    assert after.document["metrics"] == made["after"]["dense"]


def test_a_search_scores_in_two_processes_what_it_timed_in_one(pretrained):
    words = ("search", *tiny.SEARCH, "--workspace", pretrained, "--trials", 2)
    found = in_two(*words).document["search"]
    assert found["stopped"] == "trials"
    assert found["best"]["score"] >= 0
    runs = tiny.run("status", "--workspace", pretrained, "--json").document["runs"]
    assert [run["status"] for run in runs] == ["finished", "finished"]


# the next test shows most of it
@pytest.mark.slow
def test_a_mistake_is_told_once(workspace):
    done = in_two("adapt", "nowhere.py", "--workspace", workspace, code=2)
    assert done.err.count("─ Error ─") == 1
    assert "Traceback" not in done.err
    assert "nowhere.py" in done.document["error"]["problem"]


def test_a_finished_phase_says_so_once(workspace):
    done = in_two("adapt", "--workspace", workspace, code=2)
    assert done.err.count("─ Error ─") == 1
    assert "Traceback" not in done.err
    assert "already done" in done.document["error"]["problem"]
