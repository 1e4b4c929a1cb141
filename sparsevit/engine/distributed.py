"""Processes of one run: who is first, and how the others hear of it."""

from __future__ import annotations

import os
from typing import Any

import torch
from mmengine import dist

LAUNCHERS = ("none", "pytorch", "slurm", "mpi")


def join(launcher: str) -> None:
    """Join the process group that a launcher started; nothing where it is ``none``.

    Processes talk over NCCL where each has a CUDA device of its own, else over gloo.
    """
    if launcher == "none" or dist.is_distributed():
        return
    dist.init_dist(launcher, backend=backend())


def backend() -> str:
    """``nccl`` where there are as many CUDA devices as local processes, else ``gloo``."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return "nccl" if torch.cuda.is_available() and torch.cuda.device_count() >= local else "gloo"


def is_first() -> bool:
    """Whether this process is the one that writes and speaks."""
    return dist.get_rank() == 0


def share(value: Any) -> Any:
    """The first process's ``value``, in every process."""
    if dist.get_world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def default_device() -> torch.device:
    """CUDA where there is one (this process's own), else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
