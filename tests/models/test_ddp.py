"""Two processes over gloo, each with its own ratios."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch

HERE = Path(__file__).parent


def test_gradients_of_two_processes_are_the_average_though_each_skips_other_blocks(tmp_path):
    env = {
        **os.environ,
        "PYTHONPATH": str(HERE.parent / "shared"),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    workers = [
        subprocess.Popen(
            [sys.executable, str(HERE / "ddp_worker.py"), str(rank), str(tmp_path), str(port)],
            env=env,
            stderr=(tmp_path / f"{rank}.txt").open("w"),
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for worker in workers:
            worker.wait(timeout=120)
    finally:
        for worker in workers:
            worker.kill()
    said = [(tmp_path / f"{rank}.txt").read_text() for rank in range(2)]
    assert [worker.returncode for worker in workers] == [0, 0], said
    saved = torch.load(tmp_path / "gradients.pth")
    got, expected = saved["got"], saved["expected"]
    for name, grad in expected.items():
        # where no process ran a block, DDP leaves its parameters without gradient
        mine = got.get(name, torch.zeros_like(grad))
        assert (mine - grad).abs().max() <= 1e-5 * max(1, grad.abs().max().item()), name
    assert not any(expected[k].any() for k in expected if k.startswith("stages.3.blocks"))
    assert any(expected[k].any() for k in expected if k.startswith("stages.2.blocks"))
