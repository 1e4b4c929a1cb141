"""A sample of hostile inputs: nothing runs, nothing is lost, and every mistake gets a message."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# most of those that are quick: where a setting, an option or a workspace is accepted, a phase runs
CASES = {
    "configuration": 32,
    "config": 34,
    "dataset": 28,
    "set": 22,
    "option": 24,
    "workspace": 24,
    "checkpoint": 20,
    "study": 8,
    "environment": 8,
}


@pytest.mark.timeout(1200)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="cases are forks of one process")
def test_hostile_inputs_are_refused_with_a_message(finished, tiny_config, tmp_path):
    fixture = tmp_path / "fixture"
    fixture.mkdir()
    (fixture / "ws").symlink_to(finished.path)
    (fixture / "tiny.py").write_text(tiny_config.read_text(encoding="utf-8"), encoding="utf-8")
    outcomes = tmp_path / "outcomes.json"
    done = subprocess.run(
        [
            *(sys.executable, str(HERE), "--seed", "0"),
            *(word for kind, count in CASES.items() for word in ("--kind", f"{kind}={count}")),
            *("--jobs", "2", "--fixture", str(fixture), "--out", str(outcomes)),
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    tried = [json.loads(line) for line in outcomes.read_text(encoding="utf-8").splitlines()]
    assert len(tried) == sum(CASES.values())
    assert done.returncode == 0, done.stdout
