"""With --json, stdout holds the document and nothing else, whoever else prints."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.table import Table

from sparsevit.cli.console import document_written, emit, quiet_stdout, to_plain
from sparsevit.cli.options import Launcher

NOISY = """
import ctypes, logging, os, subprocess, sys
from sparsevit.cli.console import emit, quiet_stdout
handler = logging.StreamHandler(sys.stdout)
libc = ctypes.CDLL(None)
print("before")
with quiet_stdout():
    print("noise-python")
    sys.__stdout__.write("noise-original-object\\n")
    libc.printf(b"noise-c-buffered\\n")
    os.write(1, b"noise-descriptor\\n")
    subprocess.run(["echo", "noise-child"])
    logging.getLogger("x").addHandler(handler)
    logging.getLogger("x").warning("noise-logging")
    emit({"value": 1}, True, str)
print("after")
"""


def test_everything_but_the_document_goes_to_stderr():
    done = subprocess.run(
        [sys.executable, "-c", NOISY], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith("before\n")
    assert done.stdout.endswith("after\n")
    assert json.loads(done.stdout[len("before\n") : -len("after\n")]) == {"value": 1}
    for source in ("python", "original-object", "c-buffered", "descriptor", "child", "logging"):
        assert f"noise-{source}\n" in done.stderr


def test_stdout_is_back_after_an_exception(capfd):
    def fail():
        with quiet_stdout():
            print("inside")
            raise RuntimeError

    visible = sys.stdout
    with pytest.raises(RuntimeError):
        fail()
    assert sys.stdout is visible
    os.write(1, b"outside\n")
    captured = capfd.readouterr()
    assert captured.out == "outside\n"
    assert captured.err == "inside\n"


def test_entering_twice_is_entering_once(capfd):
    with quiet_stdout():
        with quiet_stdout():
            emit({"a": 1}, True, str)
        print("still quiet")
        assert document_written()
    assert not document_written()
    captured = capfd.readouterr()
    assert json.loads(captured.out) == {"a": 1}
    assert captured.err == "still quiet\n"


def test_a_document_larger_than_a_pipe_arrives_whole():
    code = (
        "from sparsevit.cli.console import emit, quiet_stdout\n"
        "with quiet_stdout():\n"
        "    emit({'text': 'x' * 1_000_000}, True, str)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert len(json.loads(done.stdout)["text"]) == 1_000_000


def test_without_json_the_rendered_result_is_printed(capsys):
    def render(result):
        table = Table()
        table.add_column(result["name"])
        return table

    emit({"name": "latency"}, False, render)
    assert "latency" in capsys.readouterr().out


def test_values_of_all_kinds_become_plain_json():
    @dataclasses.dataclass(frozen=True)
    class Result:
        path: Path
        launcher: Launcher
        latency: np.ndarray
        score: float
        nested: dict

    result = Result(
        Path("a/b"), Launcher.none, np.float32([1.5, 2.0]), math.nan, {1: (np.int64(3), None, True)}
    )
    assert to_plain(result) == {
        "path": "a/b",
        "launcher": "none",
        "latency": [1.5, 2.0],
        "score": None,
        "nested": {"1": [3, None, True]},
    }
    json.dumps(to_plain(result), allow_nan=False)
