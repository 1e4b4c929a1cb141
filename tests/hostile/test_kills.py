"""A sample of the kills; ``make kills`` tries many more, over all phases."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import tiny


def test_a_sample_of_kills_harms_nothing(tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, str(Path(__file__).with_name("kills.py"))),
            *("--kills", "3", "--jobs", "1", "--only", "make", "--only", "export-config"),
        ],
        env=tiny.user_environment(TMPDIR=str(tmp_path)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tried: 3" in done.stdout
