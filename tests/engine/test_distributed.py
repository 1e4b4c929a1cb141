"""One process is the first, and what it shares it has."""

from __future__ import annotations

import pytest
import torch

from sparsevit.engine import distributed
from sparsevit.errors import UserError


def test_one_process_alone_is_the_first_and_shares_with_itself():
    distributed.join("none")
    assert distributed.is_first()
    value = {"a": [1]}
    assert distributed.share(value) is value


@pytest.mark.parametrize(
    ("devices", "processes", "expected"), [(0, 2, "gloo"), (1, 2, "gloo"), (2, 2, "nccl")]
)
def test_nccl_is_for_a_device_a_process(monkeypatch, devices, processes, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: devices > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert distributed.backend() == expected


@pytest.mark.parametrize("launcher", ["pytorch", "slurm", "mpi"])
def test_a_launcher_that_did_not_start_this_process_is_named(monkeypatch, launcher):
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    set_device = torch.cuda.set_device
    with pytest.raises(UserError, match=f"{launcher}: this process was not started by it"):
        distributed.join(launcher)
    assert torch.cuda.set_device is set_device


def test_without_cuda_the_device_is_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert distributed.default_device() == torch.device("cpu")
