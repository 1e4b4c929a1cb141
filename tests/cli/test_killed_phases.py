"""A phase that is stopped goes on where it was, by the same command."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import tiny


def test_ctrl_c_ends_a_phase_as_interrupted_and_it_goes_on_from_its_last_checkpoint(pretrained):
    words = ["adapt", "--workspace", pretrained, "--validate-at", "", "--no-validate-before"]
    words += ["--set", "phases.adapt.train_cfg.max_iters=30", "--eval-images", 1]
    process = tiny.start(*words, env=tiny.user_environment())
    give_up = time.monotonic() + 120
    while not (pretrained / "adapt/run-001/iter_2.pth").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < give_up
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Run the same command again" in err
    assert "Traceback" not in err
    last = tiny.run("status", "--workspace", pretrained, "--json").document["runs"][-1]
    assert last["status"] == "interrupted"
    done = tiny.run(*words, "--json")
    assert done.code == 0, done.err
    assert "resuming from" in done.err
    assert done.document["resumed"] is True
    assert done.document["iterations"] == 30
    assert done.document["run"] == "adapt run-001"
    assert Path(done.document["checkpoint"]).name == "iter_30.pth"
