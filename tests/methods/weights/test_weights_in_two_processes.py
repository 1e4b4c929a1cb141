"""Two processes over gloo, each with its own images."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch

HERE = Path(__file__).parent


def test_masks_and_weights_agree_in_both(tmp_path):
    shared = HERE.parents[1] / "shared"
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(shared), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, str(HERE / "two_processes.py")]
    workers = [
        subprocess.Popen([*words, str(rank), str(tmp_path), str(port)], env=env)
        for rank in range(2)
    ]
    assert [worker.wait(timeout=280) for worker in workers] == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pth") for rank in range(2))
    for kind in first:
        mine, other = first[kind], second[kind]
        assert mine["method"]["updates"] == other["method"]["updates"] == 3
        form = "kept" if kind == "structured" else "masks"
        for name, mask in mine["method"][form].items():
            assert torch.equal(mask, other["method"][form][name]), (kind, name)
        for name, value in mine["model"].items():
            assert torch.equal(value, other["model"][name]), (kind, name)
    # each hides other tokens of its own images
    assert first["unstructured"]["noise"] != second["unstructured"]["noise"]
