"""How a model is executed: what of it, by what, in which numbers, on how many images, and where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from sparsevit.errors import UserError
from sparsevit.latency.backends import require_backend
from sparsevit.latency.backends.graph import CPU
from sparsevit.latency.backends.registry import require_whole_backend
from sparsevit.limits import require_memory
from sparsevit.tasks import task_of_scope
from sparsevit.threads import asked_threads

PAPER_BATCH = 4
PAPER_IMG_SIZE = (672, 672)
SMALLEST_SIDE = 32
LEAST_BYTES_A_PIXEL = 40
"""That a forward takes: 44 in a Swin with 16 channels, 97 in a Swin-T (eager, fp32, on a CPU)."""

FLAT = {"flat": True}
"""Metadata of a result's field: in JSON its keys stand among the result's own."""


@dataclass(frozen=True)
class Execution:
    """How a model is executed.

    Attributes:
        scope: ``backbone``, as the paper times, or what its task calls the whole model:
            ``detector``, images in, boxes and masks out, or ``segmentor``, images in,
            classes of pixels out, and so on.
        backend: one of :data:`sparsevit.latency.backends.BACKENDS`.
        precision: ``fp32``, ``fp16`` or ``bf16``; in PyTorch these two are autocast.
        img_size: (height, width) in pixels.
        batch_size: images a call; 4 in the paper.
        device: where.
    """

    scope: str = "backbone"
    backend: str = "eager"
    precision: str = "fp32"
    img_size: tuple[int, int] = PAPER_IMG_SIZE
    batch_size: int = PAPER_BATCH
    device: torch.device = CPU

    @property
    def whole(self) -> bool:
        """Whether the whole model is executed, not its backbone alone."""
        return self.scope != "backbone"

    @property
    def threads(self) -> int | None:
        """CPU threads that latencies depend on; None on an accelerator."""
        return torch.get_num_threads() if self.device.type == "cpu" else None

    def require(self) -> Execution:
        """Itself, if it can be had here; to be asked before any work is put into it.

        Raises:
            UserError: there is no such scope, backend or precision, it cannot be had on this device
                or for this scope, or the images are too few or too small.
        """
        task = task_of_scope(self.scope)
        how = (self.backend, self.precision, self.device)
        if task is None:
            require_backend(*how)
        else:
            require_whole_backend(task.whole, task.backends(), *how)
        require_images(self.batch_size, self.img_size, "timed")
        return self

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Execution:
        """What :meth:`to_dict` gave."""
        height, width = document["img_size"]
        device = torch.device(document["device"])
        known = {name: document[name] for name in ("scope", "backend", "precision", "batch_size")}
        return cls(**known, img_size=(height, width), device=device)

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for records; on a CPU with the threads, where a number was asked for."""
        asked = asked_threads() if self.device.type == "cpu" else None
        return {
            "scope": self.scope,
            "backend": self.backend,
            "img_size": list(self.img_size),
            "batch_size": self.batch_size,
            "precision": self.precision,
            "device": str(self.device),
            **({} if asked is None else {"threads": asked}),
        }


def require_images(batch_size: int, img_size: tuple[int, int], what: str) -> None:
    """Refuse a batch that no backbone takes.

    Args:
        batch_size: images.
        img_size: (height, width) in pixels.
        what: is to be done with them: ``timed``.

    Raises:
        UserError: there is no image, they are too small, or the memory does not hold them.
    """
    height, width = img_size
    if batch_size < 1 or min(img_size) < SMALLEST_SIDE:
        raise UserError(
            f"A batch of {batch_size} images of {width}x{height} cannot be {what}.",
            f"Use at least one image of at least {SMALLEST_SIDE}x{SMALLEST_SIDE} pixels.",
        )
    require_memory(
        batch_size * height * width * LEAST_BYTES_A_PIXEL,
        f"A batch of {batch_size} images of {width}x{height}",
        "Use a smaller image size (--img-size) or batch (--batch-size).",
    )
