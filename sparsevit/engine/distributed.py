"""Processes of one run: who is first, and how the others hear of it."""

from __future__ import annotations

import atexit
import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch
from mmengine import dist

from sparsevit.errors import UserError


def join(launcher: str) -> None:
    """Join the process group that a launcher started; nothing where it is ``none``.

    Processes talk over NCCL where each has a CUDA device of its own, else over gloo.

    Raises:
        UserError: this process was not started by that launcher.
    """
    if launcher == "none" or dist.is_distributed():
        return
    try:
        with _no_cuda_device():
            dist.init_dist(launcher, backend=backend())
    except KeyError as error:
        raise UserError(
            f"--launcher {launcher}: this process was not started by it ({error} is not set).",
            "Start the command with torchrun, srun or mpirun, or give --devices N alone.",
        ) from error
    # its threads outlive the interpreter, and abort the process, where it is left open
    atexit.register(_leave)


def _leave() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@contextlib.contextmanager
def _no_cuda_device() -> Iterator[None]:
    """mmengine takes a CUDA device whatever the backend: let it, where there is none to take."""
    if torch.cuda.is_available():
        yield
        return
    taken = torch.cuda.set_device
    torch.cuda.set_device = lambda device: None
    try:
        yield
    finally:
        torch.cuda.set_device = taken


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
