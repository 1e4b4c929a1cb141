"""The example runs as it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers")

EXAMPLE = Path(__file__).parents[2] / "examples" / "segment_faster.py"


def test_mask2former_is_timed_dense_and_sparse():
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), "--rounds", "1"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        "Mask2Former,",
        "dense",
        "50%",
    ]
    assert all(line.endswith("ms") for line in done.stdout.splitlines()[1:])
