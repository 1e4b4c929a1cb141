"""The examples run as they say, each as a program of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import vision_libraries

pytest.importorskip("transformers")

EXAMPLES = Path(__file__).parents[2] / "examples"
# timm is not where it would be for a user: see vision_libraries
RUN_WITH_TIMM = """
import runpy, sys
import vision_libraries
sys.argv = sys.argv[1:]
with vision_libraries.visible():
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_example(name: str, *arguments: str, timm: bool = False) -> list[str]:
    command = [sys.executable, *(["-c", RUN_WITH_TIMM] if timm else [])]
    done = subprocess.run(
        [*command, str(EXAMPLES / name), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_mask2former_is_timed_dense_and_sparse():
    lines = run_example("segment_faster.py", "--rounds", "1")
    assert [line.split()[0] for line in lines] == ["Mask2Former,", "dense", "50%"]
    assert all(line.endswith("ms") for line in lines[1:])


def test_a_classifier_is_adapted_in_a_plain_loop():
    if not vision_libraries.FOLDER.is_dir():
        pytest.skip("timm is not installed for the tests")
    lines = run_example("adapt_classifier.py", "--iterations", "2", timm=True)
    assert [line.split()[0] for line in lines] == ["trained", "adapted"]
    assert all("80%: " in line for line in lines)


def test_a_search_on_a_model_of_ones_own_finds_ratios():
    # a limit that every configuration meets, as this machine may be busy
    arguments = ("--iterations", "2", "--trials", "1", "--seconds", "0.01", "--max-ms", "1e6")
    lines = run_example("search_your_model.py", *arguments)
    assert lines[0].startswith("dense ")
    assert lines[-1].startswith("score ")
