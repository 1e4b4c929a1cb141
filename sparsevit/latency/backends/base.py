"""What the backends have in common."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from sparsevit.errors import UserError

if TYPE_CHECKING:
    from sparsevit.models.detections import Detections

Run = Callable[[Tensor], list[Tensor]]
"""(B, 3, H, W) images, normalised, -> feature maps. Images must be of the size it was made for."""


class DetectorRun(Protocol):
    """Runs a whole detector on a batch."""

    def __call__(self, images: Tensor, sizes: Tensor | None = None) -> list[Detections]:
        """What is found in each image.

        Args:
            images: (B, 3, H, W), normalised; of the shape that it was prepared for.
            sizes: (B, 2) float, height and width of each image without its padding at the bottom
                and at the right, to which boxes are clipped; H and W where None.
        """


def full_sizes(images: Tensor) -> Tensor:
    """(B, 2) float sizes of images without padding."""
    height, width = images.shape[-2:]
    return torch.tensor([[height, width]] * len(images), dtype=torch.float32)


DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """PyTorch's context for a precision."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, DTYPES[precision])


def require(package: str, extra: str) -> Any:
    """Import an optional package.

    Raises:
        UserError: it is not installed, or does not import.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        # a package of ours that lacks one of its own says so
        reason = "is not installed" if error.name == package else f"does not import ({error})"
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


def require_precision(backend: str, precision: str, supported: tuple[str, ...]) -> None:
    """Refuse a precision that a backend has not.

    Raises:
        UserError: it has not.
    """
    if precision not in supported:
        raise UserError(
            f"The backend {backend} does not compute in {precision} here.",
            f"Take --precision {' or '.join(supported)}.",
        )


def require_cpu(backend: str, device: torch.device) -> None:
    """Refuse devices other than the CPU.

    Raises:
        UserError: it is another.
    """
    if device.type != "cpu":
        raise UserError(
            f"The backend {backend} runs on the CPU here, not on {device}.",
            "Take --device cpu, or the backend eager or compile.",
        )
