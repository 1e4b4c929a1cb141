"""The device that a user names."""

from __future__ import annotations

import platform

import torch

from sparsevit.engine.distributed import default_device
from sparsevit.errors import UserError


def pick_device(name: str | None) -> torch.device:
    """The named device, or CUDA where there is one, else the CPU.

    Raises:
        UserError: there is no such device here.
    """
    if name is None:
        return default_device()
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"There is no kind of device called {name!r}.", _here()) from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise UserError(f"Device {name} is not available.", _here())
    elif device.type == "mps":
        if not torch.backends.mps.is_available():
            raise UserError(f"Device {name} is not available.", _here())
    elif device.type != "cpu":
        raise UserError(f"Device {name} is not supported.", _here())
    return device


def device_name(device: torch.device) -> str:
    """The hardware behind a device, for people."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _here() -> str:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = ["cpu", *(f"cuda:{i}" for i in range(count))]
    if torch.backends.mps.is_available():
        names.append("mps")
    return f"Available here: {', '.join(names)}. `sparsevit doctor` tells you more."
