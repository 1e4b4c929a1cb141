"""What the backends have in common."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sparsevit.errors import UserError
from sparsevit.sparsity.handle import sparse_parts

Run = Callable[[Tensor], list[Tensor]]
"""(B, 3, H, W) images, normalised, -> feature maps. Images must be of the size it was made for."""


DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """PyTorch's context for a precision."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, DTYPES[precision])


def sparsity_now(module: nn.Module) -> Callable[[], None]:
    """What sets a module, again and again, to the sparsity that it has now.

    Eager and compiled code reads ratios at every call, and they may have been set anew since.
    """
    held = [(part, part.get_sparsity()) for part in sparse_parts(module).values()]

    def restore() -> None:
        for part, sparsity in held:
            part.set_sparsity(sparsity)

    return restore


def require(package: str, extra: str) -> Any:
    """Import an optional package.

    Raises:
        UserError: it is not installed, or does not import.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        # a package of ours that lacks one of its own says so
        reason = "is not installed" if error.name == package else f"cannot be imported ({error})"
        raise UserError(
            f"{package} {reason}.",
            f"Run `pip install 'sparsevit[{extra}]'`, or choose another backend.",
        ) from error


def require_compiler(what: str) -> None:
    """Refuse where there is no C++ compiler, which Inductor needs on the CPU.

    Args:
        what: needs it, to begin the message with.

    Raises:
        UserError: there is none.
    """
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise UserError(
            f"{what} needs a C++ compiler, and there is no {compiler}.",
            "Install one (Debian and Ubuntu: g++; Fedora: gcc-c++), or name yours in CXX.",
        )


def require_precision(
    backend: str,
    precision: str,
    supported: Sequence[str],
    *,
    whole: str | None = None,
    of_backbone: Sequence[str] = (),
    why: str = "",
) -> None:
    """Refuse a precision in which a backend does not compute.

    Args:
        backend: its name.
        precision: that is asked for.
        supported: those in which it computes what is to be executed.
        whole: what a whole model is called, where it cannot do with one what it can with a
            backbone.
        of_backbone: those in which it computes a backbone, where these are others.
        why: the reason.

    Raises:
        UserError: it does not; what it does instead, and who else does it.
    """
    if precision in supported:
        return
    remedy = f"Use --precision {' or '.join(supported)}."
    # PyTorch's autocast has every precision
    instead = "--backend eager"
    problem = (
        f"The backend {backend} does not support {precision} here: it computes in "
        f"{' and '.join(supported)} only."
    )
    if whole is not None and precision in of_backbone:
        problem = (
            f"The backend {backend} does not support {precision} for a whole {whole}, only for a "
            f"backbone{f': {why}' if why else ''}."
        )
        instead = f"--scope backbone or {instead}"
    raise UserError(problem, f"{remedy} For {precision}, use {instead}.")


def require_cpu(backend: str, device: torch.device) -> None:
    """Refuse devices other than the CPU.

    Raises:
        UserError: it is another.
    """
    if device.type != "cpu":
        raise UserError(
            f"The backend {backend} runs on the CPU here, not on {device}.",
            "Use --device cpu, or the backend eager or compile.",
        )
