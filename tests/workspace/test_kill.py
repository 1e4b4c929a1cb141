"""A phase that is killed leaves a record that can be read and gone on from."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sparsevit.workspace import Workspace

WRITER = Path(__file__).with_name("killed_writer.py")

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills need POSIX processes")


def start(workspace: Path, steps: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(WRITER), "once", str(workspace), str(steps)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_kill_at_any_line_loses_nothing_reported_and_can_be_gone_on_from(tmp_path):
    done = subprocess.run(
        [sys.executable, str(WRITER), "everywhere", str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["lines"] > 200


def test_kills_at_random_moments_lose_nothing_reported(tmp_path):
    rng = random.Random(0)
    reported = 0
    for _ in range(12):
        process = start(tmp_path, steps=100_000)
        assert process.stdout is not None
        assert process.stdout.readline().startswith("begun")
        time.sleep(rng.uniform(0.0, 0.15))
        process.send_signal(signal.SIGKILL)
        said, trouble = process.communicate()
        assert not trouble
        steps = [int(line.split()[1]) for line in said.splitlines() if line[-1:].isdigit()]
        reported = max([reported, *steps])
        runs = Workspace.open(tmp_path, readonly=True).history("adapt")
        assert [(run.id, run.status) for run in runs] == [("run-001", "interrupted")]
        assert runs[0].metrics.get("step", 0) >= reported
    assert reported > 0

    last = runs[0]
    said, trouble = start(tmp_path, steps=last.metrics["step"] + 1).communicate()
    assert not trouble
    assert said.splitlines()[1:] == [f"step {last.metrics['step'] + 1}", "finished"]


def test_sigterm_records_the_run_as_interrupted(tmp_path):
    process = start(tmp_path, steps=100_000)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    raw = json.loads((tmp_path / "workspace.json").read_text())
    run = raw["phases"]["adapt"]["runs"][0]
    assert (run["status"], run["error"]) == ("interrupted", "SIGTERM")
    assert run["ended"] is not None


def test_a_second_writer_is_told_who_the_first_is(tmp_path):
    process = start(tmp_path, steps=100_000)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        second = start(tmp_path, steps=1)
        _, trouble = second.communicate()
        seen = Workspace.open(tmp_path, readonly=True)
        runs, writer = seen.history("adapt"), seen.writer()
    finally:
        process.kill()
        process.communicate()
    assert second.returncode == 1
    assert f"in use by process {process.pid} on {os.uname().nodename}: adapt" in trouble
    assert "--workspace" in trouble
    assert [run.status for run in runs] == ["running"]
    assert writer is not None
    assert writer.pid == process.pid
