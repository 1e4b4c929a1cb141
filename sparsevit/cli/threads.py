"""``--threads``: how many CPU threads a command, and what it starts, computes with."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import typer

from sparsevit.threads import VARIABLE

# What OpenMP and MKL read when they are loaded, in this process and in those that it starts.
_LIBRARIES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def use_threads(ctx: typer.Context, count: int | None) -> int | None:
    """Compute with this many threads until the command ends; the option's callback."""
    if count is None or ctx.resilient_parsing:
        return count
    cores = os.cpu_count() or 1
    if count > cores:
        raise typer.BadParameter(f"{count} is more than this machine has: {cores}.")
    before = {name: os.environ.get(name) for name in (VARIABLE, *_LIBRARIES)}
    os.environ.update(dict.fromkeys(before, str(count)))
    ctx.call_on_close(_restoring(before, _set_torch(count)))
    return count


def _set_torch(count: int) -> int | None:
    """Tell PyTorch where it is loaded already; the number that it had then."""
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    had: int = torch.get_num_threads()
    torch.set_num_threads(count)
    return had


def _restoring(variables: dict[str, str | None], torch_threads: int | None) -> Callable[[], None]:
    def restore() -> None:
        for name, value in variables.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if torch_threads is not None:
            _set_torch(torch_threads)

    return restore
