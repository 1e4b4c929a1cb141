"""Ways through code that is being recorded rather than run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch.utils._python_dispatch import _disable_current_modes


def exporting() -> bool:
    """Whether :func:`torch.export.export` (not strict) records what is being called."""
    return torch.compiler.is_compiling() and not torch.compiler.is_dynamo_compiling()


@contextmanager
def own_tensors() -> Iterator[None]:
    """For tensors that are kept for reuse: made within this context, they outlive whatever mode
    the first caller was in.

    Tensors of the inference mode could not be saved for backward, and those made while exporting
    are names in a graph; made in here, they become its constants.
    """
    modes = _disable_current_modes() if exporting() else nullcontext()
    with modes, torch.inference_mode(False), torch.no_grad():
        yield
