"""A phase that is killed goes on where it was, by the same command."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import tiny

ENVIRONMENT = tiny.user_environment()


def kill_when(condition, *words):
    """Start a command, kill it (SIGKILL) once the condition holds; fails where it ends before."""
    process = tiny.start(*words, env=ENVIRONMENT)
    give_up = time.monotonic() + 120
    try:
        while not condition():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < give_up
            time.sleep(0.005)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL


def test_adapt_that_is_killed_goes_on_from_its_last_checkpoint(pretrained):
    words = ["adapt", "--workspace", pretrained, "--validate-at", "", "--no-validate-before"]
    words += ["--set", "phases.adapt.train_cfg.max_iters=12", "--eval-images", 1]
    folder = pretrained / "adapt/run-001"
    kill_when((folder / "iter_3.pth").exists, *words)
    status = tiny.run("status", "--workspace", pretrained, "--json").document["runs"][-1]
    assert status["status"] != "finished"
    words[words.index("phases.adapt.train_cfg.max_iters=12")] = (
        "phases.adapt.train_cfg.max_iters=12"
    )
    done = tiny.run(*words, "--json")
    assert done.code == 0, done.err
    assert "resuming from" in done.err
    assert done.document["resumed"] is True
    assert done.document["iterations"] == 12
    assert done.document["run"] == "adapt run-001"
    assert Path(done.document["checkpoint"]).name == "iter_12.pth"


def test_a_search_that_is_killed_goes_on_and_repeats_nothing(pretrained):
    words = ["search", *tiny.SEARCH, "--workspace", pretrained, "--trials", 8]
    log = pretrained / "search_max10000_min0.txt"
    kill_when(lambda: log.exists() and log.read_text().strip(), *words)
    done = tiny.run(*words, "--json")
    assert done.code == 0, done.err
    found = done.document
    assert found["resumed"] is True
    assert found["search"]["resumed_from"] >= 1
    scored = [t for t in found["search"]["trials"] if t["state"] == "scored"]
    assert len(scored) == 8
    assert len({str(t["configuration"]) for t in scored}) == 8


def test_ctrl_c_ends_a_phase_as_interrupted(pretrained):
    words = ["adapt", "--workspace", pretrained, "--set", "phases.adapt.train_cfg.max_iters=1000"]
    process = tiny.start(*words, "--validate-at", "", env=ENVIRONMENT)
    give_up = time.monotonic() + 120
    while not (pretrained / "adapt/run-001/iter_1.pth").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < give_up
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Run the same command again" in err
    assert "Traceback" not in err
    last = tiny.run("status", "--workspace", pretrained, "--json").document["runs"][-1]
    assert last["status"] == "interrupted"
